from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from broker.store.migrate import migrate, pending
from tests.embedded.starting import wait_until
from tests.migration.files import fetch, write
from tests.pg import state_folder

_LIMIT_S = 30.0
_PGBOUNCER = os.environ.get("BROKER_TEST_PGBOUNCER") or shutil.which("pgbouncer") or shutil.which("/usr/sbin/pgbouncer")


@pytest.fixture
def pooled_url(empty_url: str) -> Iterator[str]:
    """The empty database behind pgbouncer in transaction mode with two server connections."""
    if _PGBOUNCER is None:
        pytest.skip("pgbouncer is not installed; BROKER_TEST_PGBOUNCER may name its program")
    to = urlsplit(empty_url)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with state_folder() as folder:
        (folder / "ini").write_text(
            f"[databases]\npooled = host={to.hostname} port={to.port} dbname={to.path[1:]} "
            f"user={to.username} password={to.password}\n"
            f"[pgbouncer]\nlisten_addr=127.0.0.1\nlisten_port={port}\nunix_socket_dir=\nauth_type=any\n"
            "pool_mode=transaction\ndefault_pool_size=2\n"
        )
        # It refuses root, and reads its settings as the account that it runs as.
        folder.chmod(0o755)
        account = pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else os.geteuid()
        with subprocess.Popen([_PGBOUNCER, folder / "ini"], stderr=subprocess.DEVNULL, user=account) as pooler:
            wait_until(lambda: _listens(port), "pgbouncer listens")
            yield f"postgresql://anybody@127.0.0.1:{port}/pooled?sslmode=disable"
            pooler.terminate()


async def test_behind_pgbouncer(pooled_url: str, empty_url: str, tmp_path: Path) -> None:
    """Migrations apply through a pooler in transaction mode, which may give every transaction another connection."""
    write(
        tmp_path,
        m0001_table="CREATE TABLE call (id int);",
        m0002_index="-- no-transaction\nCREATE INDEX CONCURRENTLY call_id ON call (id);",
        m0003_row="INSERT INTO call VALUES (1);",
    )
    async with asyncio.timeout(_LIMIT_S):
        assert len(await migrate(pooled_url, directory=tmp_path)) == 3
        assert await pending(pooled_url, directory=tmp_path) == []
    assert await fetch(empty_url, "SELECT count(*) FROM call") == 1


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0

"""pgbouncer in front of a database, in transaction mode."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

from bench.ports import free_ports
from tests.pg import state_folder

_PGBOUNCER = os.environ.get("BROKER_TEST_PGBOUNCER") or shutil.which("pgbouncer") or shutil.which("/usr/sbin/pgbouncer")
_START_S = 20.0


@contextmanager
def pooled(url: str) -> Iterator[str]:
    """The address of a pooler with two server connections to ``url``; skips the test where there is no pgbouncer."""
    if _PGBOUNCER is None:
        pytest.skip("pgbouncer is not installed; BROKER_TEST_PGBOUNCER may name its program")
    to = urlsplit(url)
    (port,) = free_ports(1)
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
            try:
                _await(port)
                yield f"postgresql://anybody@127.0.0.1:{port}/pooled?sslmode=disable"
            finally:
                pooler.terminate()


def _await(port: int) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert time.monotonic() < deadline, "pgbouncer does not listen"
        time.sleep(0.02)

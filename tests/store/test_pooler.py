"""Statements through pgbouncer in transaction mode, where each transaction may get another server connection (P13)."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from broker.store.database import Database
from tests.contract.service import wait_until
from tests.pg import state_folder
from tests.store.shop import open_shop

_PGBOUNCER = os.environ.get("BROKER_TEST_PGBOUNCER") or shutil.which("pgbouncer") or shutil.which("/usr/sbin/pgbouncer")


@pytest.fixture
def pooled_url(database_url: str) -> Iterator[str]:
    """The test's database behind a pooler with two server connections."""
    if _PGBOUNCER is None:
        pytest.skip("pgbouncer is not installed; BROKER_TEST_PGBOUNCER may name its program")
    to = urlsplit(database_url)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with state_folder() as folder:
        (folder / "ini").write_text(
            f"[databases]\npooled = host={to.hostname} port={to.port} dbname={to.path[1:]} "
            f"user={to.username} password={to.password}\n"
            f"[pgbouncer]\nlisten_addr=127.0.0.1\nlisten_port={port}\nunix_socket_dir=\nauth_type=any\n"
            "pool_mode=transaction\ndefault_pool_size=2\n"
        )
        folder.chmod(0o755)
        # It refuses root, and reads its settings as the account that it runs as.
        account = pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else os.geteuid()
        with subprocess.Popen([_PGBOUNCER, folder / "ini"], stderr=subprocess.DEVNULL, user=account) as pooler:
            wait_until(lambda: _listens(port), "pgbouncer listens")
            yield f"postgresql://anybody@127.0.0.1:{port}/pooled?sslmode=disable"
            pooler.terminate()


def _listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


async def test_every_statement_gets_its_own_answer(pooled_url: str) -> None:
    """Many different statements at once through two server connections: each answer belongs to its question."""
    db = Database(pooled_url, connections=8, timeout_s=20, statement_cache=0)
    await db.open()
    try:

        async def ask(number: int) -> None:
            for turn in range(20):
                row = await db.fetchrow(f"SELECT $1::integer AS given, {number} AS asked", turn)
                assert row is not None
                assert (row["given"], row["asked"]) == (turn, number)

        await asyncio.gather(*(ask(number) for number in range(16)))
    finally:
        await db.close()


async def test_claims_go_through_a_pooler(pooled_url: str) -> None:
    """Claims, settling and releases work through the pooler: advisory locks end with their transaction."""
    db = Database(pooled_url, connections=6, timeout_s=20, statement_cache=0)
    await db.open()
    try:
        shop = await open_shop(db, numbers=40)
        claims = [shop.claim(a=number, b=1000 + number, x=number % 40) for number in range(120)]
        outcomes = await asyncio.gather(*(shop.reserve(claim) for claim in claims))
        won = [claim for claim, outcome in zip(claims, outcomes, strict=True) if outcome == ["won"]]
        assert len(won) > 60
        assert {outcome[0] for outcome in outcomes} <= {"won", "busy"}
        await asyncio.gather(*(shop.bind(claim) for claim in won))
        assert await shop.value("SELECT count(*) FROM line WHERE state = 'active'") == len(won)
        assert await shop.value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0
        assert await shop.wrong_books() == []
    finally:
        await db.close()

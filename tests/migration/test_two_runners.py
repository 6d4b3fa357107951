from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tests.migration.files import connected, fetch, write

_RUNNERS = 2
_LIMIT_S = 60.0
_OTHERS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
_CHECKOUT = Path(__file__).parents[2]


async def _run(url: str, directory: Path) -> list[str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.migration.runner",
        url,
        str(directory),
        stdout=asyncio.subprocess.PIPE,
        cwd=_CHECKOUT,
    )
    printed, _ = await process.communicate()
    assert process.returncode == 0
    return printed.decode().split()


async def test_two_runners_do_the_work_once(empty_url: str, tmp_path: Path) -> None:
    """Of two processes at once one applies everything, while the other waits out of the way of its index build."""
    write(
        tmp_path,
        m0001_table="CREATE TABLE call (id int);",
        m0002_gate="SELECT pg_advisory_xact_lock(7777); INSERT INTO call VALUES (1);",
        m0003_index="-- no-transaction\nCREATE INDEX CONCURRENTLY call_id ON call (id);",
        m0004_row="INSERT INTO call VALUES (2);",
    )
    async with asyncio.timeout(_LIMIT_S), connected(empty_url) as test:
        async with test.transaction():
            await test.execute("SELECT pg_advisory_xact_lock(7777)")
            runs = [asyncio.create_task(_run(empty_url, tmp_path)) for _ in range(_RUNNERS)]
            # The one at work has two connections, the other asks for the lock over one; and there is ours. Looked at
            # from outside the transaction, in which this view would not move.
            while await fetch(empty_url, _OTHERS) < _RUNNERS + 2:
                pass
        applied = await asyncio.gather(*runs)
    assert sorted(len(names) for names in applied) == [0, 4]
    assert await fetch(empty_url, "SELECT string_agg(id::text, ' ' ORDER BY id) FROM call") == "1 2"
    assert await fetch(empty_url, "SELECT count(*) FROM schema_migration") == 4

"""The promise of all promises: nobody is behind an X twice, under a crowd, through two processes (P1)."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from bench.check import check_books, check_promises
from bench.history import check_history
from tests.concurrency.crowd import Crowd
from tests.contract.service import Service, client_of, up
from tests.pg import state_folder
from tests.plant import Plant, no_unique_slots, slots_freed_too_early

QUARANTINE_S = 1
CAP = 20
NUMBERS = 60
#: 64 x 17 bindings want 1,088 of the 1,200 seats: most X are full or barred for most parties.
KEEP = 17
#: How long crowds work.
SECONDS = float(os.environ.get("TEST_SOAK_S", "10"))

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]


@asynccontextmanager
async def narrow_service(folder: Path, *planted: Plant, **extra: str) -> AsyncIterator[Service]:
    """A broker with two workers on 60 X, cap 20 and a second of quarantine; ``planted`` is done before the load."""
    with up(folder, "--workers", "2", settings=extra) as service:
        db = await asyncpg.connect(service.database)
        try:
            await db.execute("UPDATE app SET cap = $1, quarantine_s = $2", CAP, QUARANTINE_S)
            await db.execute(
                "UPDATE x_number SET state = 'retired'"
                " WHERE number NOT IN (SELECT number FROM x_number ORDER BY pool_id, x_id LIMIT $1)",
                NUMBERS,
            )
            for plant in planted:
                await plant(db)
            version = await db.fetchval("SELECT version FROM config_version")
        finally:
            await db.close()
        await _both_know(service, version)
        yield service


async def _both_know(service: Service, version: int) -> None:
    """Wait until both workers have loaded the configuration."""
    async with asyncio.timeout(20):
        while service.log.read_text().count(f'"version":{version}') < 2:  # noqa: ASYNC110 - other processes' log
            await asyncio.sleep(0.05)


async def judge(service: Service, crowd: Crowd, *, undisturbed: bool = True, settle_s: float = 20.0) -> list[str]:
    """All violations: what clients saw, what they were told, database against platform.

    ``undisturbed``: nothing was killed, so the platform never has to refuse a party that is on the X already.
    """
    async with client_of(service) as client:
        conflicts = [row for row in await client.ledger() if row["op"] == "bind" and row["result_code"] == "1012010"]
    return [
        *(f"the platform refused a party twice on one X: ledger row {row['seq']}" for row in conflicts if undisturbed),
        *check_history(crowd.operations, quarantine_s=QUARANTINE_S, cap=CAP),
        *await check_promises(service.database, crowd.operations, settle_s=settle_s),
        *await check_books(service.database, service.vault(), service.ready["emulator_admin"], settle_s=settle_s),
    ]


@pytest.mark.parametrize("locks", ["try", "off"])
async def test_a_crowd_through_two_processes_leaves_clean_books(locks: str) -> None:
    """No party twice on an X, no cap exceeded, no early re-use, books equal; without advisory locks just as well."""
    with state_folder() as folder:
        async with narrow_service(folder, BROKER_TEST_LOCKS=locks) as service:
            crowd = Crowd(service, seconds=SECONDS, keep=KEEP)
            await crowd.run()
            assert await judge(service, crowd) == []
    assert crowd.answers["bind 201"] > 60 * SECONDS
    assert not [answer for answer in crowd.answers if re.search(r" (0|5\d\d)\b", answer)], crowd.answers


async def test_a_crowd_survives_a_worker_killed_every_few_seconds() -> None:
    """A worker killed again and again: clients may miss answers, but the books stay equal and nobody meets twice."""
    with state_folder() as folder:
        async with narrow_service(folder, BROKER_LEASE_S="6", BROKER_RESCUE_INTERVAL_S="0.5") as service:
            crowd = Crowd(service, seconds=SECONDS, keep=KEEP)
            load = asyncio.create_task(crowd.run())
            killed = 0
            while not load.done():
                await asyncio.wait([load], timeout=2)
                if not load.done():
                    killed += kill_a_worker(service)
            await load
            violations = await judge(service, crowd, undisturbed=False)
    assert violations == []
    assert killed >= SECONDS / 4
    assert crowd.answers["bind 201"] > 30 * SECONDS


def kill_a_worker(service: Service) -> int:
    """Kill one worker of the service, whichever lives."""
    children = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children").read_text().split()
    for pid in children:
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except FileNotFoundError:
            continue
        if b"broker.worker" in words:
            os.kill(int(pid), signal.SIGKILL)
            return 1
    return 0


async def test_the_checker_finds_the_missing_key_and_locks() -> None:
    """Planted bug: with neither locks nor the unique key two processes do give a party an X twice, and it is found."""
    with state_folder() as folder:
        async with narrow_service(folder, no_unique_slots, BROKER_TEST_LOCKS="off") as service:
            crowd = Crowd(service, seconds=10, keep=KEEP, couriers=15)
            await crowd.run()
            violations = await judge(service, crowd, settle_s=2)
    assert sum(one.op == "bind" for one in crowd.operations) <= 10_000
    assert violations, dict(crowd.answers)


async def test_the_checker_finds_a_release_before_the_confirmed_unbind() -> None:
    """Planted bug: slots set free when the release begins, not when the platform has confirmed it."""
    with state_folder() as folder:
        async with narrow_service(folder, slots_freed_too_early) as service, client_of(service) as client:
            await client.fault("unbind", "delay", ms=150, when="before")
            crowd = Crowd(service, seconds=8, keep=KEEP, couriers=40)
            await crowd.run()
            violations = await judge(service, crowd, settle_s=2)
    assert violations, dict(crowd.answers)

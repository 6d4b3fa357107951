"""Sharing, changes, hand-overs and releases at once, with calls placed meanwhile: whom does a call reach?"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bench.check import check_books, check_promises
from bench.history import check_history
from bench.mixed import Mixed, kill_while
from tests.concurrency.test_soak import CAP, QUARANTINE_S, narrow_service
from tests.contract.service import Service
from tests.pg import state_folder
from tests.plant import Plant, ends_for_both

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]


@asynccontextmanager
async def busy_service(folder: Path, *planted: Plant) -> AsyncIterator[Service]:
    """Two workers on few X, whose calls are taken over soon and whose unknown changes are settled soon."""
    times = {"BROKER_LEASE_S": "6", "BROKER_RESCUE_INTERVAL_S": "0.5", "BROKER_PLATFORM_ABSENCE_S": "2"}
    async with narrow_service(folder, *planted, **times) as service:
        yield service


def load_on(service: Service, *, calls: int, seconds: float) -> Mixed:
    """The mixed load on a service."""
    return Mixed(service.api, service.key, service.ready["emulator_admin"], calls, seconds, groups=16, placers=4)


async def judge(service: Service, load: Mixed, *, settle_s: float) -> list[str]:
    """Everything that was wrong: calls, answers, books."""
    return [
        *load.wrong,
        *check_history(load.operations, quarantine_s=QUARANTINE_S, cap=CAP, sharing=True),
        *await check_promises(service.database, load.operations, settle_s=settle_s, expired=True),
        *await check_books(service.database, service.vault(), service.ready["emulator_admin"], settle_s=settle_s),
    ]


async def test_no_call_reaches_a_wrong_person_while_workers_are_killed() -> None:
    """Thousands of calls while pairs share, change, are handed over and released, and a worker dies every 3 seconds."""
    with state_folder() as folder:
        async with busy_service(folder) as service:
            load = load_on(service, calls=6_000, seconds=15)
            killed = await kill_while(asyncio.create_task(load.run()), service.process.pid, 3)
            violations = await judge(service, load, settle_s=40)
    assert violations == []
    assert killed >= 1
    assert load.reached > 1_000
    assert load.answers["patch 200"] > 50, load.answers
    assert load.answers["hand-over 200"] > 5, load.answers
    assert load.answers["patch 409 line_shared"] > 5, load.answers


async def found(*bugs: Plant) -> list[str]:
    """What is wrong after some seconds with bugs."""
    with state_folder() as folder:
        async with busy_service(folder, *bugs) as service:
            load = load_on(service, calls=3_000, seconds=8)
            await load.run()
            return await judge(service, load, settle_s=2)


async def test_a_release_that_unbinds_for_both_is_found() -> None:
    """Planted bug: any release of a shared line ends it for everybody."""
    assert await found(ends_for_both)

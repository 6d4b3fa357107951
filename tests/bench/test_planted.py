"""Planted bugs: what a broken broker does is found by the scenario's own checks, within 10,000 operations."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import asyncpg
import pytest

from bench.run import Ask, Bench, prepared
from bench.scenario_file import ScenarioFile
from tests.plant import change, no_unique_slots, slots_freed_too_early

_RESTED = r"greatest\(v_now \+ make_interval\(secs => p\.rest_s\), s\.rests_until\)"
_TOKEN = r" AND c\.token = i\.token"
#: A process that wakes up after its lease settles what is somebody else's meanwhile: its token is an older one.
_STALE = """
SELECT count(*) FROM settle_ended(
  ARRAY[$1]::integer[], ARRAY[$2]::uuid[], ARRAY[$3]::integer[], ARRAY[$4]::integer[], ARRAY[1]::smallint[],
  ARRAY['failed'], ARRAY['platform_refused'], ARRAY[0]::double precision[], ARRAY['refused'], ARRAY[500]::smallint[],
  ARRAY['0'])
"""
_OPEN = "SELECT pool_id, line_id, no, token FROM platform_call WHERE state = 'open' AND op = 'bind' LIMIT 20"

Plant = Callable[[Bench, "asyncpg.Connection[Any]"], Awaitable[None]]


async def _no_key(bench: Bench, db: asyncpg.Connection[Any]) -> None:
    del bench
    await no_unique_slots(db)


async def _early(bench: Bench, db: asyncpg.Connection[Any]) -> None:
    await slots_freed_too_early(db)
    await _slow(bench, "unbind", 150)


async def _no_rest(bench: Bench, db: asyncpg.Connection[Any]) -> None:
    del bench
    await change(db, "settle_ended", _RESTED, "v_now")


async def _slow(bench: Bench, interface: str, ms: int) -> None:
    assert bench.stack is not None
    rule = {"interface": interface, "kind": "delay", "ms": ms, "when": "before"}
    async with aiohttp.ClientSession(raise_for_status=True) as http:
        await http.post(f"{bench.stack.emulator_admin}/emulator/faults", json=rule)


async def _load(
    bench: Bench, db: asyncpg.Connection[Any], number: int = 0, meanwhile: Plant | None = None
) -> list[str]:
    """Let the crowd in, and return what the checks say."""
    load = asyncio.create_task(bench.run(number, lambda _what, _share: None))
    while not load.done():
        if meanwhile is not None:
            await meanwhile(bench, db)
        await asyncio.wait([load], timeout=0.3)
    await load
    return await bench.violations()


@asynccontextmanager
async def _broker(numbers: int = 40, **load: Any) -> AsyncIterator[tuple[Bench, asyncpg.Connection[Any]]]:
    crowd = {
        "load": {
            "clients": 32,
            "couriers": 12,
            "keep": 150,
            "seconds": 2.0,
            "warmup_s": 0.5,
            "max_requests": 2000,
            **load,
        },
        "pools": {"count": 1, "numbers": numbers, "quarantine_s": 1, "cap": 20},
        "broker": {"settings": {"BROKER_TEST_LOCKS": "off"}},
    }
    file = ScenarioFile.model_validate({"about": "few couriers on few X", **crowd})
    async with AsyncExitStack() as exits:
        bench = await prepared(Ask("crowd", file), exits)
        bench.settle_s = 5.0
        assert bench.stack is not None
        db = await asyncpg.connect(bench.stack.database)
        try:
            yield bench, db
        finally:
            await db.close()


@pytest.mark.parametrize(
    ("plant", "numbers", "load", "word"),
    [
        # So few X that two processes choose the same one for a courier in the first run: what it leaves fills them up.
        pytest.param(_no_key, 6, {"couriers": 40, "keep": 30}, "twice", id="locks and unique key removed"),
        pytest.param(_early, 40, {}, "the platform refused", id="slots freed before the confirmed unbind"),
        pytest.param(_no_rest, 40, {}, "quarantine cut short", id="rest forgotten"),
    ],
)
async def test_a_planted_bug_is_found(plant: Plant, numbers: int, load: dict[str, int], word: str) -> None:
    """Each of them is in the violations of so short a run; on a slow machine of a few of them."""
    async with _broker(numbers, **load) as (bench, db):
        await plant(bench, db)
        found: list[str] = []
        while not any(word in one for one in found):
            assert len(bench.operations) <= 10_000, (found[:5], bench.runs[-1]["not_201"])
            found = await _load(bench, db, len(bench.runs))


async def test_a_settle_without_token_is_found() -> None:
    """What a process that wakes up late says of others' calls changes nothing; without the token it would be found."""
    settled = 0

    async def late(_bench: Bench, db: asyncpg.Connection[Any]) -> None:
        nonlocal settled
        for call in await db.fetch(_OPEN):
            settled += await db.fetchval(_STALE, call["pool_id"], call["line_id"], call["no"], call["token"] - 1)

    async with _broker() as (bench, db):
        await _slow(bench, "bind", 500)
        assert await _load(bench, db, 0, late) == []
        assert settled == 0
        await change(db, "settle_ended", _TOKEN, "")
        assert await _load(bench, db, 1, late)
    assert settled > 0

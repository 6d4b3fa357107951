"""Several claimants of the same slots at once: the last guard, with and without the locks in front of it."""

from __future__ import annotations

import asyncio
import json
import random
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from broker.store.allocation import BatchTorn, LockMode
from tests.store.rival import rival
from tests.store.shop import Shop

_CHECKOUT = Path(__file__).parents[2]
_A, _B, _C = 11, 22, 33


async def _tried(shop: Shop, mode: LockMode, a: int, b: int, *, cap: int = 500) -> str:
    try:
        (outcome,) = await shop.reserve(shop.claim(a, b, cap=cap), mode=mode)
    except BatchTorn:
        return "torn"
    return outcome


@asynccontextmanager
async def _between_judging_and_writing(shop: Shop, url: str, *, waiting: int) -> AsyncIterator[asyncpg.Connection]:
    """Inside, ``reserve`` can read ``line`` and not write it; leaving waits until ``waiting`` of them stand there."""
    gate = await asyncpg.connect(url)
    try:
        transaction = gate.transaction()
        await transaction.start()
        await gate.execute("LOCK TABLE line IN SHARE MODE")
        yield gate
        stuck = "SELECT count(*) FROM pg_locks WHERE relation = 'line'::regclass AND NOT granted"
        async with asyncio.timeout(20):
            while await shop.value(stuck) < waiting:
                pass
        await transaction.commit()
    finally:
        await gate.close()


@pytest.mark.parametrize("other", [(_A, _C), (_C, _A), (_A, _B), (_B, _A)])
async def test_with_the_locks_the_second_claimant_is_busy(
    shop: Shop, database_url: str, other: tuple[int, int]
) -> None:
    """While one batch is between judging and writing, another that wants one of its parties is told to come back."""
    async with _between_judging_and_writing(shop, database_url, waiting=1):
        first = asyncio.create_task(_tried(shop, LockMode.TRY, _A, _B))
        while not await shop.value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"):
            pass
        assert await _tried(shop, LockMode.TRY, *other) == "busy"
    assert await first == "won"
    assert await shop.wrong_books() == []


@pytest.mark.parametrize("other", [(_A, _C), (_C, _A), (_A, _B), (_B, _A)])
async def test_without_the_locks_the_key_decides(shop: Shop, database_url: str, other: tuple[int, int]) -> None:
    """Both judged the slot free and both write: one wins, the other batch is torn and leaves nothing."""
    async with _between_judging_and_writing(shop, database_url, waiting=2):
        rivals = [
            asyncio.create_task(_tried(shop, LockMode.OFF, _A, _B)),
            asyncio.create_task(_tried(shop, LockMode.OFF, *other)),
        ]
    assert sorted([await task for task in rivals]) == ["torn", "won"]
    assert await shop.counts() == {"line": 1, "binding": 1, "slot": 2, "platform_call": 1, "idempotency": 0}
    assert await shop.wrong_books() == []


async def test_two_batches_for_the_last_seat(shop: Shop, database_url: str) -> None:
    """Both saw the last seat free: one line gets it, the other looks again, finds the X full and leaves nothing."""
    async with _between_judging_and_writing(shop, database_url, waiting=2):
        rivals = [asyncio.create_task(_tried(shop, LockMode.TRY, a, a + 1, cap=1)) for a in (100, 200)]
    assert sorted([await task for task in rivals]) == ["full", "won"]
    assert await shop.counts() == {"line": 1, "binding": 1, "slot": 2, "platform_call": 1, "idempotency": 0}
    assert await shop.wrong_books() == []


async def test_two_batches_for_one_of_two_seats(shop: Shop, database_url: str) -> None:
    """Both saw one of two seats free and cannot but meet there or beside: both get one, with all of their items."""
    for turn in range(3):
        async with _between_judging_and_writing(shop, database_url, waiting=2):
            rivals = [
                asyncio.create_task(shop.reserve(shop.claim(a, a + 1, turn, cap=2), shop.claim(a + 2, a + 3, 3)))
                for a in (1000 * turn + 100, 1000 * turn + 200)
            ]
        assert [await task for task in rivals] == [["won", "won"], ["won", "won"]]
    assert await shop.wrong_books() == []


async def _plant_the_bug(shop: Shop) -> None:
    """Take the slot's key away: what was not there when it was judged is just inserted."""
    await shop.run("ALTER TABLE slot DROP CONSTRAINT slot_pkey")


@pytest.mark.parametrize("other", [(_A, _C), (_B, _A)])
async def test_planted_without_key_and_locks_a_party_is_behind_an_x_twice(
    shop: Shop, database_url: str, other: tuple[int, int]
) -> None:
    """With the key's rule taken away and the locks off a double use does happen, and the books show it."""
    await _plant_the_bug(shop)
    async with _between_judging_and_writing(shop, database_url, waiting=2):
        rivals = [
            asyncio.create_task(_tried(shop, LockMode.OFF, _A, _B)),
            asyncio.create_task(_tried(shop, LockMode.OFF, *other)),
        ]
    assert [await task for task in rivals] == ["won", "won"]
    assert any(wrong.startswith("double use") for wrong in await shop.wrong_books())


async def test_planted_without_the_key_the_locks_still_hold(shop: Shop, database_url: str) -> None:
    """With the key's rule taken away the locks alone keep the books right."""
    await _plant_the_bug(shop)
    async with _between_judging_and_writing(shop, database_url, waiting=1):
        first = asyncio.create_task(_tried(shop, LockMode.TRY, _A, _B))
        while not await shop.value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"):
            pass
        assert await _tried(shop, LockMode.TRY, _A, _C) == "busy"
    assert await first == "won"
    assert await shop.wrong_books() == []


@pytest.mark.parametrize("mode", LockMode)
async def test_many_connections_never_use_a_slot_twice(shop: Shop, mode: LockMode) -> None:
    """Rivals on parallel connections, many rounds: outcomes of every kind, and never a fault in the books."""
    dice = random.Random(7)  # noqa: S311 - a repeatable start; the interleaving is not
    games = [rival(shop, random.Random(dice.random()), mode, 150) for _ in range(4)]  # noqa: S311
    seen = sum(await asyncio.gather(*games), Counter[str]())
    assert seen["wrong"] == 0
    assert seen["won"] > 50
    assert seen["barred"] > 0
    if mode is not LockMode.OFF:
        assert seen["torn"] == 0


async def _process(url: str, seed: int, mode: LockMode, rounds: int) -> Counter[str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.store.rival", url, str(seed), mode.value, str(rounds),
        stdout=asyncio.subprocess.PIPE, cwd=_CHECKOUT,
    )  # fmt: skip
    printed, _ = await process.communicate()
    assert process.returncode == 0
    return Counter(json.loads(printed))


@pytest.mark.parametrize("mode", [LockMode.TRY, LockMode.OFF])
async def test_many_processes_never_use_a_slot_twice(shop: Shop, database_url: str, mode: LockMode) -> None:
    """The same with processes, as instances are: never a fault in the books, at any look from any of them."""
    runs = await asyncio.gather(*(_process(database_url, seed, mode, 150) for seed in range(3)))
    seen = sum(runs, Counter[str]())
    assert seen["wrong"] == 0
    assert seen["won"] > 50
    assert await shop.wrong_books() == []


def test_no_lock_outlives_its_transaction() -> None:
    """Only transaction-level advisory locks: session-level ones outlive rollbacks and get lost behind a pooler."""
    session_level = re.compile(r"pg_(try_)?advisory_(?!xact_)(un)?lock\w*\s*\(", re.IGNORECASE)
    sources = [
        *_CHECKOUT.glob("broker/**/*.py"),
        *_CHECKOUT.glob("broker/**/*.sql"),
        *_CHECKOUT.glob("migrations/*.sql"),
    ]
    assert len(sources) > 20
    assert [str(path) for path in sources if session_level.search(path.read_text(encoding="utf-8"))] == []
    assert session_level.search("SELECT pg_try_advisory_lock (1)")
    assert not session_level.search("SELECT pg_try_advisory_xact_lock(1)")

"""The batches that leases and outcomes travel in: nothing may stay behind in their queue."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from broker.flows import pace
from broker.flows.batching import Batcher


async def test_an_item_that_comes_as_the_last_batches_end_is_not_forgotten() -> None:
    """Submitted in the turn of the loop in which the running batch ends, an item still gets its statement."""
    statements: list[asyncio.Future[None]] = []

    async def run(items: Sequence[int]) -> Sequence[int]:
        statements.append(asyncio.get_running_loop().create_future())
        await statements[-1]
        return items

    async def turns(count: int = 6) -> None:
        for _ in range(count):
            await asyncio.sleep(0)

    batcher: Batcher[int, int] = Batcher("test", run, in_flight=2)

    async def twice() -> None:
        await batcher.submit(1)
        await batcher.submit(2)

    first = asyncio.create_task(twice())
    await turns()
    statements[0].set_result(None)
    await turns(20)
    assert len(statements) == 2
    statements[1].set_result(None)
    await asyncio.wait_for(first, 10)


async def test_who_waits_behind_a_slow_statement_gets_one_beside_it() -> None:
    """What comes while a statement runs shares the next one; one that does not end keeps nobody waiting for good."""
    batches: list[Sequence[int]] = []
    held = asyncio.get_running_loop().create_future()

    begun = asyncio.Event()

    async def run(items: Sequence[int]) -> Sequence[int]:
        batches.append(items)
        begun.set()
        if items[0] == 0:
            await held
        return items

    batcher: Batcher[int, int] = Batcher("test", run, in_flight=2)
    stuck = asyncio.create_task(batcher.submit(0))
    await begun.wait()
    assert await asyncio.wait_for(asyncio.gather(*map(batcher.submit, (1, 2, 3))), 30) == [1, 2, 3]
    assert batches == [[0], [1, 2, 3]]
    held.set_result(None)
    assert await stuck == 0


async def test_a_few_wait_for_no_statement_under_way() -> None:
    """Where few come, two statements run beside each other: who comes second does not wait for the first one's end."""
    begun: list[Sequence[int]] = []
    held = asyncio.get_running_loop().create_future()

    async def run(items: Sequence[int]) -> Sequence[int]:
        begun.append(items)
        await held
        return items

    batcher: Batcher[int, int] = Batcher("test", run, in_flight=2)
    asked = [asyncio.create_task(batcher.submit(0))]
    for number in (1, 2):
        for _ in range(20):
            await asyncio.sleep(0)
        asked.append(asyncio.create_task(batcher.submit(number)))
    for _ in range(20):
        await asyncio.sleep(0)
    assert begun == [[0], [1]]
    held.set_result(None)
    assert await asyncio.wait_for(asyncio.gather(*asked), 30) == [0, 1, 2]
    assert begun == [[0], [1], [2]]


async def test_a_crowd_gathers_and_a_lone_item_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where many come in a short time the next batch waits for more of them, or for a moment; else it does not."""
    monkeypatch.setattr(pace, "GAP_S", 300.0)
    batches: list[int] = []

    async def run(items: Sequence[int]) -> Sequence[int]:
        batches.append(len(items))
        return items

    batcher: Batcher[int, int] = Batcher("test", run)

    def many(count: int) -> asyncio.Future[list[int]]:
        return asyncio.gather(*map(batcher.submit, range(count)))

    await asyncio.wait_for(many(1), 30)
    await asyncio.wait_for(many(60), 30)
    first = many(20)
    for _ in range(20):
        await asyncio.sleep(0)
    assert batches == [1, 60]
    await asyncio.wait_for(asyncio.gather(first, many(50)), 30)
    assert batches == [1, 60, 70]
    monkeypatch.setattr(pace, "GAP_S", 0.01)
    await asyncio.wait_for(many(1), 30)
    await asyncio.wait_for(many(1), 30)
    assert batches == [1, 60, 70, 1, 1]

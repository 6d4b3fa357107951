"""The batches that leases and outcomes travel in: nothing may stay behind in their queue."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from broker.flows.batching import Batcher


async def test_an_item_that_comes_as_the_last_batches_end_is_not_forgotten() -> None:
    """Submitted in the turn of the loop in which all running batches end, an item still gets its statement."""
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
    second = asyncio.create_task(batcher.submit(3))
    await turns()
    for statement in tuple(statements):
        statement.set_result(None)
    await turns(20)
    started = len(statements)
    for statement in statements[2:]:
        statement.set_result(None)
    await turns(20)
    first.cancel()
    await asyncio.gather(first, second, return_exceptions=True)
    assert started == 3

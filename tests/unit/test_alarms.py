"""Alarms ring by their time, and not when they were called off."""

from __future__ import annotations

import asyncio

from broker.alarms import alarm_at


async def test_alarms_ring_in_their_order_and_not_after_their_time() -> None:
    """Near ones at their time; far ones up to 50 ms before it."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    rung: dict[float, float] = {}
    all_rung = asyncio.Event()

    def ring(after_s: float) -> None:
        rung[after_s] = loop.time() - begun
        if len(rung) == 4:
            all_rung.set()

    for after_s in (1.2, 0.0, 1.4, 0.02):
        alarm_at(begun + after_s, lambda after_s=after_s: ring(after_s))  # type: ignore[misc]
    await asyncio.wait_for(all_rung.wait(), 30)
    assert list(rung) == [0.0, 0.02, 1.2, 1.4]
    assert all(at >= after_s - 0.051 for after_s, at in rung.items())


async def test_what_was_called_off_does_not_ring() -> None:
    """Near and far, one of many of the same moment."""
    loop = asyncio.get_running_loop()
    rung: list[str] = []
    last: asyncio.Future[None] = loop.create_future()
    off = [alarm_at(loop.time() + after_s, lambda: rung.append("off")) for after_s in (0.05, 1.1)]
    alarm_at(loop.time() + 1.1, lambda: last.set_result(None))
    for alarm in off:
        alarm.cancel()
    await asyncio.wait_for(last, 30)
    assert not rung


def test_each_loop_has_its_own() -> None:
    """An alarm of a loop that has ended is nobody's concern."""
    for _ in range(2):

        async def run() -> None:
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            alarm_at(asyncio.get_running_loop().time() + 60, lambda: None)
            alarm_at(asyncio.get_running_loop().time() + 1.05, lambda: done.set_result(None))
            await asyncio.wait_for(done, 30)

        asyncio.run(run())

"""The parent's care for its workers."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from broker.supervisor import Supervisor, _Seat


async def test_a_worker_that_could_not_be_forked_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system refuses a fork once: the seat is not given up."""
    starts: list[int] = []
    third = asyncio.Event()

    async def run_worker(_self: Supervisor, _seat: _Seat) -> int:
        starts.append(1)
        if len(starts) == 2:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        if len(starts) > 2:
            third.set()
            await asyncio.Event().wait()
        return -9

    monkeypatch.setattr(Supervisor, "_run_worker", run_worker)
    supervisor = Supervisor(cast("Any", None), {})
    keeper = asyncio.create_task(supervisor._keep(_Seat("0", None, None)))
    await asyncio.wait_for(third.wait(), 10)
    assert not keeper.done()
    keeper.cancel()

"""A lane by itself: order, width, cancellation, and what happens to those who wait when it closes."""

from __future__ import annotations

import asyncio

import pytest

from broker.store.database import DatabaseAway
from broker.store.limits import Slots
from broker.workers.lane import Ask, Lane, LaneShut
from tests.workers.rig import eventually


class Shared:
    """A limiter that gives what it is told, or fails so."""

    rate = 10.0

    def __init__(self, *granted: Slots | Exception, own: tuple[str, ...] = ()) -> None:
        self.granted = list(granted)
        self.own = own
        self.asked: list[int] = []
        self.parts: list[str] = []
        self.rare: list[bool] = []
        self.returned: list[int] = []

    async def take(self, want: int, interface: str, *, rare: bool) -> Slots:
        """Answer the next slots; when told nothing more, as many as are wanted."""
        self.asked.append(want)
        self.rare.append(rare)
        self.parts.append(interface)
        answer = self.granted.pop(0) if self.granted else Slots(0.0, 0.0, want)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def give_back(self, slots: Slots, unused: int) -> None:
        """Take them back."""
        assert unused <= slots.granted
        self.returned.append(unused)


def proven(lane: Lane) -> Lane:
    """Return a lane whose secret is known to work."""
    lane.digest_passed()
    return lane


async def hold(lane: Lane, urgency: float, into: list[float], until: asyncio.Event) -> None:
    """Take a turn, note it, keep it."""
    async with lane.turn(Ask(urgency)):
        into.append(urgency)
        await until.wait()


async def settle(turns: int = 20) -> None:
    """Let everything that is ready run."""
    for _ in range(turns):
        await asyncio.sleep(0)


@pytest.mark.parametrize("limited", [True, False])
async def test_the_most_urgent_goes_first(*, limited: bool) -> None:
    """Whoever waits with the earliest deadline gets the next turn, not who came first."""
    lane = proven(Lane("test", width=1, limiter=Shared() if limited else None))
    got: list[float] = []
    first, rest = asyncio.Event(), asyncio.Event()
    rest.set()
    tasks = [asyncio.create_task(hold(lane, 0.0, got, first))]
    await settle()
    tasks += [asyncio.create_task(hold(lane, urgency, got, rest)) for urgency in (5.0, 3.0, 4.0, 1.0, 2.0)]
    await settle()
    assert got == [0.0]
    first.set()
    await asyncio.gather(*tasks)
    assert got == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    lane.close()


async def test_width_bounds_those_at_work() -> None:
    """Never more than ``width`` hold a turn at once."""
    lane = proven(Lane("test", width=3, limiter=None))
    got: list[float] = []
    free = asyncio.Event()
    tasks = [asyncio.create_task(hold(lane, float(n), got, free)) for n in range(10)]
    await settle()
    assert len(got) == 3
    free.set()
    await asyncio.gather(*tasks)
    assert len(got) == 10
    assert lane.waiting == 0


async def test_one_at_a_time_until_the_secret_is_proven() -> None:
    """A lane that has not seen its signature accepted risks one call at a time, and opens up after the first."""
    lane = Lane("test", width=8, limiter=None)
    got: list[float] = []
    free = asyncio.Event()
    tasks = [asyncio.create_task(hold(lane, float(n), got, free)) for n in range(10)]
    await settle()
    assert len(got) == 1
    lane.digest_passed()
    await settle()
    assert len(got) == 8
    free.set()
    await asyncio.gather(*tasks)


async def test_cancelled_waiters_leave_nothing() -> None:
    """After a thousand cancellations nobody is waiting, no turn is lost, and the limiter was asked for nobody."""
    shared = Shared(*(Slots(0.3, 0.0, 0),))
    lane = proven(Lane("test", width=4, limiter=shared))
    got: list[float] = []
    free = asyncio.Event()
    free.set()
    tasks = [asyncio.create_task(hold(lane, 0.0, got, free)) for _ in range(1000)]
    await settle()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert lane.waiting == 0
    assert lane.backlog_s() == 0.0
    await asyncio.gather(*(hold(lane, 1.0, got, free) for _ in range(8)))
    assert got == [1.0] * 8
    assert sum(shared.asked[1:]) == 8


async def test_cancelled_in_the_moment_of_the_grant() -> None:
    """A turn granted to somebody who was cancelled in that very moment goes to the next one."""
    lane = proven(Lane("test", width=1, limiter=None))
    got: list[float] = []
    first, free = asyncio.Event(), asyncio.Event()
    free.set()
    holder = asyncio.create_task(hold(lane, 0.0, got, first))
    await settle()
    unlucky = asyncio.create_task(hold(lane, 1.0, got, free))
    lucky = asyncio.create_task(hold(lane, 2.0, got, free))
    await settle()
    lane._grant_one(None, float("inf"))
    unlucky.cancel()
    first.set()
    await asyncio.gather(holder, lucky)
    with pytest.raises(asyncio.CancelledError):
        await unlucky
    assert got == [0.0, 2.0]
    assert lane._busy == 0


async def test_a_slot_whose_caller_gives_up_in_that_moment_goes_to_the_next() -> None:
    """The only slot for long is granted to one that is cancelled before it hears of it: it is not lost."""
    lane = proven(Lane("test", width=4, limiter=Shared(Slots(0.0, 0.1, 1, late_s=300.0), Slots(300.0, 0.1, 0))))
    got: list[float] = []
    free = asyncio.Event()
    tasks = [asyncio.create_task(hold(lane, float(n), got, free)) for n in range(2)]
    for _ in range(100):
        if lane.granted:
            break
        await asyncio.sleep(0)
    assert (lane.granted, got) == (1, [])
    tasks[0].cancel()
    await settle()
    assert got == [1.0]
    free.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    lane.close()


async def test_a_shut_lane_turns_everybody_away() -> None:
    """The second refused signature in a row ends all waiting, and nobody may come in."""
    lane = Lane("test", width=1, limiter=None)
    got: list[float] = []
    first = asyncio.Event()
    holder = asyncio.create_task(hold(lane, 0.0, got, first))
    await settle()
    waiters = [asyncio.create_task(hold(lane, 1.0, got, first)) for _ in range(5)]
    await settle()
    lane.digest_failed()
    assert lane.shut is None
    lane.digest_failed()
    results = await asyncio.gather(*waiters, return_exceptions=True)
    assert {type(result) for result in results} == {LaneShut}
    with pytest.raises(LaneShut):
        await hold(lane, 0.0, got, first)
    assert lane.backlog_s() == float("inf")
    first.set()
    await holder


async def test_the_limiter_is_asked_again_when_the_database_comes_back() -> None:
    """Those who wait while the limiter cannot be asked get their turns afterwards."""
    lane = proven(Lane("test", width=4, limiter=Shared(DatabaseAway(), DatabaseAway())))
    got: list[float] = []
    free = asyncio.Event()
    free.set()
    await asyncio.wait_for(asyncio.gather(*(hold(lane, 0.0, got, free) for _ in range(4))), 5)
    assert len(got) == 4


async def test_a_limiter_that_breaks_does_not_strand_anybody() -> None:
    """An unexpected error of the limiter is survived."""
    lane = proven(Lane("test", width=4, limiter=Shared(ValueError("unexpected"))))
    got: list[float] = []
    free = asyncio.Event()
    free.set()
    await asyncio.wait_for(asyncio.gather(*(hold(lane, 0.0, got, free) for _ in range(4))), 5)
    assert len(got) == 4


async def test_a_late_slot_is_given_up() -> None:
    """A slot whose time passed 50 ms ago is not used."""
    shared = Shared(Slots(-0.2, 0.0, 1))
    lane = proven(Lane("test", width=4, limiter=shared))
    got: list[float] = []
    free = asyncio.Event()
    free.set()
    await hold(lane, 0.0, got, free)
    assert lane.waiting == 0

    async def idle() -> bool:
        return lane._pump is None or lane._pump.done()

    await eventually(idle)


async def test_slots_taken_ahead_serve_who_comes_next() -> None:
    """What the limiter gave beyond those who waited needs no further look, and what nobody wants goes back."""
    shared = Shared(Slots(-1.0, 0.001, 4))
    lane = proven(Lane("test", width=8, limiter=shared))
    got: list[float] = []
    free = asyncio.Event()
    free.set()
    for urgency in (1.0, 2.0, 3.0):
        await hold(lane, urgency, got, free)
    assert shared.asked == [1]

    async def returned() -> bool:
        return shared.returned == [1]

    await eventually(returned)
    await hold(lane, 4.0, got, free)
    assert shared.asked == [1, 1]


async def test_an_interface_with_a_limit_of_its_own_waits_alone() -> None:
    """While such an interface has to wait, calls to all others go on."""
    shared = Shared(Slots(0.0, 0.0, 1), Slots(0.3, 0.0, 0), own=("query",))
    lane = proven(Lane("test", width=8, limiter=shared))
    got: list[str] = []

    async def one(interface: str) -> None:
        async with lane.turn(Ask(0.0, interface=interface)):
            got.append(interface)

    query = asyncio.create_task(one("query"))
    await asyncio.gather(*(one("bind") for _ in range(5)))
    await query
    await asyncio.gather(one("query"), one("bind"))
    assert shared.parts.count("query") >= 2
    assert got.count("bind") == 6


async def test_a_new_limit_is_gone_by_at_once() -> None:
    """Who waits for a slot that is far away under the old limit does not wait for it under the new one."""
    lane = proven(Lane("test", width=8, limiter=Shared(*(Slots(3600.0, 0.0, 0) for _ in range(100)))))
    got: list[float] = []
    free = asyncio.Event()
    free.set()
    waiter = asyncio.create_task(hold(lane, 1.0, got, free))
    await settle()
    lane.relimit(Shared())
    await asyncio.wait_for(waiter, 3)


async def test_without_a_limit_flow_control_halves_the_width() -> None:
    """After the pause half as many are sent at a time, and more again from second to second."""
    lane = proven(Lane("test", width=8, limiter=None))
    lane.slow_down(0.01)
    lane.slow_down(0.01)  # the answer to another call that was under way
    got: list[float] = []
    free = asyncio.Event()
    tasks = [asyncio.create_task(hold(lane, float(n), got, free)) for n in range(10)]

    async def some() -> bool:
        return len(got) >= 4

    await eventually(some)
    assert len(got) == 4
    free.set()
    await asyncio.gather(*tasks)


async def test_callers_take_turns() -> None:
    """A caller with one call does not wait behind another's hundred."""
    lane = proven(Lane("test", width=1, limiter=Shared()))
    got: list[str] = []

    async def one(caller: int, urgency: float) -> None:
        async with lane.turn(Ask(urgency, caller=caller)):
            got.append(f"caller {caller}")

    tasks = [asyncio.create_task(one(1, n)) for n in range(100)]
    await settle()
    tasks.append(asyncio.create_task(one(2, 1e9)))
    await asyncio.gather(*tasks)
    assert got.index("caller 2") < 50

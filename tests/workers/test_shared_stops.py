"""What the platform refuses to one instance, all instances heed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from broker.errors import PlatformRefused
from broker.flows.calls import Active
from tests.emulator.support import Emulated
from tests.workers.rig import Instance, eventually, instance
from tests.workers.test_pauses import answers, pair, spoil_secret


@pytest.fixture
async def two(seeded: str, emu: Emulated) -> AsyncIterator[tuple[Instance, Instance]]:
    """Two instances on one database."""
    async with instance(seeded, emu) as first, instance(seeded, emu) as second:
        await first.bind(*pair(900))
        await second.bind(*pair(901))
        yield first, second


async def holds(one: Instance) -> bool:
    """Whether the app's lane sends nothing now."""
    return one.dispatcher.backlog_s(one.app.id) > 0


async def test_a_wrong_secret_is_tried_twice_by_all_together(two: tuple[Instance, Instance]) -> None:
    """One refused signature each, and no instance sends anything more until the secret changes; then both do."""
    first, second = two
    right = (await first.rows("SELECT secret_sealed FROM app"))[0]["secret_sealed"]
    await spoil_secret(first)
    await second.reload()
    before = (await answers(first.emu)).get("401/1010010", 0)
    made = [await one.bind(*pair(n), wait=False) for n, one in enumerate(two)]

    async def shut() -> bool:
        return all(one.dispatcher.backlog_s(one.app.id) == float("inf") for one in two)

    await eventually(shut)
    assert (await answers(first.emu))["401/1010010"] - before <= 3
    for one in two:
        with pytest.raises(PlatformRefused):
            await one.bind(*pair(50))
    assert (await answers(first.emu))["401/1010010"] - before <= 3
    for one, accepted in zip(two, made, strict=True):
        await one.state(accepted, "failed")
    await first.db.fetch("UPDATE app SET secret_sealed = $1", right)
    for one in two:
        await one.reload()
        assert isinstance((await one.bind(*pair(60 + two.index(one)))).outcome, Active)


async def test_one_refusal_then_an_acceptance_is_forgotten(one: Instance) -> None:
    """A signature that is accepted ends the count of refused ones, for all instances."""
    await one.bind(*pair(0))
    await one.emu.fault(interface="bind", kind="code", http=401, code="1010010", count=1)
    await one.bind(*pair(1))
    assert isinstance((await one.bind(*pair(2))).outcome, Active)

    async def forgotten() -> bool:
        return not await one.rows("SELECT FROM platform_stop")

    await eventually(forgotten)


async def test_flow_control_slows_every_instance_down(two: tuple[Instance, Instance]) -> None:
    """A refusal of one pauses both; under a limit both go on at half the pace."""
    first, second = two
    await first.emu.fault(interface="bind", kind="code", http=403, code="1010010", count=1)
    refused = asyncio.create_task(first.bind(*pair(0)))

    async def other_holds() -> bool:
        return await holds(second)

    await eventually(other_holds, every_s=0.002)
    assert isinstance((await refused).outcome, Active)
    (stop,) = await first.rows("SELECT reason, pace FROM platform_stop")
    assert (stop["reason"], stop["pace"]) == ("flow_control", 0.5)
    assert isinstance((await second.bind(*pair(1))).outcome, Active)


async def test_a_blocked_address_stops_every_instance_behind_it(two: tuple[Instance, Instance]) -> None:
    """1020176 told to one stops the other, but not one that calls from another address; a new one heeds it, too."""
    first, second = two
    await first.emu.fault(interface="bind", kind="code", http=403, code="1020176", count=1)
    refused = asyncio.create_task(first.bind(*pair(0)))

    async def blocked() -> bool:
        return second.sender.blocked_s() > 0 and await holds(second)

    await eventually(blocked, every_s=0.002)
    second.sender._stops._egress = "elsewhere"
    await second.sender.look_at_stops()
    assert {row["egress"] for row in await first.rows("SELECT egress FROM platform_stop")} == {"default"}
    assert isinstance((await refused).outcome, Active)


async def test_a_changed_limit_reaches_those_who_wait(seeded: str, emu: Emulated) -> None:
    """Calls that wait under an old limit go by the new one, though nobody asks for another call."""
    async with instance(seeded, emu) as one:
        await one.db.fetch("UPDATE app SET rate = 0.02, burst = 1")
        await one.reload()
        await one.bind(*pair(0))
        made = [await one.bind(*pair(n), wait=False) for n in range(1, 5)]
        await one.db.fetch("UPDATE app SET rate = 1000, burst = 100")
        await one.reload()
        for accepted in made:
            await one.state(accepted, "active")

"""SIGTERM inside one process: what is under way ends, what waits goes to another process at once."""

from __future__ import annotations

import asyncio

from broker.flows.calls import Active
from tests.emulator.support import Emulated
from tests.workers.rig import Instance, effects, eventually, instance

A, B = "+8613900000001", "+8613900000002"


async def test_what_is_being_sent_is_finished(seeded: str, emu: Emulated) -> None:
    """A bind whose answer is on its way is settled before the process ends."""
    async with instance(seeded, emu) as one:
        await emu.fault(interface="bind", kind="delay", ms=300, count=1)
        bind = asyncio.create_task(one.bind(A, B))

        async def executed() -> bool:
            return bool(await emu.bindings())

        await eventually(executed)
        await one.drain(grace_s=3.0)
        assert isinstance((await bind).outcome, Active)
        assert [(call["state"], call["token"]) for call in await one.calls()] == [("settled", 1)]


async def test_what_waits_is_handed_over(seeded: str, emu: Emulated, one: Instance) -> None:
    """Calls that could not be sent in the grace are claimable at once, and another process carries each out once."""
    async with instance(seeded, emu) as leaving:
        leaving.sender._route(leaving.app.id).lane.hold(60)
        made = [await leaving.bind(f"+86139{n:08d}", f"+86138{n:08d}", wait=False) for n in range(10)]
        await leaving.drain(grace_s=0.1)
        await one.rescue()
        assert one.dispatcher.running == 10
        await one.idle()
        assert {(await one.show(accepted)).state for accepted in made} == {"active"}
        assert len(effects(await emu.ledger(), "bind")) == 10


async def test_handed_over_in_the_middle_of_a_request(seeded: str, emu: Emulated, one: Instance) -> None:
    """A bind cut off while the platform works on it is adopted by the next process, once."""
    async with instance(seeded, emu) as leaving:
        await emu.fault(interface="bind", kind="delay", ms=700, when="before", count=1)
        made = await leaving.bind(A, B, wait=False)

        async def hit() -> bool:
            return bool((await emu.ask("GET", "faults")).body["items"][0]["hits"])

        await eventually(hit)
        await leaving.drain(grace_s=0.05)
        await one.rescue()
        assert (await one.state(made, "active")).state == "active"

        async def late() -> bool:
            return len([row for row in await emu.ledger() if row["op"] == "bind"]) == 2

        await eventually(late)
        assert len(effects(await emu.ledger(), "bind")) == len(await emu.bindings()) == 1

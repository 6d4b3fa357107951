"""Two fences: the token guards our tables, the lease guards the platform. Who lost a call has no effect."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from broker.flows.calls import PlatformCall
from broker.store import calls
from tests.emulator.support import Emulated
from tests.workers.fake import FakeAxb
from tests.workers.rig import Instance, effects, eventually, forget_lease, instance, requests

A, B = "+8613900000001", "+8613900000002"


@pytest.fixture
async def other(seeded: str, emu: Emulated) -> AsyncIterator[Instance]:
    """A second process on the same database."""
    async with instance(seeded, emu) as running:
        yield running


async def in_hand(one: Instance) -> PlatformCall:
    """Wait until the instance has its only call in hand."""

    async def look() -> bool:
        return one.dispatcher.running == 1

    await eventually(look)
    return one.only_call()


@asynccontextmanager
async def lane_paused(one: Instance, seconds: float) -> AsyncIterator[None]:
    """Let the instance's calls wait for their turn that long."""
    one.sender._route(one.app.id).lane.hold(seconds)
    yield


async def test_a_settle_of_a_lost_call_changes_nothing(one: Instance, other: Instance) -> None:
    """Another process takes over while the first owner waits for a slow answer; that answer then changes nothing."""
    await one.emu.fault(interface="bind", kind="delay", ms=600, count=1)
    made = await one.bind(A, B, wait=False)
    await in_hand(one)

    async def executed() -> bool:
        return bool(effects(await one.emu.ledger(), "bind"))

    await eventually(executed)
    await one.end_leases()
    await other.rescue()
    await other.idle()
    (settled,) = await one.calls()
    assert (settled["state"], settled["token"]) == ("settled", 2)
    before = (await one.lines(), await one.calls())
    await one.idle()
    assert (await one.lines(), await one.calls()) == before
    assert (await one.show(made)).state == "active"
    assert len(effects(await one.emu.ledger(), "bind")) == 1


async def test_a_lost_call_is_not_sent(one: Instance, other: Instance) -> None:
    """A call that was taken over while its first owner was frozen in the queue is not sent by that owner any more."""
    async with lane_paused(one, 0.5):
        made = await one.bind(A, B, wait=False)
        call = await in_hand(one)
        await one.end_leases()
        await other.rescue()
        await other.idle()
        sent = len(await one.emu.ledger())
        forget_lease(call)
        await one.idle()
    assert call.lost
    assert len(await one.emu.ledger()) == sent
    assert len(requests(await one.emu.ledger(), "bind")) == 1
    assert (await one.show(made)).state == "active"


async def test_a_lost_unbind_is_not_sent(one: Instance, other: Instance) -> None:
    """The same for a release."""
    made = await one.bind(A, B)
    async with lane_paused(one, 0.5):
        await one.release(made, wait=False)
        call = await in_hand(one)
        await one.end_leases()
        await other.rescue()
        await other.idle()
        forget_lease(call)
        await one.idle()
    assert len(requests(await one.emu.ledger(), "unbind")) == 1
    assert (await one.show(made)).state == "released"


async def test_a_lease_that_ends_before_the_first_byte_withholds_the_request(seeded: str, emu: Emulated) -> None:
    """Frozen between signing and sending: nothing leaves; the call is kept if nobody took it, and dropped if so."""
    fake = FakeAxb()
    async with instance(seeded, emu, platform=lambda _: fake) as one:

        def freeze() -> None:
            fake.before_permit = lambda: None
            forget_lease(one.only_call())

        fake.before_permit = freeze
        await one.bind(A, B)
        assert (fake.withheld, [op for op, _ in fake.sent]) == (1, ["bind"])


async def test_withheld_and_taken_meanwhile(seeded: str, emu: Emulated) -> None:
    """What was withheld and now belongs to another process is dropped."""
    fake = FakeAxb()
    async with instance(seeded, emu, platform=lambda _: fake) as one:
        fake.before_permit = lambda: forget_lease(one.only_call())
        await one.db.fetch(
            "CREATE FUNCTION steal() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.token := 7; RETURN NEW; END $$"
        )
        await one.db.fetch("CREATE TRIGGER steal BEFORE INSERT ON platform_call FOR EACH ROW EXECUTE FUNCTION steal()")
        await one.bind(A, B, wait=False)
        await one.idle()
        assert (fake.withheld, fake.sent) == (1, [])
        assert [call["state"] for call in await one.calls()] == ["open"]


async def test_queued_calls_keep_their_leases(seeded: str, emu: Emulated, other: Instance) -> None:
    """Calls that wait longer than a lease for their turn are renewed: nobody can take them over."""
    async with instance(seeded, emu, lease_s=4.2) as one, lane_paused(one, 4.5):
        binds = [asyncio.create_task(one.bind(f"+86139{n:08d}", f"+86138{n:08d}")) for n in range(20)]

        async def claimed() -> bool:
            await other.rescue()
            return other.dispatcher.running > 0 or all(bind.done() for bind in binds)

        await eventually(claimed)
        assert all(bind.done() for bind in binds)
        assert {call["token"] for call in await one.calls()} == {1}


async def test_attempts_of_a_long_outage_do_not_overflow(one: Instance) -> None:
    """A call tried more often than its counter can count is still taken over and carried out."""
    await one.allocator.allocate(one.order(A, B), within_s=5)
    await one.db.fetch("UPDATE platform_call SET attempt = 32767")
    await one.end_leases()
    await one.rescue()
    await one.idle()
    assert [line["state"] for line in await one.lines()] == ["active"]


async def test_two_processes_share_what_is_ownerless(one: Instance, other: Instance) -> None:
    """Each ownerless call is claimed by exactly one of two."""
    await asyncio.gather(
        *(one.allocator.allocate(one.order(f"+86139{n:08d}", f"+86138{n:08d}"), within_s=5) for n in range(50))
    )
    await one.end_leases()
    taken = await asyncio.gather(calls.claim(one.db, limit=30, lease_s=8), calls.claim(other.db, limit=30, lease_s=8))
    lines = [call.key.line_id for claimed in taken for call in claimed]
    assert len(lines) == len(set(lines)) == 50

"""Binds whose clients have gone: withdrawn by policy, whether they were sent or not."""

from __future__ import annotations

import asyncio

import pytest

from broker.flows.calls import Active
from broker.store import bindings, failing
from tests.workers.rig import Instance, effects, eventually, requests
from tests.workers.test_fence import in_hand, lane_paused

A, B, C, D = "+8613900000001", "+8613900000002", "+8613900000003", "+8613900000004"

pytestmark = pytest.mark.timeout(60)


async def withdraw(one: Instance) -> int:
    """Do as the periodic service does."""
    overdue = await failing.overdue(one.db, limit=10)
    await bindings.release(one.db, overdue, reason="withdrawn", lease_s=0.0)
    return len(overdue)


async def policy(one: Instance, after_s: int | None) -> None:
    """Set the app's policy, and let an hour have passed for all bindings."""
    await one.db.fetch("UPDATE app SET withdraw_after_s = $1", after_s)
    await one.db.fetch("UPDATE binding SET created_at = created_at - interval '1 hour'")
    await one.reload()
    for call in one.dispatcher._running:
        call.urgency -= 3600


async def test_one_that_was_never_sent_is_not_sent(one: Instance) -> None:
    """It waits for its turn: nothing leaves for it any more, and its X is free for others at once."""
    async with lane_paused(one, 1.5):
        made = await one.bind(A, B, wait=False)
        await in_hand(one)
        await policy(one, 600)
        assert await withdraw(one) == 1
        shown = await one.state(made, "released")
    assert shown.reason == "withdrawn"
    await one.idle()
    assert await one.emu.ledger() == []
    assert await one.held() == []


async def test_one_that_came_through_is_unbound(one: Instance) -> None:
    """The platform did it, nobody was told: it is found by our mark and ended."""
    await one.emu.fault(interface="bind", kind="drop_answer", count=1)
    await one.emu.fault(interface="query", kind="reset", count=20)
    made = await one.bind(A, B, wait=False)

    async def sent() -> bool:
        return bool(effects(await one.emu.ledger(), "bind"))

    await eventually(sent)
    await policy(one, 600)
    assert await withdraw(one) == 1
    await one.emu.ask("DELETE", "faults")
    assert (await one.state(made, "released", within_s=20.0)).reason == "withdrawn"
    assert await one.emu.bindings() == []
    assert len(effects(await one.emu.ledger(), "bind")) == len(effects(await one.emu.ledger(), "unbind")) == 1


async def test_one_that_is_being_answered_is_unbound(one: Instance) -> None:
    """Withdrawn while the platform works on it: never active, and its unbind follows the answer."""
    await one.emu.fault(interface="bind", kind="delay", ms=800, count=1)
    made = await one.bind(A, B, wait=False)

    async def sent() -> bool:
        return bool(requests(await one.emu.ledger(), "bind"))

    await eventually(sent)
    await policy(one, 600)
    assert await withdraw(one) == 1
    assert (await one.state(made, "released", within_s=20.0)).reason == "withdrawn"
    assert await one.emu.bindings() == []


async def test_off_by_default_and_only_what_is_pending_and_old(one: Instance) -> None:
    """Without a policy nothing is withdrawn; with one neither what is active nor what is young."""
    done = await one.bind(C, D)
    async with lane_paused(one, 1.0):
        await one.bind(A, B, wait=False)
        await in_hand(one)
        await policy(one, None)
        assert await withdraw(one) == 0
        await policy(one, 86_400)
        assert await withdraw(one) == 0
    await one.idle()
    assert isinstance(done.outcome, Active)
    await policy(one, 600)
    assert await withdraw(one) == 0
    assert len(await one.emu.bindings()) == 2


async def test_twice_at_once(one: Instance) -> None:
    """Two instances that see the same overdue bind withdraw it once."""
    async with lane_paused(one, 1.0):
        made = await one.bind(A, B, wait=False)
        await in_hand(one)
        await policy(one, 600)
        await asyncio.gather(withdraw(one), withdraw(one))
        assert (await one.state(made, "released")).reason == "withdrawn"
    await one.idle()
    assert await one.emu.ledger() == []

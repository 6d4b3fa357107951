"""A process that believes the old: nothing of it reaches the platform once an app is, or may be, in shadow."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from broker.domain.shadow import FRESH_S, SETTLE_S, SWITCHING
from broker.flows.bind import Accepted
from broker.platform.protocol import Answer, Permit, Platform, Verdict
from broker.platform.shadow import ShadowPlatform
from broker.store import shadow
from broker.store.drift import Tally
from broker.store.registry import App
from broker.workers.looking import Looker, Pace, Stopped
from tests.emulator.support import X2, Emulated
from tests.workers.rig import Instance, eventually

A, B, C, D, E, F = (f"+861390000000{n}" for n in range(1, 7))

pytestmark = pytest.mark.timeout(60)


def make_shadowy(one: Instance) -> list[str]:
    """Have an instance make drivers as a worker does; return what was predicted."""
    noted: list[str] = []

    def driver(app: App) -> Platform:
        return ShadowPlatform(one._driver(app), noted.append) if app.shadow else one._driver(app)

    one.sender._make_platform = driver
    return noted


async def into_shadow(one: Instance) -> None:
    """Take the app into shadow, as if it had been suspended for long enough."""
    assert (await shadow.switch(one.db, "test", shadow=True, settle_s=0.0)).outcome == "waiting"
    assert (await shadow.switch(one.db, "test", shadow=True, settle_s=0.0)).outcome == "done"


async def effects(emu: Emulated) -> list[dict[str, Any]]:
    """What changed at the platform."""
    return [row for row in await emu.ledger() if row["op"] != "query"]


async def test_an_old_belief_sends_nothing_until_it_is_confirmed(one: Instance, emu: Emulated) -> None:
    """A bind accepted in the belief that the app is live waits, and becomes a prediction."""
    noted = make_shadowy(one)
    await into_shadow(one)
    one.sender._fresh = lambda: False
    made: Accepted = await one.bind(A, B, wait=False)
    call = one.only_call()
    leased = call.lease_until

    async def tried() -> bool:
        return call.lease_until > leased

    await eventually(tried)
    assert (await one.show(made)).state == "pending"
    await one.reload()
    one.sender._fresh = lambda: True
    shown = await one.state(made, "active")
    assert (shown.subscription_id or "").startswith("shadow-")
    assert noted == ["call.bind"]
    assert await effects(emu) == []


async def test_a_driver_of_the_other_kind_is_not_used(one: Instance, emu: Emulated) -> None:
    """A call that has waited in the lane since before the switch does not go by the driver of then."""
    make_shadowy(one)
    await one.db.fetch("UPDATE app SET event_days = 1")
    await one.bind(A, B)
    route = one.sender._route(one.app.id)
    assert one.sender._count(route, float("inf"), effect=False)() is True
    one.known = replace(one.known, apps={one.app.id: replace(one.app, shadow=True)})
    assert one.sender._count(route, float("inf"), effect=False)() is False
    await one.db.fetch("UPDATE app SET shadow = true")
    await one.bind(C, D)
    assert [row["op"] for row in await effects(emu)] == ["bind"]
    told = await one.rows("SELECT data FROM event WHERE type = 'binding.active' ORDER BY id")
    assert ["shadow" in (row["data"] or "") for row in told] == [False, True]


async def test_an_app_about_to_go_into_shadow_has_no_effects_without_a_call(one: Instance, emu: Emulated) -> None:
    """An audit ends no stranger any more once its app is suspended for the switch; questions are still asked."""
    sid = await emu.bound(X2, E, F)
    one.known = replace(one.known, apps={one.app.id: replace(one.app, suspended=SWITCHING)})
    looker = Looker(one.sender, one.vault, one.app, Pace(500.0), Tally())
    assert [line.subscription_id for line in await looker.lookup(sid)] == [sid]
    with pytest.raises(Stopped):
        await looker.unbind(sid)
    assert [row["subscription_id"] for row in await emu.bindings()] == [sid]


async def test_a_switch_waits_for_what_is_open(one: Instance, emu: Emulated) -> None:
    """Into shadow: not while a call is open, and not before the suspension is known to whoever may send."""
    await emu.fault(interface="unbind", kind="code", code="1010001", http=500)
    made = await one.bind(A, B)
    await one.release(made, wait=False)
    first = await shadow.switch(one.db, "test", shadow=True, settle_s=SETTLE_S)
    assert first.outcome == "waiting"
    assert first.wait_s == pytest.approx(SETTLE_S)
    assert SETTLE_S > FRESH_S
    assert (await shadow.switch(one.db, "test", shadow=True, settle_s=SETTLE_S)).outcome == "waiting"
    still = await shadow.switch(one.db, "test", shadow=True, settle_s=0.0)
    assert (still.outcome, still.lines) == ("calls", 1)
    await emu.ask("DELETE", "faults")
    await one.state(made, "released")
    assert (await shadow.switch(one.db, "test", shadow=True, settle_s=0.0)).outcome == "done"


async def test_what_there_is_to_ask_of_a_platform_in_shadow(one: Instance, emu: Emulated) -> None:
    """Only an X as a whole and somebody else's binding are asked about."""
    sid = await emu.bound(X2, E, F)
    platform = ShadowPlatform(one._driver(one.app), lambda _what: None)
    permit: Permit = lambda: True  # noqa: E731 - the shape of a permit
    whole: Answer = await platform.query(x=X2, permit=permit, timeout_s=5)
    assert [line.subscription_id for line in whole.bindings] == [sid]
    assert (await platform.query(x=X2, a=E, permit=permit, timeout_s=5)).verdict is Verdict.NOT_FOUND
    assert (await platform.lookup("shadow-1", permit=permit, timeout_s=5)).verdict is Verdict.DONE
    assert (await platform.unbind(sid, permit=permit, timeout_s=5)).verdict is Verdict.DONE
    assert (await platform.unbind(sid, permit=lambda: False, timeout_s=5)).verdict is Verdict.WITHHELD
    await platform.close()
    assert len(await emu.bindings()) == 1

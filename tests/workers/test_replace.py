"""What AXE cannot modify is bound anew on the same X and extension: by whom, with what gap, what if it goes wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from bench.check import WRONG_BOOKS
from broker.domain.change import LineChange
from broker.domain.options import CallOptions
from broker.domain.phone import PhoneNumber
from broker.errors import PlatformRejected
from broker.flows.bind import Accepted
from broker.store import calls
from broker.store.bindings import Binding
from tests.emulator.support import Emulated
from tests.workers.rig import eventually
from tests.workers.sole import Sole, sole, world

A, A2, STRANGER = "+8613900000001", "+8613900000002", "+8613900000009"
TO_A2 = LineChange(a=PhoneNumber(A2))

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
async def emu(database_url: str, tmp_path: Path) -> AsyncIterator[Emulated]:
    """An emulator with an AXE app, and a database that knows it."""
    async with world(database_url, tmp_path, "axe") as running:
        yield running


@pytest.fixture
async def one(database_url: str, emu: Emulated) -> AsyncIterator[Sole]:
    """One instance with short times."""
    async with sole(database_url, emu) as running:
        yield running


async def _reached(emu: Emulated, binding: Binding) -> str | None:
    return (await emu.call(STRANGER, binding.x or "", f"{binding.extension:04d}"))[0]


async def _effects(emu: Emulated) -> list[str]:
    return [
        row["op"]
        for row in await emu.ledger()
        if row["result_code"] == "0" and row["op"] in {"bind", "unbind", "modify"}
    ]


async def _only_a2(one: Sole, made: Accepted, first: Binding) -> None:
    """A2, and nobody else, is behind the same place, under the subscription that the platform has."""
    now = await one.show(made)
    assert (now.a, now.x, now.extension, now.state) == (PhoneNumber(A2), first.x, first.extension, "active")
    (held,) = await one.emu.bindings()
    assert (held["a"], held["subscription_id"]) == (A2, now.subscription_id)
    assert await _reached(one.emu, now) == A2
    assert await one.rows(WRONG_BOOKS) == []


async def test_another_a(one: Sole) -> None:
    """The new A gets the old one's X and extension, for what is left of the lifetime; the gap is told."""
    made = await one.take(A, ttl_s=7200)
    first = await one.show(made)
    await one.db.fetch("UPDATE binding SET expires_at = expires_at - interval '1 hour'")
    before = await one.show(made)
    changed = await one.change(made, TO_A2)
    assert await _effects(one.emu) == ["bind", "unbind", "bind"]
    await _only_a2(one, made, first)
    assert changed.gap_ms is not None
    assert 0 < changed.gap_ms < 60_000
    assert changed.expires_at == before.expires_at
    (line,) = await one.rows("SELECT expires_at, ttl_s FROM line WHERE state = 'active'")
    assert timedelta(0) <= line["expires_at"] - changed.expires_at < timedelta(seconds=61)
    (place,) = await one.rows("SELECT party_key FROM place WHERE until = 'infinity'")
    assert place["party_key"] == one.vault.party_key(A2)


@pytest.mark.parametrize("kind", ["drop_answer", "late_commit"])
@pytest.mark.parametrize("interface", ["bind", "unbind"])
async def test_lost_answers(one: Sole, kind: str, interface: str) -> None:
    """Whatever answer of the two is lost, one binding of the new A is there in the end."""
    made = await one.take(A)
    first = await one.show(made)
    await one.emu.fault(interface=interface, kind=kind, count=1, ms=100)
    await one.change(made, TO_A2)
    await _only_a2(one, made, first)


@pytest.mark.parametrize("interface", ["bind", "unbind"])
async def test_taken_over(database_url: str, emu: Emulated, one: Sole, interface: str) -> None:
    """Another instance goes on where one has died, before or after the unbind."""
    made = await one.take(A)
    first = await one.show(made)
    await emu.fault(interface=interface, kind="delay", ms=1500, when="after", count=1)
    await one.change(made, TO_A2, wait=False)

    async def begun() -> bool:
        return any(fault["hits"] for fault in (await emu.ask("GET", "faults")).body["items"])

    await eventually(begun)
    await one.drain(0.0)
    async with sole(database_url, emu) as two:
        await two.end_leases()
        await two.rescue()

        async def settled() -> bool:
            return (await two.show(made)).pending is None

        await eventually(settled, within_s=20)
        await _only_a2(two, made, first)


async def test_a_refused_a_changes_nothing(one: Sole) -> None:
    """An A that the platform refuses leaves the old one where it was, under a new subscription."""
    made = await one.take(A)
    first = await one.show(made)
    await one.emu.fault(interface="bind", kind="code", http=403, code="1010002", count=1)
    with pytest.raises(PlatformRejected):
        await one.change(made, TO_A2)
    now = await one.show(made)
    assert (now.a, now.x, now.extension, now.state) == (PhoneNumber(A), first.x, first.extension, "active")
    assert now.change_failed == "platform_rejected_request"
    assert now.subscription_id != first.subscription_id
    (held,) = await one.emu.bindings()
    assert (held["a"], held["subscription_id"]) == (A, now.subscription_id)
    assert await _reached(one.emu, now) == A
    assert (await one.release(made)).state == "released"
    assert await one.emu.bindings() == []


async def test_taken_over_on_the_way_back(database_url: str, emu: Emulated, one: Sole) -> None:
    """Who takes over after the old A was bound again does not take that for the new one."""
    made = await one.take(A)
    await emu.fault(interface="bind", kind="code", http=403, code="1010002", count=1)
    await emu.fault(interface="bind", kind="delay", ms=1500, when="after", count=1)
    await one.change(made, TO_A2, wait=False)

    async def both_binds_have_arrived() -> bool:
        return all(fault["hits"] for fault in (await emu.ask("GET", "faults")).body["items"])

    await eventually(both_binds_have_arrived)
    await one.drain(0.0)
    async with sole(database_url, emu) as two:
        await two.end_leases()
        await two.rescue()

        async def settled() -> bool:
            return (await two.show(made)).pending is None

        await eventually(settled, within_s=20)
        now = await two.show(made)
        (held,) = await emu.bindings()
        assert (held["a"], held["subscription_id"]) == (now.a.reveal(), now.subscription_id)
        assert await _reached(emu, now) == now.a.reveal()


async def test_a_late_bind_after_refusals(database_url: str, emu: Emulated) -> None:
    """A bind that comes late, when everything after it was refused, is what the books have in the end."""
    async with sole(database_url, emu, absence_s=3.0) as one:
        made = await one.take(A)
        first = await one.show(made)
        await emu.fault(interface="bind", kind="late_commit", count=1, ms=1000)
        await emu.fault(interface="bind", kind="code", http=403, code="1010002", count=2)
        await one.change(made, TO_A2)
        await _only_a2(one, made, first)


async def test_released_meanwhile(one: Sole) -> None:
    """A release that comes while the line is bound anew ends what has become of it."""
    made = await one.take(A)
    await one.emu.fault(interface="unbind", kind="delay", ms=500, when="before", count=1)
    await one.change(made, TO_A2, wait=False)
    assert (await one.release(made)).state == "released"
    assert await one.emu.bindings() == []
    assert await one.rows(WRONG_BOOKS) == []


@pytest.mark.parametrize("recreate", [False, True])
async def test_renewal(one: Sole, *, recreate: bool) -> None:
    """A binding that outlasts the platform's 720 hours is renewed by a modify, or bound anew where that is no help."""
    await one.db.fetch("UPDATE app SET recreate = $1", recreate)
    await one.reload()
    options = CallOptions(callback_ttl_s=3600)
    made = await one.take(A, ttl_s=5_184_000, options=options)
    first = await one.show(made)
    (line,) = await one.rows("SELECT ttl_s FROM line")
    assert line["ttl_s"] == 2_592_000
    await one.db.fetch("UPDATE line SET expires_at = broker_now() + interval '5 minutes', sweep_at = broker_now()")
    assert (await calls.sweep(one.db, limit=10, grace_s=1.0)).renewed == 1
    await one.rescue()
    await one.idle()
    assert await _effects(one.emu) == ["bind", *(["unbind", "bind"] if recreate else ["modify"])]
    now = await one.show(made)
    assert (now.subscription_id != first.subscription_id) is recreate
    (line,) = await one.rows("SELECT extract(epoch FROM expires_at - broker_now())::float AS left_s FROM line")
    assert 2_591_000 < line["left_s"] <= 2_592_000
    assert await _reached(one.emu, now) == A


async def test_ended_by_us_between_minutes(one: Sole) -> None:
    """The platform counts whole minutes: what is left over after the binding's end is cut off by an unbind, once."""
    made = await one.take(A, ttl_s=90)
    (line,) = await one.rows("SELECT ttl_s FROM line")
    assert line["ttl_s"] == 120
    await one.db.fetch("UPDATE binding SET expires_at = broker_now()")
    await one.db.fetch("UPDATE line SET sweep_at = broker_now()")
    assert (await calls.sweep(one.db, limit=10, grace_s=1.0)).expired == 1
    assert (await calls.sweep(one.db, limit=10, grace_s=1.0)).expired == 0
    await one.rescue()
    await one.idle()
    assert await _effects(one.emu) == ["bind", "unbind"]
    now = await one.show(made)
    assert (now.state, now.reason) == ("released", "expired")

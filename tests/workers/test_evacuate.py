"""Bindings of an X move to others: new before old, the shared ones once, whoever dies or changes its mind meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bench.check import WRONG_BOOKS
from broker.clock import boottime
from broker.domain.change import Callee, LineChange
from broker.domain.ids import new_id
from broker.domain.phone import PhoneNumber
from broker.errors import Conflict
from broker.flows.allocators import Allocators
from broker.flows.bind import Accepted
from broker.flows.change import Changer, Plan, Stale, Wait
from broker.flows.operate import evacuation, numbers
from broker.flows.operate.desk import Desk
from broker.flows.operate.fields import Closing, Numbers
from broker.flows.picked import Unpicked
from broker.flows.place import Placer
from broker.platform.local import LocalPlatform
from broker.store import calls
from broker.store import evacuation as store
from broker.store.bindings import Binding, show
from broker.workers.evacuate import Evacuator, Times
from tests.emulator.support import X1, X2, X3, Emulated
from tests.workers.rig import Instance, effects, eventually, instance
from tests.workers.sole import Sole, sole, world

A, B, C, D = (f"+861390000000{n}" for n in range(1, 5))

pytestmark = pytest.mark.timeout(120)


def done(ledger: list[Any]) -> list[Any]:
    """What binds and unbinds really did, in their order."""
    return [row for row in ledger if row["op"] in {"bind", "unbind"} and row["result_code"] == "0"]


def mover(one: Instance, *, overlap_s: float = 0.0, retry_s: float = 0.2) -> Evacuator:
    """The evacuator of a process."""
    placer = one.placer if isinstance(one, Sole) else Placer(
        one.db, one.vault, lambda: one.known, lease_s=one.timing.lease_s, boottime=boottime
    )  # fmt: skip
    unpicked = Unpicked(one.db, one.vault, lease_s=one.timing.lease_s, boottime=boottime)
    allocators = Allocators(one.allocator, placer, unpicked, lambda: one.known)
    times = Times(lease_s=one.timing.lease_s, overlap_s=overlap_s, retry_s=retry_s)
    return Evacuator(one.db, one.vault, lambda: one.known, allocators, one.dispatcher, times=times)


async def leave(one: Instance, x: str = X1) -> None:
    """Freeze the number and have its bindings move."""
    await numbers.freeze(Desk(one.db, one.vault), "test", Closing(numbers=[x], evacuate=True))
    await one.reload()


async def progress(one: Instance, x: str = X1) -> dict[str, Any]:
    """How far it has come."""
    (shown,) = await evacuation.progress(Desk(one.db, one.vault), "test", x)
    return shown


async def follow(one: Instance, evacuator: Evacuator, x: str = X1, *, state: str = "done") -> dict[str, Any]:
    """Work on until the evacuation is in this state, taking over what nobody has in hand."""

    async def look() -> dict[str, Any] | None:
        await evacuator.look()
        await one.rescue()
        shown = await progress(one, x)
        return shown if shown["state"] == state and not shown["unbinding"] else None

    found = await eventually(look, within_s=60.0, every_s=0.05)
    assert found is not None
    return found


async def right(one: Instance) -> None:
    """Nothing in the books may be wrong."""
    assert [tuple(row) for row in await one.db.fetch(WRONG_BOOKS)] == []


async def pairs_at(emu: Emulated) -> dict[str, set[frozenset[str]]]:
    """Who is behind which X at the platform."""
    found: dict[str, set[frozenset[str]]] = {}
    for item in await emu.bindings():
        found.setdefault(item["x"], set()).add(frozenset(filter(None, (item["a"], item.get("b")))))
    return found


async def bound(one: Instance, many: int) -> list[Accepted]:
    """So many pairs, one after the other, all on the first X."""
    return [await one.bind(f"+86139{n:08d}", f"+86138{n:08d}") for n in range(100, 100 + many)]


async def test_all_move_the_new_line_before_the_end_of_the_old_one(one: Instance, emu: Emulated) -> None:
    """Each pair is bound on another X before it is unbound on the old one; bindings, versions and events say so."""
    await one.db.fetch("UPDATE app SET event_days = 1")
    made = await bound(one, 20)
    before = [await one.show(each) for each in made]
    assert {binding.x for binding in before} == {X1}
    await leave(one)
    shown = await follow(one, mover(one))
    assert (shown["moved"], shown["bindings"], shown["waiting"], shown["to_do"]) == (20, 20, 0, 0)
    after = [await one.show(each) for each in made]
    assert all(binding.state == "active" and binding.x != X1 for binding in after)
    assert all(new.version > old.version for old, new in zip(before, after, strict=True))
    assert all(new.expires_at == old.expires_at for old, new in zip(before, after, strict=True))
    there = await pairs_at(emu)
    assert X1 not in there
    assert sum(map(len, there.values())) == 20
    rows = done(await emu.ledger())
    for binding in after:
        steps = [(row["op"], row["x"]) for row in rows if row.get("a") == binding.a.reveal()]
        assert steps == [("bind", X1), ("bind", binding.x), ("unbind", X1)]
    told = await one.db.fetch(
        "SELECT binding_id, type, data -> 'from' ->> 'x', x FROM event WHERE type = 'binding.moved' ORDER BY id"
    )
    assert {tuple(row) for row in told} == {(binding.id, "binding.moved", X1, binding.x) for binding in after}
    held = await one.db.fetch("SELECT bindings FROM held WHERE why = 'moved' AND x = $1", X1)
    assert {row["bindings"][0] for row in held} == {binding.id for binding in before}
    await right(one)


async def test_the_youngest_go_first(seeded: str, emu: Emulated) -> None:
    """With one request at a time the binds leave in the order of the bindings' age, the newest first."""
    async with instance(seeded, emu, width=1) as one:
        made = await bound(one, 8)
        await leave(one)
        await follow(one, mover(one))
        order = [row["a"] for row in effects(await emu.ledger(), "bind")[8:]]
        assert order == [(await one.show(each)).a.reveal() for each in reversed(made)]


async def test_a_shared_line_moves_once(one: Instance, emu: Emulated) -> None:
    """Two orders of a pair, one the other way round: one bind, one unbind, and both go with their roles."""
    first, second = await one.bind(A, B), await one.bind(B, A)
    assert (await one.show(first)).line_id == (await one.show(second)).line_id
    await leave(one)
    shown = await follow(one, mover(one))
    assert (shown["moved"], shown["bindings"]) == (1, 2)
    assert [row["op"] for row in done(await emu.ledger())] == ["bind", "bind", "unbind"]
    one_, other = await one.show(first), await one.show(second)
    assert one_.x == other.x != X1
    assert (one_.a.reveal(), other.a.reveal()) == (A, B)
    assert (one_.joinable, one_.moving, other.moving) == (True, False, False)
    (held,) = await one.db.fetch("SELECT bindings FROM held WHERE why = 'moved'")
    assert set(held["bindings"]) == {one_.id, other.id}
    await right(one)


async def test_while_no_x_is_free_it_stays_and_is_tried_again(one: Instance, emu: Emulated) -> None:
    """The pair keeps its X, the reason is shown; once a number is free it moves."""
    made = await one.bind(A, B)
    await numbers.freeze(Desk(one.db, one.vault), "test", Closing(numbers=[X2, X3]))
    await leave(one)
    evacuator = mover(one)

    async def waits() -> bool:
        await evacuator.look()
        return bool((await progress(one))["waiting_for"] == {"pool_exhausted": 1})

    await eventually(waits)
    assert (await one.show(made)).x == X1
    assert (await pairs_at(emu)) == {X1: {frozenset((A, B))}}
    await numbers.reopen(Desk(one.db, one.vault), "test", Numbers(numbers=[X2]))
    await one.reload()
    await follow(one, evacuator)
    assert (await one.show(made)).x == X2
    await right(one)


async def test_refused_by_the_platform_it_stays_and_is_tried_again(one: Instance, emu: Emulated) -> None:
    """A bind that is refused leaves the pair where it is; the reason is shown, and the next try moves it."""
    made = await one.bind(A, B)
    await emu.fault(interface="bind", kind="code", http=403, code="1010002", count=1)
    await leave(one)
    evacuator = mover(one, retry_s=0.5)

    async def waits() -> bool:
        await evacuator.look()
        return bool((await progress(one))["waiting_for"] == {"platform_rejected_request": 1})

    await eventually(waits)
    assert (await one.show(made)).x == X1
    await follow(one, evacuator)
    assert (await one.show(made)).x != X1
    await right(one)


async def test_an_x_that_is_refused_is_replaced_by_another(one: Instance) -> None:
    """The platform refuses the new X: the move goes on to the third one."""
    made = await one.bind(A, B)
    await one.emu.fault(interface="bind", kind="code", http=403, code="1012008", count=1)
    await leave(one)
    shown = await follow(one, mover(one))
    assert shown["moved"] == 1
    assert (await one.show(made)).x == X3
    await right(one)


async def test_released_while_it_moves_both_lines_end(one: Instance, emu: Emulated) -> None:
    """The release ends the old line at once; the new one, confirmed later, is unbound; nobody is left behind."""
    made = await one.bind(A, B)
    await emu.fault(interface="bind", kind="delay", ms=600, when="before", count=1)
    await leave(one)
    evacuator = mover(one)
    await evacuator.look()
    assert (await progress(one))["moving"] == 1
    assert (await one.release(made)).state == "released"
    shown = await follow(one, evacuator)
    assert (shown["moved"], shown["over"]) == (0, 1)

    async def nobody() -> bool:
        await one.rescue()
        return not await emu.bindings()

    await eventually(nobody)
    await right(one)


async def test_a_change_meanwhile_is_told_to_come_again(one: Instance, emu: Emulated) -> None:
    """While its line moves a binding cannot be changed; after that it can."""
    made = await one.bind(A, B)
    await emu.fault(interface="bind", kind="delay", ms=1500, when="before", count=1)
    await leave(one)
    evacuator = mover(one)
    await evacuator.look()
    assert (await one.show(made)).moving
    with pytest.raises(Conflict) as told:
        await hand_over(one, made)
    assert told.value.code == "change_in_progress"
    await follow(one, evacuator)
    assert (await hand_over(one, made)).b == PhoneNumber(C)
    assert not (await one.show(made)).moving
    await right(one)


async def hand_over(one: Instance, made: Accepted) -> Binding:
    """Have C take the place of B, as the API does."""
    plan = Plan(line=LineChange(b=PhoneNumber(C)))
    return await changer_of(one).change(await one.show(made), plan, Wait(boottime() + 10))


def changer_of(one: Instance) -> Changer:
    """What carries changes out."""

    async def read(row: tuple[int, Any]) -> Binding | None:
        return (await show(one.db, one.vault, [row])).get(row)

    return Changer(
        one.db, one.vault, lambda: one.known, one.allocator, one.dispatcher, read, lease_s=one.timing.lease_s
    )


async def test_amid_releases_changes_and_new_orders_the_books_stay_right(one: Instance, emu: Emulated) -> None:
    """Some of the pairs are released, changed, or get a second order while they move: all end as they were asked to."""
    made = await bound(one, 24)
    await emu.fault(interface="bind", kind="delay", ms=150, when="before", count=60)
    await leave(one)
    evacuator = mover(one)

    async def change(each: Accepted, nth: int) -> None:
        before = await one.show(each)
        plan = Plan(line=LineChange(b=PhoneNumber(f"+86137{nth:08d}")))
        with contextlib.suppress(Conflict, Stale):
            await changer_of(one).change(before, plan, Wait(boottime() + 10))

    async def order_again(each: Accepted) -> Accepted:
        binding = await one.show(each)
        assert binding.b is not None
        return await one.bind(binding.b.reveal(), binding.a.reveal())

    await evacuator.look()
    *_, again = await asyncio.gather(
        asyncio.gather(*(one.release(each) for each in made[::4])),
        asyncio.gather(*(change(each, nth) for nth, each in enumerate(made[1::4]))),
        asyncio.gather(*(order_again(each) for each in made[2::4])),
    )
    await follow(one, evacuator)
    await one.idle()
    assert {(await one.show(each)).state for each in made[::4]} == {"released"}
    wanted: set[tuple[str | None, frozenset[str]]] = set()
    for each in (*made[1::4], *made[2::4], *made[3::4], *again):
        binding = await one.show(each)
        assert (binding.state, binding.x != X1) == ("active", True)
        wanted.add((binding.x, binding.parties))
    assert {(x, pair) for x, pairs in (await pairs_at(emu)).items() for pair in pairs} == wanted
    await right(one)


@pytest.mark.parametrize("what", ["expires", "is renewed"])
async def test_a_line_whose_time_comes_while_it_moves(one: Instance, emu: Emulated, what: str) -> None:
    """It expires: nobody is left behind the new X. It is renewed: the renewal ends with it, the binding has moved."""
    made = await one.bind(A, B, ttl_s=3600)
    await emu.fault(interface="bind", kind="delay", ms=1000, when="before", count=1)
    await leave(one)
    evacuator = mover(one)
    await evacuator.look()
    if what == "expires":
        await one.db.fetch("UPDATE binding SET expires_at = now() - interval '5 s' WHERE moves IS NULL")
    await one.db.fetch(
        "UPDATE line SET sweep_at = now(), expires_at = now() + $1 * interval '1 s' WHERE state = 'active'",
        -5.0 if what == "expires" else 20.0,
    )
    swept = await calls.sweep(one.db, limit=10, grace_s=1.0)
    assert (swept.expired, swept.renewed) == ((1, 0) if what == "expires" else (0, 1))
    shown = await follow(one, evacuator)
    assert (shown["moved"], shown["over"]) == ((0, 1) if what == "expires" else (1, 0))
    after = await one.show(made)
    assert (after.state, after.x == X1) == (("released", True) if what == "expires" else ("active", False))

    async def left() -> bool:
        await one.rescue()
        there = {item["x"] for item in await emu.bindings()}
        # What expired by our books alone the platform still holds here.
        return there - {X1} == (set() if what == "expires" else {after.x})

    await eventually(left)
    await right(one)


async def test_another_process_goes_on_after_a_death(seeded: str, emu: Emulated) -> None:
    """One dies with binds in hand: the other takes its calls and its evacuation over; each pair is bound once more."""
    async with instance(seeded, emu) as one, instance(seeded, emu) as other:
        made = await bound(one, 12)
        await emu.fault(interface="bind", kind="drop_answer", count=3)
        await leave(one)
        await mover(one).look()
        await one.drain(0.0)
        await one.db.fetch("UPDATE evacuation SET lease_until = clock_timestamp() - interval '1 s'")
        await one.end_leases()
        await other.reload()
        shown = await follow(other, mover(other))
        assert shown["moved"] == 12
        for each in made:
            binding = await other.show(each)
            assert (binding.state, binding.x != X1) == ("active", True)
        there = await pairs_at(emu)
        assert X1 not in there
        assert sum(map(len, there.values())) == len(await emu.bindings()) == 12
        await right(other)


async def test_one_process_at_a_time_works_on_an_x(one: Instance) -> None:
    """While the lease of one lasts nobody else takes it; once it has ended anybody does."""
    await one.bind(A, B)
    await leave(one)
    mine, theirs = new_id(), new_id()
    assert len(await store.take(one.db, mine, lease_s=60)) == 1
    assert await store.take(one.db, theirs, lease_s=60) == []
    assert len(await store.take(one.db, mine, lease_s=0)) == 1
    assert len(await store.take(one.db, theirs, lease_s=60)) == 1


async def test_opened_again_it_stops(one: Instance) -> None:
    """What has not moved yet stays."""
    made = await one.bind(A, B)
    await numbers.freeze(Desk(one.db, one.vault), "test", Closing(numbers=[X2, X3]))
    await leave(one)
    evacuator = mover(one)
    await evacuator.look()
    await numbers.reopen(Desk(one.db, one.vault), "test", Numbers(numbers=[X1]))
    await follow(one, evacuator, state="stopped")
    assert (await one.show(made)).x == X1
    await right(one)


async def test_both_x_reach_them_for_a_while(one: Instance, emu: Emulated) -> None:
    """Within the overlap a call to either X connects the pair; after it only one to the new X does."""
    made = await one.bind(A, B)
    await leave(one)
    evacuator = mover(one, overlap_s=30.0)

    async def moved() -> bool:
        await evacuator.look()
        await one.rescue()
        return (await one.show(made)).x != X1

    await eventually(moved)
    x = (await one.show(made)).x
    assert x is not None
    assert ((await emu.call(A, X1))[0], (await emu.call(A, x))[0]) == (B, B)
    await one.end_leases()
    await follow(one, evacuator)
    assert ((await emu.call(A, X1))[0], (await emu.call(A, x))[0]) == (None, B)
    await right(one)


# -- other modes


@pytest.fixture(params=["ax", "axe"])
async def place(request: pytest.FixtureRequest, database_url: str, tmp_path: Path) -> AsyncIterator[Sole]:
    """An instance whose app gives out whole X, or extensions."""
    async with world(database_url, tmp_path, request.param) as emu, sole(database_url, emu) as one:
        yield one


async def test_places_move_as_well(place: Sole) -> None:
    """A whole X, or an extension, is bound elsewhere first; the binding has the new place, the old one rests."""
    made = await place.take(A)
    before = await place.show(made)
    assert before.x is not None
    await leave(place, before.x)
    await follow(place, mover(place), before.x)
    after = await place.show(made)
    assert (after.state, after.x != before.x) == ("active", True)
    assert [item["x"] for item in await place.emu.bindings()] == [after.x]
    assert [row["op"] for row in done(await place.emu.ledger())] == ["bind", "bind", "unbind"]
    await right(place)


async def test_in_mode_x_it_moves_without_the_platform(seeded: str, emu: Emulated) -> None:
    """What we route ourselves moves by our books alone; a call to the new X is put through, one to the old is not."""
    async with instance(seeded, emu, platform=lambda _: LocalPlatform()) as one:
        await one.db.fetch("UPDATE app SET mode = 'x'")
        await one.reload()
        made = await one.bind(A, B)
        assert (await one.show(made)).x == X1
        await leave(one)
        shown = await follow(one, mover(one))
        assert (shown["moved"], (await one.show(made)).x != X1) == (1, True)
        assert await emu.bindings() == []
        await right(one)


async def test_a_temporary_callee_is_waited_for(database_url: str, tmp_path: Path) -> None:
    """It is set on the old X: asked for by an operator the move waits until it has ended; off a dead X it does not."""
    async with world(database_url, tmp_path, "ax") as emu, sole(database_url, emu) as one:
        made = await one.take(A)
        x = (await one.show(made)).x
        assert x is not None
        await one.change(made, LineChange(callee=Callee(PhoneNumber(C), 600)))
        await leave(one, x)
        evacuator = mover(one)
        await evacuator.look()
        assert (await progress(one, x))["waiting_for"] == {"temporary_callee": 1}
        await one.db.fetch("UPDATE evacuation SET why = 'status'")
        await follow(one, evacuator, x)
        assert (await one.show(made)).x != x
        await right(one)

"""Another X for a binding: had before the old one is given up, or the old one stays."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from broker.clock import boottime
from broker.domain.change import LineChange
from broker.domain.options import CallOptions
from broker.errors import Problem
from broker.flows.bind import Accepted
from broker.flows.change import Changer, Plan, Wait
from broker.store.bindings import Binding, show
from tests.emulator.support import Emulated
from tests.workers.rig import Instance, eventually, vault

A, B = "+8613900000001", "+8613900000002"
#: A platform takes a hint tone with a bind only, so this wants another X.
RECORDED = Plan(line=LineChange(options=CallOptions(recording=True, hint_tone="a.wav")), rebind=True)

pytestmark = pytest.mark.timeout(60)


async def rebind(one: Instance, made: Accepted) -> Binding:
    """Ask for another X as the API does."""

    async def read(row: tuple[int, Any]) -> Binding | None:
        return (await show(one.db, one.vault, [row])).get(row)

    changer = Changer(
        one.db, one.vault, lambda: one.known, one.allocator, one.dispatcher, read, lease_s=one.timing.lease_s
    )
    return await changer.change(await one.show(made), RECORDED, Wait(boottime() + 10))


async def x_of(emu: Emulated) -> list[str]:
    """The X numbers on which the platform holds anything."""
    return sorted(item["x"] for item in (await emu.ask("GET", "bindings")).body["items"])


async def test_the_old_x_ends_after_the_new_one_is_confirmed(one: Instance, emu: Emulated) -> None:
    """The binding goes to the new X with the confirmation; then the old one is unbound."""
    await emu.tones("a.wav")
    made = await one.bind(A, B)
    before = await one.show(made)
    after = await rebind(one, made)
    assert (after.id, after.state, after.options.hint_tone) == (before.id, "active", "a.wav")
    assert after.x != before.x

    async def only_the_new() -> bool:
        await one.rescue()  # nobody waits for the unbind, so nobody has it in hand
        return await x_of(emu) == [after.x]

    await eventually(only_the_new)
    operations = [row["op"] for row in await emu.ledger() if row["op"] in {"bind", "unbind"}]
    assert operations == ["bind", "bind", "unbind"]


async def test_refused_by_the_platform_it_keeps_its_x(one: Instance, emu: Emulated) -> None:
    """The new bind is refused for good: the caller hears why, and the binding is as it was."""
    made = await one.bind(A, B)
    before = await one.show(made)
    with pytest.raises(Problem) as told:
        await rebind(one, made)  # the emulator knows no such tone
    assert told.value.code == "platform_rejected_request"
    after = await one.show(made)
    assert (after.state, after.x, after.moving) == ("active", before.x, False)
    assert await x_of(emu) == [before.x]


async def test_through_a_shut_lane_nothing_is_begun(one: Instance) -> None:
    """With a secret that the platform refuses nothing can be bound anew: a change is refused before it begins."""
    made = await one.bind(A, B)
    before = await one.show(made)
    await one.db.fetch("UPDATE app SET secret_sealed = $1", vault().seal("app", "secret", 0, "test", "mistyped"))
    await one.reload()
    pairs = [(f"+86139{n:08d}", f"+86138{n:08d}") for n in range(100, 104)]
    await asyncio.gather(*(one.bind(*pair) for pair in pairs), return_exceptions=True)
    with pytest.raises(Problem) as told:
        await rebind(one, made)
    assert told.value.code == "platform_refused"
    after = await one.show(made)
    assert (after.state, after.x, after.moving, after.version) == ("active", before.x, False, before.version)

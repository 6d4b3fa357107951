"""Two instances that see to the last caller of the same line, one of them with a call that is not the last any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from broker.domain.ids import new_id
from broker.domain.phone import PhoneNumber
from broker.flows.bind import Accepted
from broker.flows.change import Changer, Plan, Wait
from broker.store.bindings import Binding, show
from broker.workers.call_back import CallBacks
from tests.emulator.support import Emulated
from tests.workers.sole import Sole, sole, world

A, FIRST, SECOND = "+8613900000001", "+8613900000002", "+8613900000003"
_WITHIN_S = 600

pytestmark = pytest.mark.timeout(60)


class Pause:
    """A place where whoever comes first is held up until it is let go."""

    def __init__(self) -> None:
        self.reached, self.over = asyncio.Event(), asyncio.Event()

    async def pass_by(self) -> None:
        """Tell that it is reached, and wait."""
        self.reached.set()
        await self.over.wait()


@pytest.fixture
async def emu(database_url: str, tmp_path: Path) -> AsyncIterator[Emulated]:
    """An emulator with an AX app whose A are to reach the last caller, and a database that knows it."""
    async with world(database_url, tmp_path, "ax") as running:
        yield running


async def _called(one: Sole, made: Accepted, caller: str) -> None:
    """What comes of the first event of a call."""
    call = new_id()
    await one.db.fetch(
        "INSERT INTO call (at, id, app_id, pool_id, line_id, bindings, started_at, caller_key, caller_sealed,"
        " session_sealed, timeline, received_at) SELECT broker_now(), $1, app_id, pool_id, line_id, ARRAY[id],"
        " clock_timestamp(), $3, $4, $4, '[]', broker_now() FROM binding WHERE id = $2",
        call, made.binding_id, one.vault.party_key(caller), one.vault.seal("call", "caller", 0, call, caller),
    )  # fmt: skip


def _call_backs(one: Sole, *, before: Pause | None = None, after: Pause | None = None) -> CallBacks:
    """An instance's share, held up ``before`` or ``after`` it reads the binding."""

    async def read(row: tuple[int, Any]) -> Binding | None:
        if before is not None:
            await before.pass_by()
        found = (await show(one.db, one.vault, [row])).get(row)
        if after is not None:
            await after.pass_by()
        return found

    return CallBacks(one.db, one.vault, _changer(one, Changer), read)


def _changer(one: Sole, make: type[Changer]) -> Changer:
    async def read(row: tuple[int, Any]) -> Binding | None:
        return (await show(one.db, one.vault, [row])).get(row)

    return make(one.db, one.vault, lambda: one.known, one.allocator, one.dispatcher, read, lease_s=one.timing.lease_s)


def _late(one: Sole, pause: Pause) -> CallBacks:
    """An instance's share, held up when all that is left is to change the line."""

    class Late(Changer):
        async def change(self, binding: Binding, plan: Plan, until: Wait) -> Binding:
            await pause.pass_by()
            return await super().change(binding, plan, until)

    async def read(row: tuple[int, Any]) -> Binding | None:
        return (await show(one.db, one.vault, [row])).get(row)

    return CallBacks(one.db, one.vault, _changer(one, Late), read)


_PLACES: dict[str, Callable[[Sole, Pause], CallBacks]] = {
    "before the binding is read": lambda one, pause: _call_backs(one, before=pause),
    "after it was read": lambda one, pause: _call_backs(one, after=pause),
    "before it is changed": _late,
}


@pytest.mark.parametrize("place", _PLACES)
async def test_an_earlier_caller_never_takes_the_place_of_the_last(
    database_url: str, emu: Emulated, place: str
) -> None:
    """Whoever has taken a call and is overtaken by a later one, wherever it is held up, leaves that one's caller."""
    async with sole(database_url, emu) as slow, sole(database_url, emu) as quick:
        await slow.db.fetch("UPDATE app SET call_back_s = $1", _WITHIN_S)
        made = await slow.take(A)
        pause = Pause()
        await _called(slow, made, FIRST)
        looking = asyncio.create_task(_PLACES[place](slow, pause).look())
        await asyncio.wait_for(pause.reached.wait(), 20)
        await _called(quick, made, SECOND)
        await _call_backs(quick).look()
        await quick.idle()
        assert (await quick.show(made)).callee == PhoneNumber(SECOND)
        pause.over.set()
        await looking
        await slow.idle()
        shown = await slow.show(made)
        assert (shown.callee, shown.pending) == (PhoneNumber(SECOND), None)
        assert [row["due_at"] for row in await slow.rows("SELECT due_at FROM call_back")] == [None]
        assert [row["op"] for row in await emu.ledger()] == ["bind", "callee"]

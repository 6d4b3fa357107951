"""The database goes away while an outcome is known nowhere else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from broker.flows.calls import Active, Released
from tests.emulator.support import Emulated
from tests.workers.rig import Gate, Instance, effects, eventually, instance, requests

A, B = "+8613900000001", "+8613900000002"


@pytest.fixture
async def gate(seeded: str) -> AsyncIterator[Gate]:
    """A way to the seeded database that can be cut."""
    made = Gate(seeded)
    await made.open()
    yield made
    await made.shut()


@pytest.fixture
async def cut_off(gate: Gate, emu: Emulated) -> AsyncIterator[Instance]:
    """An instance that reaches its database through the gate."""
    async with instance(gate.dsn, emu) as running:
        yield running


async def executed(emu: Emulated, op: str) -> None:
    """Wait until the platform has carried one out."""

    async def look() -> bool:
        return bool(effects(await emu.ledger(), op))

    await eventually(look)


async def test_a_bind_is_settled_when_the_database_is_back(gate: Gate, cut_off: Instance, emu: Emulated) -> None:
    """The confirmation arrives while the database is away; it is written once it is back, and nothing is sent twice."""
    await emu.fault(interface="bind", kind="delay", ms=200, count=1)
    bind = asyncio.create_task(cut_off.bind(A, B))
    await executed(emu, "bind")
    await gate.shut()

    async def noticed() -> bool:
        return not cut_off.db.reachable

    await eventually(noticed)
    await gate.open()
    made = await bind
    assert isinstance(made.outcome, Active)
    assert (await cut_off.show(made)).state == "active"
    assert [row["op"] for row in await emu.ledger()] == ["bind"]


async def test_an_unbind_is_settled_when_the_database_is_back(gate: Gate, cut_off: Instance, emu: Emulated) -> None:
    """The same for a release: the number stays held until that is written."""
    made = await cut_off.bind(A, B)
    await emu.fault(interface="unbind", kind="delay", ms=200, count=1)
    release = asyncio.create_task(cut_off.release(made, wait=False))
    assert (await release).state == "releasing"
    call = cut_off.only_call()
    call.done = asyncio.get_running_loop().create_future()
    await executed(emu, "unbind")
    await gate.shut()

    async def noticed() -> bool:
        return not cut_off.db.reachable

    await eventually(noticed)
    await gate.open()
    assert isinstance(await call.done, Released)
    assert (await cut_off.show(made)).state == "released"
    assert len(requests(await emu.ledger(), "unbind")) == 1


async def test_another_owner_settles_first(gate: Gate, cut_off: Instance, one: Instance, emu: Emulated) -> None:
    """An instance cut off from the database while its lease ends finds on its return that the call is settled."""
    await emu.fault(interface="bind", kind="delay", ms=200, count=1)
    made = await cut_off.bind(A, B, wait=False)
    await executed(emu, "bind")
    await gate.shut()
    await one.end_leases()
    await one.rescue()
    await one.idle()
    assert (await one.show(made)).state == "active"
    await gate.open()
    await cut_off.idle()
    assert [(call["state"], call["token"]) for call in await one.calls()] == [("settled", 2)]
    assert len(effects(await emu.ledger(), "bind")) == 1


async def test_a_lost_commit_answer_is_no_second_settle(gate: Gate, cut_off: Instance, emu: Emulated) -> None:
    """The settling statement commits but its answer is lost: the repeat finds nothing open and changes nothing."""
    await cut_off.db.fetch(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.3); RETURN NULL; END $$"
    )
    await cut_off.db.fetch(
        "CREATE CONSTRAINT TRIGGER slow AFTER UPDATE ON line DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION slow()"
    )
    made = await cut_off.bind(A, B, wait=False)

    async def settling() -> bool:
        rows = await cut_off.rows(
            "SELECT 1 FROM pg_stat_activity WHERE query LIKE '%settle_bound%' AND wait_event = 'PgSleep'"
        )
        return bool(rows)

    await eventually(settling)
    await gate.shut()
    await gate.open()
    await cut_off.idle()
    assert (await cut_off.state(made, "active")).state == "active"
    (call,) = await cut_off.calls()
    assert (call["state"], call["token"]) == ("settled", 1)
    assert [row["op"] for row in await emu.ledger()] == ["bind"]

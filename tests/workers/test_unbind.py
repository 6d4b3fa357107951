"""Releases: what the platform is asked, and when a number counts as free."""

from __future__ import annotations

import asyncio

import pytest

from broker.flows.calls import Active, Released
from tests.emulator.support import X1
from tests.workers.rig import Instance, effects, eventually, requests

A, B, C, D = "+8613900000001", "+8613900000002", "+8613900000003", "+8613900000004"


async def test_release_ends_one_binding_and_rests(one: Instance) -> None:
    """The line's subscription is ended, the neighbour on the same X stays, and both parties rest on the X."""
    made = await one.bind(A, B)
    neighbour = await one.bind(C, D)
    assert (await one.release(made)).state == "released"
    assert isinstance(neighbour.outcome, Active)
    (left,) = await one.emu.bindings()
    assert left["subscription_id"] == neighbour.outcome.subscription_id
    assert sorted(await one.held()) == [(X1, False), (X1, False), (X1, True), (X1, True)]


async def test_lost_answer_is_repeated_and_not_found_counts(one: Instance) -> None:
    """An unbind without an answer is sent again; that nothing is there any more is the wanted outcome."""
    made = await one.bind(A, B)
    await one.emu.fault(interface="unbind", kind="drop_answer", count=1)
    assert (await one.release(made)).state == "released"
    unbinds = requests(await one.emu.ledger(), "unbind")
    assert [row["result_code"] for row in unbinds] == ["0", "1012007"]


async def test_lost_request_is_repeated(one: Instance) -> None:
    """An unbind that never arrived is sent again."""
    made = await one.bind(A, B)
    await one.emu.fault(interface="unbind", kind="reset", count=2)
    assert (await one.release(made)).state == "released"
    assert await one.emu.bindings() == []


@pytest.mark.parametrize("code", ["1010003", "1010029", "1012001", "1010002"])
async def test_a_refused_unbind_keeps_the_number(one: Instance, code: str) -> None:
    """While the platform refuses, somebody may be reachable: the number stays held, and it is tried again later."""
    made = await one.bind(A, B)
    await one.emu.fault(interface="unbind", kind="code", http=403, code=code, count=2)
    release = asyncio.create_task(one.release(made))

    async def refused() -> bool:
        return bool(requests(await one.emu.ledger(), "unbind"))

    await eventually(refused)
    assert (await one.show(made)).state == "releasing"
    assert await one.held() == [(X1, True), (X1, True)]
    assert (await release).state == "released"
    assert len(requests(await one.emu.ledger(), "unbind")) == 3
    assert await one.emu.bindings() == []


async def test_never_by_number(one: Instance) -> None:
    """An unbind names a subscription and nothing else: by number alone it would end every binding on that X."""
    made = await one.bind(A, B)
    await one.emu.fault(interface="unbind", kind="reset", count=3)
    await one.release(made)
    rows = [row for row in requests(await one.emu.ledger(), "unbind") if row["fault"] == "reset"]
    assert len(rows) == 3
    assert {(row["x"], row["a"], row["b"]) for row in rows} == {(None, None, None)}
    assert all(row["subscription_id"] for row in rows)


async def test_release_while_the_bind_is_pending(one: Instance) -> None:
    """It ends as bound, then unbound: never active, nobody left at the platform, and the bind hears of it."""
    await one.emu.fault(interface="bind", kind="delay", ms=400, when="before", count=1)
    binding = asyncio.create_task(one.bind(A, B))

    async def pending() -> bool:
        faults = (await one.emu.ask("GET", "faults")).body["items"]
        return bool(faults[0]["hits"]) and one.dispatcher.running == 1

    await eventually(pending)
    (row,) = await one.rows("SELECT pool_id, id FROM binding")
    (asked,) = await one.rows(
        "SELECT * FROM release_bindings(ARRAY[$1::integer], ARRAY[$2::uuid], ARRAY[1], 'released', interval '8 s')",
        row["pool_id"],
        row["id"],
    )
    assert asked["line_state"] == "pending"
    made = await binding
    assert isinstance(made.outcome, Released)
    shown = await one.show(made)
    assert (shown.state, shown.reason, shown.expires_at is None) == ("released", "released", True)
    assert [row["op"] for row in await one.emu.ledger()] == ["bind", "unbind"]
    assert await one.emu.bindings() == []


async def test_release_of_a_bind_that_is_refused(one: Instance) -> None:
    """Released while pending, then refused for its X: it ends as released, and no other X is tried."""
    await one.emu.bound(X1, A, C)
    await one.emu.fault(interface="bind", kind="delay", ms=300, when="before", count=1)
    made = await one.bind(A, B, wait=False)
    assert (await one.release(made)).state == "released"
    assert len(effects(await one.emu.ledger(), "bind")) == 1


async def test_released_twice(one: Instance) -> None:
    """Two releases at once send one unbind."""
    made = await one.bind(A, B)
    both = await asyncio.gather(one.release(made), one.release(made))
    assert [binding.state for binding in both] == ["released", "released"]
    assert len(requests(await one.emu.ledger(), "unbind")) == 1

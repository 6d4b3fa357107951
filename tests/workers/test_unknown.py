"""Binds whose outcome nobody knows: the platform is asked, and whatever it says leads to exactly one effect."""

from __future__ import annotations

from datetime import timedelta

import pytest

from broker.errors import PoolExhausted
from broker.flows.calls import Active, Failed
from broker.platform.protocol import Answer, BindLine, Verdict
from tests.emulator.support import X1, Emulated
from tests.workers.fake import FakeAxb
from tests.workers.rig import Instance, effects, eventually, instance, milliseconds, requests

A, B, C = "+8613900000001", "+8613900000002", "+8613900000003"


async def test_lost_answer_is_adopted(one: Instance) -> None:
    """A bind that was carried out but not answered is found by a query and not sent again."""
    await one.emu.fault(interface="bind", kind="drop_answer", count=1)
    made = await one.bind(A, B)
    assert isinstance(made.outcome, Active)
    ledger = await one.emu.ledger()
    assert [row["op"] for row in ledger] == ["bind", "query"]
    assert made.outcome.subscription_id == effects(ledger, "bind")[0]["subscription_id"]


async def test_what_is_found_late_ends_when_the_platform_ends_it(one: Instance) -> None:
    """A bind that its dead owner sent is found by the one who takes it over: its time began when it was asked for."""
    await one.emu.fault(interface="bind", kind="delay", ms=60_000, when="after", count=1)
    await one.bind(A, B, wait=False)

    async def executed() -> bool:
        return bool(effects(await one.emu.ledger(), "bind"))

    await eventually(executed)
    await one.db.fetch("UPDATE platform_call SET created_at = created_at - interval '100 seconds'")
    await one.end_leases()
    await one.rescue()

    query = (
        "SELECT c.created_at, b.expires_at, l.expires_at AS line_end, l.sweep_at, broker_now() AS now"
        " FROM platform_call AS c JOIN line AS l ON l.id = c.line_id JOIN binding AS b ON b.line_id = l.id"
    )

    async def dated() -> bool:
        (row,) = await one.rows(query)
        return bool(row["expires_at"] == row["line_end"] == row["created_at"] + timedelta(seconds=3600))

    await eventually(dated)
    (row,) = await one.rows(query)
    assert row["sweep_at"] <= row["now"]


async def test_lost_request_is_sent_again_for_the_same_x(one: Instance) -> None:
    """A bind that never arrived is looked for, not found, and sent again with the same X."""
    await one.emu.fault(interface="bind", kind="reset", count=1)
    made = await one.bind(A, B)
    assert isinstance(made.outcome, Active)
    ledger = await one.emu.ledger()
    assert [row["op"] for row in ledger] == ["bind", "query", "bind"]
    assert ledger[0]["x"] == ledger[2]["x"]
    assert len(await one.lines()) == 1


async def test_late_commit_is_adopted(one: Instance) -> None:
    """A bind carried out between our query and our second try makes that one collide, and is adopted."""
    await one.emu.fault(interface="bind", kind="late_commit", ms=100, count=1)
    await one.emu.fault(interface="query", kind="delay", ms=300, count=1)
    made = await one.bind(A, B)
    assert isinstance(made.outcome, Active)
    ledger = await one.emu.ledger()
    assert [row["result_code"] for row in requests(ledger, "bind")] == ["0", "1012010"]
    assert len(effects(ledger, "bind")) == len(await one.emu.bindings()) == 1


async def test_internal_error_is_looked_into(one: Instance) -> None:
    """The platform's own time-out (1023002) leaves the outcome open: query first, then send again."""
    await one.emu.fault(interface="bind", kind="code", http=500, code="1023002", count=1)
    assert isinstance((await one.bind(A, B)).outcome, Active)
    assert [row["op"] for row in await one.emu.ledger()] == ["bind", "query", "bind"]


async def test_a_query_without_an_answer_is_repeated(one: Instance) -> None:
    """Nothing is decided before the query that resolves an unknown bind was answered."""
    await one.emu.fault(interface="bind", kind="drop_answer", count=1)
    await one.emu.fault(interface="query", kind="reset", count=2)
    assert isinstance((await one.bind(A, B)).outcome, Active)
    ledger = await one.emu.ledger()
    assert [row["op"] for row in ledger] == ["bind", "query", "query", "query"]


async def test_given_up_only_after_a_late_query(seeded: str, emu: Emulated) -> None:
    """An X given up after an unknown bind stays barred, and the call open, until a query ``absence_s`` later."""
    async with instance(seeded, emu, absence_s=1.0) as one:
        await emu.fault(interface="bind", kind="reset", count=1)
        await emu.fault(interface="bind", kind="code", http=403, code="1010002")
        made = await one.bind(A, B, wait=False)

        async def refused() -> bool:
            return len(requests(await emu.ledger(), "bind")) == 2

        await eventually(refused)
        assert (await one.show(made)).state == "pending"
        assert await one.held() == [(X1, True), (X1, True)]
        assert [call["state"] for call in await one.calls()] == ["open"]
        binding = await one.state(made, "failed")
        assert binding.reason == "platform_rejected_request"
        ledger = await emu.ledger()
        assert [row["op"] for row in ledger] == ["bind", "query", "bind", "query"]
        assert milliseconds(ledger[3]["received_at"]) - milliseconds(ledger[0]["received_at"]) >= 1000
        assert await one.held() == []


async def test_a_bind_that_comes_late_after_giving_up_is_undone(seeded: str, emu: Emulated) -> None:
    """What the last query finds is unbound by its id before the X is given up."""
    async with instance(seeded, emu, absence_s=0.8) as one:
        await emu.fault(interface="bind", kind="late_commit", ms=400, count=1)
        await emu.fault(interface="bind", kind="code", http=403, code="1010002")
        made = await one.bind(A, B)
        assert isinstance(made.outcome, Failed)
        ledger = await emu.ledger()
        assert len(effects(ledger, "bind")) == len(effects(ledger, "unbind")) == 1
        assert await emu.bindings() == []


@pytest.mark.parametrize("stranger", [(A, C), (C, B), (B, C)], ids=["A calls", "B is called", "B calls"])
async def test_a_foreign_binding_on_our_x(one: Instance, stranger: tuple[str, str]) -> None:
    """Somebody else's binding there: the order gets another X and keeps its id, and the stranger is left alone."""
    theirs = await one.emu.bound(X1, *stranger)
    made = await one.bind(A, B)
    assert isinstance(made.outcome, Active)
    assert made.outcome.x != X1
    binding = await one.show(made)
    assert (binding.state, binding.x, binding.id) == ("active", made.outcome.x, made.binding_id)
    assert [(line["number"], line["state"]) for line in await one.lines()] == [
        (X1, "failed"),
        (made.outcome.x, "active"),
    ]
    assert theirs in {row["subscription_id"] for row in await one.emu.bindings()}
    assert effects(await one.emu.ledger(), "unbind") == []


async def test_the_x_of_a_conflict_is_barred_for_both(one: Instance) -> None:
    """Neither party gets that X again with somebody else."""
    await one.emu.bound(X1, A, C)
    await one.bind(A, B)
    assert (await one.held()).count((X1, False)) == 2
    for pair in ((A, "+8613900000008"), (B, "+8613900000009")):
        assert isinstance((await one.bind(*pair)).outcome, Active)
    assert [row["x"] for row in requests(await one.emu.ledger(), "bind")].count(X1) == 2


async def test_the_x_of_a_conflict_is_barred_for_the_same_pair(one: Instance) -> None:
    """Even when no other X is left the pair does not get the one where a stranger was found."""
    await one.emu.bound(X1, A, C)
    await one.release(await one.bind(A, B))
    await one.db.fetch("UPDATE x_number SET state = 'frozen' WHERE x_id > 0")
    await one.reload()
    with pytest.raises(PoolExhausted):
        await one.bind(A, B)


async def test_another_x_than_asked_for_is_never_handed_out(seeded: str, emu: Emulated) -> None:
    """When the platform answers with another X, that binding is ended by its id and the order gets a right one."""
    fake = FakeAxb()

    def astray(request: BindLine) -> Answer:
        return Answer(Verdict.DONE, 200, "0", bindings=(fake.put(request, "+8617000000199"),), total=1)

    fake.script.append(astray)
    async with instance(seeded, emu, platform=lambda _: fake) as one:
        made = await one.bind(A, B)
        assert isinstance(made.outcome, Active)
        (left,) = fake.bound.values()
        assert (left.x, left.subscription_id) == (made.outcome.x, made.outcome.subscription_id)
        assert [op for op, _ in fake.sent] == ["bind", "unbind", "bind"]
        assert [line["state"] for line in await one.lines()] == ["failed", "active"]
        assert (await one.show(made)).x == left.x


async def test_a_binding_of_other_parties_is_not_adopted(seeded: str, emu: Emulated) -> None:
    """A find that carries our token but other parties is not ours."""
    fake = FakeAxb()

    def lost(request: BindLine) -> Answer:
        fake.put(BindLine(request.x, request.a, C, request.direction, request.ttl_s, request.token), request.x)
        return Answer(Verdict.UNKNOWN)

    fake.script.append(lost)
    async with instance(seeded, emu, platform=lambda _: fake) as one:
        made = await one.bind(A, B)
        assert isinstance(made.outcome, Active)
        assert fake.bound[made.outcome.subscription_id].b == B
        assert made.outcome.x != X1


async def test_rescued_before_sending(one: Instance) -> None:
    """A claim whose owner died before it sent anything is bound once by whoever takes it over."""
    allocated = await one.allocator.allocate(one.order(A, B), within_s=5)
    await one.end_leases()
    await one.rescue()
    await one.idle()
    assert [row["op"] for row in await one.emu.ledger()] == ["query", "bind"]
    (line,) = await one.lines()
    assert (line["state"], line["id"]) == ("active", allocated.line_id)


async def test_rescued_after_sending(one: Instance) -> None:
    """A bind whose owner died after it was carried out is adopted, not repeated."""
    allocated = await one.allocator.allocate(one.order(A, B), within_s=5)
    subscription = await one.emu.bound(allocated.x, A, B, userData=f"{allocated.line_id.hex}.1")
    await one.end_leases()
    await one.rescue()
    await one.idle()
    assert [row["op"] for row in await one.emu.ledger()] == ["bind", "query"]
    (line,) = await one.lines()
    assert (line["state"], line["subscription_id"]) == ("active", subscription)


async def test_rescued_and_unwanted(one: Instance) -> None:
    """A claim released while nobody owned its call is not sent any more, and what may have been sent is undone."""
    allocated = await one.allocator.allocate(one.order(A, B), within_s=5)
    await one.emu.fault(interface="query", kind="reset", count=1)
    await one.db.fetch("UPDATE line SET state = 'releasing'")
    await one.db.fetch("UPDATE binding SET state = 'releasing'")
    await one.end_leases()
    await one.rescue()
    await one.idle()
    assert effects(await one.emu.ledger(), "bind") == []
    assert [line["state"] for line in await one.lines()] == ["released"]
    assert [row["state"] for row in await one.rows("SELECT state FROM binding")] == ["released"]
    assert allocated.x == X1


async def test_a_release_before_the_rescue_does_not_wait_for_the_proof(seeded: str, emu: Emulated) -> None:
    """With nothing at the platform the binding is released at once; its X stays held until nothing can come late."""
    async with instance(seeded, emu, absence_s=2.0) as one:
        await one.allocator.allocate(one.order(A, B), within_s=5)
        await one.db.fetch("UPDATE line SET state = 'releasing'")
        await one.db.fetch("UPDATE binding SET state = 'releasing'")
        await one.end_leases()
        await one.rescue()

        async def released() -> bool:
            return [row["state"] for row in await one.rows("SELECT state FROM binding")] == ["released"]

        await eventually(released, within_s=1.5)
        assert await one.held() == [(X1, True), (X1, True)]
        assert [line["state"] for line in await one.lines()] == ["releasing"]
        await one.idle()
        assert [line["state"] for line in await one.lines()] == ["released"]
        assert await one.held() == []

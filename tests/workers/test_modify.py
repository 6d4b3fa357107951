"""The story of a modify: done, refused, unknown, released or taken over on the way, and lines that are gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from broker.clock import boottime
from broker.domain.change import LineChange
from broker.domain.phone import PhoneNumber
from broker.errors import Conflict, Problem
from broker.flows.bind import Accepted
from broker.flows.calls import PlatformCall
from broker.flows.change import Changer, Plan, Wait
from broker.platform.protocol import Answer, ModifyLine, Verdict
from broker.store import calls
from broker.store.bindings import Binding, show
from tests.emulator.support import Emulated
from tests.workers.fake import FakeAxb
from tests.workers.rig import REST_S, Instance, eventually, forget_lease, instance

A, B, C, D = (f"+861390000000{n}" for n in range(1, 5))
TO_C = LineChange(b=PhoneNumber(C))

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def fake() -> FakeAxb:
    """A platform in memory."""
    return FakeAxb()


@asynccontextmanager
async def at(dsn: str, emu: Emulated, fake: FakeAxb, **timing: Any) -> AsyncIterator[Instance]:
    """An instance beside the fake."""
    async with instance(dsn, emu, platform=lambda _: fake, **timing) as running:
        yield running


async def change(
    one: Instance, made: Accepted, line: LineChange = TO_C, *, wait: bool = True, within_s: float = 20.0
) -> Binding:
    """Change a binding as the API does."""

    async def read(row: tuple[int, Any]) -> Binding | None:
        return (await show(one.db, one.vault, [row])).get(row)

    changer = Changer(
        one.db, one.vault, lambda: one.known, one.allocator, one.dispatcher, read, lease_s=one.timing.lease_s
    )
    return await changer.change(await one.show(made), Plan(line=line), Wait(boottime() + within_s, wait=wait))


def unanswered(fake: FakeAxb, *, applied: bool) -> Callable[[ModifyLine], Answer]:
    """A modify whose answer is lost, carried out or not."""

    def script(request: ModifyLine) -> Answer:
        if applied:
            fake.change(request)
        return Answer(Verdict.UNKNOWN)

    return script


def refused(verdict: Verdict) -> Callable[[ModifyLine], Answer]:
    """A modify that is refused."""
    return lambda _: Answer(verdict, 403, "1010001", detail="no")


async def parties(one: Instance) -> dict[str, float | None]:
    """Per phone on the X: seconds that it rests still, None while it is live; who is free is left out."""
    names = {one.vault.party_key(phone): phone for phone in (A, B, C, D)}
    rows = await one.rows(
        "SELECT party_key, CASE WHEN until <> 'infinity' THEN extract(epoch FROM until - broker_now()) END AS left_s"
        " FROM slot WHERE until > broker_now()"
    )
    return {names[row["party_key"]]: row["left_s"] for row in rows}


async def in_hand(one: Instance) -> PlatformCall:
    """Wait until the instance has its only call in hand."""

    async def look() -> bool:
        return one.dispatcher.running == 1

    await eventually(look)
    return one.only_call()


def ops(fake: FakeAxb, op: str) -> int:
    """How many requests of a kind left."""
    return [sent for sent, _ in fake.sent].count(op)


async def test_done(seeded: str, emu: Emulated, fake: FakeAxb) -> None:
    """One request; the new party is behind X, the replaced one rests."""
    async with at(seeded, emu, fake) as one:
        made = await one.bind(A, B)
        binding = await change(one, made)
        assert (binding.a, binding.b, binding.pending) == (PhoneNumber(A), PhoneNumber(C), None)
        assert [(b.a, b.b) for b in fake.bound.values()] == [(A, C)]
        assert [op for op, _ in fake.sent] == ["bind", "modify"]
        held = await parties(one)
        assert (held[A], held[C]) == (None, None)
        assert REST_S - 30 < (held[B] or 0.0) <= REST_S


@pytest.mark.parametrize(
    ("verdict", "code"),
    [
        (Verdict.CONFLICT, "party_barred"),
        (Verdict.BAD_REQUEST, "platform_rejected_request"),
        (Verdict.APP_SUSPENDED, "app_suspended"),
        (Verdict.CONFIGURATION, "platform_refused"),
        (Verdict.CAPACITY, "platform_refused"),
        (Verdict.NUMBER_REFUSED, "platform_refused"),
    ],
)
async def test_refused(seeded: str, emu: Emulated, fake: FakeAxb, verdict: Verdict, code: str) -> None:
    """Each kind of refusal is told, and nothing is changed anywhere: the new party was never behind X."""
    fake.modify_script.append(refused(verdict))
    async with at(seeded, emu, fake) as one:
        made = await one.bind(A, B)
        with pytest.raises(Problem):
            await change(one, made)
        binding = await one.show(made)
        assert (binding.state, binding.b, binding.pending, binding.change_failed) == (
            "active", PhoneNumber(B), None, code,
        )  # fmt: skip
        held = await parties(one)
        assert (held.pop(A), held.pop(B)) == (None, None)
        # Where somebody else is there at the platform, that party keeps away.
        assert list(held) == ([C] if verdict is Verdict.CONFLICT else [])
        assert ops(fake, "modify") == 1


@pytest.mark.parametrize("applied", [True, False])
async def test_unknown_is_sent_again_and_looked_at(seeded: str, emu: Emulated, fake: FakeAxb, *, applied: bool) -> None:
    """Settled only when no attempt can come late, and the platform was asked: both parties hold X until then."""
    fake.modify_script.append(unanswered(fake, applied=applied))
    async with at(seeded, emu, fake, absence_s=1.0) as one:
        made = await one.bind(A, B)
        began = boottime()
        changing = asyncio.create_task(change(one, made))

        async def again() -> bool:
            return len(fake.modified) == 2

        await eventually(again)
        assert await parties(one) == {A: None, B: None, C: None}
        binding = await changing
        assert boottime() - began >= 1.0
        assert binding.b == PhoneNumber(C)
        assert [op for op, _ in fake.sent] == ["bind", "modify", "modify", "lookup"]


@pytest.mark.parametrize("applied", [True, False])
async def test_unknown_then_refused_is_what_the_platform_shows(
    seeded: str, emu: Emulated, fake: FakeAxb, *, applied: bool
) -> None:
    """A refusal of the second attempt says nothing about the first: the look does."""
    fake.modify_script.extend([unanswered(fake, applied=applied), refused(Verdict.CONFLICT)])
    async with at(seeded, emu, fake) as one:
        made = await one.bind(A, B)
        if applied:
            assert (await change(one, made)).b == PhoneNumber(C)
        else:
            with pytest.raises(Conflict):
                await change(one, made)
        binding = await one.show(made)
        assert [b.b for b in fake.bound.values()] == [C if applied else B]
        assert binding.b == PhoneNumber(C if applied else B)


async def test_a_late_arrival_cannot_undo_a_later_change(seeded: str, emu: Emulated, fake: FakeAxb) -> None:
    """While an attempt may still arrive no other change begins; one that arrived meanwhile is what is told."""
    late: list[ModifyLine] = []

    def lost(request: ModifyLine) -> Answer:
        late.append(request)
        return Answer(Verdict.UNKNOWN)

    fake.modify_script.append(lost)
    async with at(seeded, emu, fake, absence_s=1.5) as one:
        made = await one.bind(A, B)
        changing = asyncio.create_task(change(one, made))

        async def again() -> bool:
            return len(fake.modified) == 2

        await eventually(again)
        with pytest.raises(Conflict, match="changed at this moment"):
            await change(one, made, LineChange(b=PhoneNumber(D)))
        fake.change(late[0])
        assert (await changing).b == PhoneNumber(C)
        assert (await change(one, made, LineChange(b=PhoneNumber(D)))).b == PhoneNumber(D)
        assert [b.b for b in fake.bound.values()] == [D]


@pytest.mark.parametrize("first_unknown", [True, False])
async def test_a_line_the_platform_does_not_know_is_lost(
    seeded: str, emu: Emulated, fake: FakeAxb, *, first_unknown: bool
) -> None:
    """Its binding fails as platform_lost; whoever may have been behind X rests."""

    def gone(_: ModifyLine) -> Answer:
        fake.bound.clear()
        return Answer(Verdict.NOT_FOUND, 403, "1012007")

    if first_unknown:
        fake.modify_script.append(unanswered(fake, applied=True))
    async with at(seeded, emu, fake) as one:
        made = await one.bind(A, B)
        if not first_unknown:
            fake.bound.clear()
        else:
            fake.modify_script.append(gone)
        with pytest.raises(Conflict):
            await change(one, made)
        binding = await one.show(made)
        assert (binding.state, binding.reason) == ("failed", "platform_lost")
        held = await parties(one)
        assert set(held) == {A, B, C}
        assert None not in held.values()


@pytest.mark.parametrize("known", [True, False])
async def test_released_while_a_modify_is_in_flight(seeded: str, emu: Emulated, fake: FakeAxb, *, known: bool) -> None:
    """Exactly one unbind follows, whatever became of the modify, and all three parties rest."""
    answered = asyncio.Event()

    def slow(request: ModifyLine) -> Answer:
        answered.set()
        fake.change(request)
        return Answer(Verdict.DONE, 200, "0") if known else Answer(Verdict.UNKNOWN)

    fake.modify_script.append(slow)
    async with at(seeded, emu, fake, absence_s=30.0, first_backoff_s=0.3) as one:
        made = await one.bind(A, B)
        if known:
            # Released between the commit of the change and its request.
            one.sender._route(one.app.id).lane.hold(0.5)
            await change(one, made, wait=False)
            released = await one.release(made)
        else:
            await change(one, made, wait=False)
            await asyncio.wait_for(answered.wait(), 10)
            released = await one.release(made, within_s=20)
        assert released.state == "released"
        assert fake.bound == {}
        assert ops(fake, "unbind") == 1
        assert [(call["op"], call["state"]) for call in await one.calls()] == [
            ("bind", "settled"), ("modify", "settled"), ("unbind", "settled"),
        ]  # fmt: skip
        held = await parties(one)
        assert set(held) == {A, B, C}
        assert None not in held.values()


async def test_taken_over_by_another_instance(seeded: str, emu: Emulated, fake: FakeAxb) -> None:
    """Who lost the call neither sends nor settles; the other one takes the owner's request for sent."""
    async with at(seeded, emu, fake) as one, at(seeded, emu, fake) as other:
        made = await one.bind(A, B)
        one.sender._route(one.app.id).lane.hold(0.6)
        await change(one, made, wait=False)
        call = await in_hand(one)
        await one.end_leases()
        await other.rescue()
        await other.idle()
        forget_lease(call)
        await one.idle()
        assert call.lost
        assert [op for op, _ in fake.sent] == ["bind", "modify", "lookup"]
        assert (await one.show(made)).b == PhoneNumber(C)
        assert [(call["op"], call["token"], call["state"]) for call in await one.calls()] == [
            ("bind", 1, "settled"), ("modify", 2, "settled"),
        ]  # fmt: skip


async def test_a_late_answer_to_who_lost_the_call_changes_nothing(seeded: str, emu: Emulated, fake: FakeAxb) -> None:
    """The first owner's outcome, a refusal, comes after the second one's: it is dropped."""
    async with at(seeded, emu, fake) as one, at(seeded, emu, fake) as other:
        made = await one.bind(A, B)
        fake.modify_script.append(refused(Verdict.FLOW_CONTROL))
        await change(one, made, wait=False)

        async def sent() -> bool:
            return ops(fake, "modify") == 1

        await eventually(sent)
        await one.end_leases()
        await other.rescue()
        await other.idle()
        before = await one.calls(), await one.lines()
        await one.idle()
        assert (await one.calls(), await one.lines()) == before
        assert (await one.show(made)).b == PhoneNumber(C)


async def test_a_modify_that_waits_is_handed_over_at_shutdown(seeded: str, emu: Emulated, fake: FakeAxb) -> None:
    """Queued when the process leaves: another one takes it at once and carries it out once."""
    async with at(seeded, emu, fake) as leaving, at(seeded, emu, fake) as one:
        made = await leaving.bind(A, B)
        leaving.sender._route(leaving.app.id).lane.hold(60)
        await change(leaving, made, wait=False)
        await leaving.drain(grace_s=0.05)
        assert ops(fake, "modify") == 0
        await one.rescue()
        await one.idle()
        assert (await one.show(made)).b == PhoneNumber(C)
        assert ops(fake, "modify") == 1


async def test_a_binding_read_before_its_confirmation_is_not_changed(seeded: str, emu: Emulated, fake: FakeAxb) -> None:
    """What was read names no subscription yet: the change is refused, though the line is active by now."""
    async with at(seeded, emu, fake) as one:
        one.sender._route(one.app.id).lane.hold(0.5)
        made = await one.bind(A, B, wait=False)
        early = await one.show(made)
        assert early.state == "pending"
        await one.idle()
        changer = Changer(
            one.db, one.vault, lambda: one.known, one.allocator, one.dispatcher,
            lambda _: asyncio.sleep(0, early), lease_s=one.timing.lease_s,
        )  # fmt: skip
        for rebind in (False, True):
            with pytest.raises(Conflict, match="at this moment"):
                await changer.change(early, Plan(line=TO_C, rebind=rebind), Wait(boottime() + 5))
        assert (await one.show(made)).state == "active"
        assert [op for op, _ in fake.sent] == ["bind"]


async def _due_for_renewal(one: Instance) -> Accepted:
    made = await one.bind(A, B, ttl_s=3600)
    # The order lasts longer than the platform was told, and the line's end there is near.
    await one.db.fetch("UPDATE binding SET ttl_s = 7200, expires_at = broker_now() + interval '2 hours'")
    await one.db.fetch("UPDATE line SET expires_at = broker_now() + interval '5 minutes', sweep_at = broker_now()")
    assert (await calls.sweep(one.db, limit=10, grace_s=1.0)).renewed == 1
    return made


async def test_a_renewal_refused_by_configuration_waits_for_an_operator(
    seeded: str, emu: Emulated, fake: FakeAxb
) -> None:
    """It is tried again and again, the line and its order live on, and once it is put right the line is renewed."""
    fake.modify_script.extend([refused(Verdict.CONFIGURATION), refused(Verdict.APP_SUSPENDED)])
    async with at(seeded, emu, fake) as one:
        made = await _due_for_renewal(one)
        await one.rescue()

        async def tried() -> bool:
            return len(fake.modified) == 3

        await eventually(tried)
        await one.idle()
        (line,) = await one.lines()
        assert line["changing"] is False
        assert line["ttl_s"] > 7000
        assert next(iter(fake.bound.values())).ttl_s == line["ttl_s"]
        assert (await one.show(made)).state == "active"


async def test_a_renewal_after_the_platforms_own_end_finds_the_line_gone(
    seeded: str, emu: Emulated, fake: FakeAxb
) -> None:
    """The order is told that it was lost, and its parties rest: nobody believes in a line that is not there."""
    async with at(seeded, emu, fake) as one:
        made = await _due_for_renewal(one)
        fake.bound.clear()
        await one.rescue()
        await one.idle()
        binding = await one.show(made)
        assert (binding.state, binding.reason) == ("failed", "platform_lost")
        held = await parties(one)
        assert set(held) == {A, B}
        assert None not in held.values()

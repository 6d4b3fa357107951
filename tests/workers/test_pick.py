"""Binds whose X the platform picks: one effect at most, whatever answer is lost, and no number that is another's."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from broker.clock import boottime
from broker.domain.options import CallOptions
from broker.errors import Conflict, PoolExhausted
from broker.flows.calls import Active, Failed
from broker.flows.picked import Unpicked
from broker.platform.protocol import Answer, BindLine, Verdict
from broker.store.database import Database
from tests.emulator.support import Emulated
from tests.workers.axyb import GONE, LOST, X1, X2, X3, FakeAxyb, axyb, bind_a, order_of, unpicked
from tests.workers.rig import Instance, eventually, forget_lease

A, A2 = "+8613900000001", "+8613900000002"
STRANGE = "+8617099999999"


async def _books(one: Instance) -> list[tuple[str | None, str | None, str]]:
    rows = await one.rows(
        "SELECT x.number, l.picked, l.state FROM line AS l LEFT JOIN x_number AS x USING (pool_id, x_id) ORDER BY l.id"
    )
    return [(row["number"], row["picked"], row["state"]) for row in rows]


async def test_takes_what_the_platform_picks(seeded: str, emu: Emulated) -> None:
    """The X of the answer is the line's; the request named the area and none of our numbers."""
    fake = FakeAxyb(X2)
    async with axyb(seeded, emu, fake) as one:
        made = await bind_a(one, A)
        assert isinstance(made.outcome, Active)
        assert made.outcome.x == X2
        assert await _books(one) == [(X2, None, "active")]
        binding = await one.show(made)
        assert (binding.x, binding.b, binding.state) == (X2, None, "active")
        (request,) = fake.requests
        assert isinstance(request, BindLine)
        assert (request.x, request.area_code, request.relaxed, request.ttl_s) == ("", "0755", False, 3600)


async def test_unknown_number_becomes_ours(seeded: str, emu: Emulated) -> None:
    """A number that nobody had is entered into the pool, and says so."""
    async with axyb(seeded, emu, FakeAxyb(STRANGE)) as one:
        made = await bind_a(one, A)
        assert isinstance(made.outcome, Active)
        assert await _books(one) == [(STRANGE, None, "active")]
        rows = await one.rows("SELECT state, state_reason FROM x_number WHERE number = $1", STRANGE)
        assert rows == [{"state": "open", "state_reason": "given out by the platform"}]
        assert one.dispatcher.picked == {"imported": 1}


async def test_number_of_another_pool_is_recorded_by_number(seeded: str, emu: Emulated) -> None:
    """An X that belongs to another pool of the app stays there; the line only names it."""
    async with axyb(seeded, emu, FakeAxyb(STRANGE)) as one:
        await one.db.fetch("INSERT INTO pool (app_id, name, area_code) SELECT id, 'beijing', '010' FROM app")
        await one.db.fetch("INSERT INTO x_number (pool_id, x_id, number) SELECT max(id), 0, $1 FROM pool", STRANGE)
        made = await bind_a(one, A)
        assert await _books(one) == [(None, STRANGE, "active")]
        assert (await one.show(made)).x == STRANGE
        assert (await one.release(made)).state == "released"


async def test_number_of_another_app_is_never_handed_out(seeded: str, emu: Emulated) -> None:
    """An X that is another app's in our books is unbound, and the bind fails."""
    fake = FakeAxyb(STRANGE)
    async with axyb(seeded, emu, fake) as one:
        await one.db.fetch(
            "INSERT INTO app (name, mode, app_key, secret_sealed, base_url)"
            " SELECT 'other', mode, 'other', secret_sealed, base_url FROM app"
        )
        await one.db.fetch(
            "INSERT INTO pool (app_id, name, area_code) SELECT id, 'theirs', '0755' FROM app WHERE name = 'other'"
        )
        await one.db.fetch("INSERT INTO x_number (pool_id, x_id, number) SELECT max(id), 0, $1 FROM pool", STRANGE)
        made = await bind_a(one, A)
        assert isinstance(made.outcome, Failed)
        assert (made.outcome.reason, made.outcome.code) == ("platform_refused", "x_of_another_app")
        assert fake.bound == {}
        assert await _books(one) == [(None, None, "failed")]


async def test_lost_answer_is_searched_for_and_adopted(seeded: str, emu: Emulated) -> None:
    """A bind that was carried out but not answered is found on its X by its token; it is sent once."""
    fake = FakeAxyb(X3)

    def carried_out(request: BindLine) -> Answer:
        fake.put(request)
        return LOST

    fake.script.append(carried_out)
    async with axyb(seeded, emu, fake) as one:
        made = await bind_a(one, A)
        assert isinstance(made.outcome, Active)
        assert made.outcome.x == X3
        assert fake.ops("bind") == 1
        assert await _books(one) == [(X3, None, "active")]


async def test_it_is_looked_for_where_somebody_is_leaving(seeded: str, emu: Emulated) -> None:
    """An X that the platform has given on while our books still release it is searched, too."""
    fake = FakeAxyb(X1)
    async with axyb(seeded, emu, fake) as one:
        await bind_a(one, A)
        # Whoever carried the unbind out has died before it could be settled.
        await one.db.fetch("UPDATE line SET state = 'releasing'")
        fake.bound.clear()
        fake.numbers.append(X1)

        def carried_out(request: BindLine) -> Answer:
            fake.put(request)
            return LOST

        fake.script.append(carried_out)
        made = await bind_a(one, A2)
        assert isinstance(made.outcome, Active)
        assert made.outcome.x == X1


async def test_what_comes_late_is_adopted(seeded: str, emu: Emulated) -> None:
    """A bind that takes effect after the first search is found by the second, ``absence_s`` after it was sent."""
    fake = FakeAxyb(X1)
    late: list[BindLine] = []

    def later(request: BindLine) -> Answer:
        late.append(request)
        return LOST

    fake.script.append(later)
    async with axyb(seeded, emu, fake, absence_s=1.0) as one:
        made = await bind_a(one, A, wait=False)

        async def searched() -> bool:
            return fake.ops("query") >= 3

        await eventually(searched)
        fake.put(late[0])
        assert (await one.state(made, "active", "failed")).x == X1
        assert fake.ops("bind") == 1


async def test_what_is_not_found_is_given_up(seeded: str, emu: Emulated) -> None:
    """A bind of which nothing is found fails with a reason of its own, and is never sent again."""
    fake = FakeAxyb()
    fake.script.append(lambda _: LOST)
    async with axyb(seeded, emu, fake) as one:
        made = await bind_a(one, A)
        assert isinstance(made.outcome, Failed)
        assert made.outcome.reason == "outcome_unknown"
        assert (await one.show(made)).reason == "outcome_unknown"
        assert [fake.ops(op) for op in ("bind", "query")] == [1, 6]


async def test_strangers_on_the_numbers_are_not_adopted(seeded: str, emu: Emulated) -> None:
    """Neither another line of ours nor somebody without our token is taken for the bind that was lost."""
    fake = FakeAxyb(X1, X2)
    async with axyb(seeded, emu, fake) as one:
        await bind_a(one, A)
        fake.put(BindLine("", A, token="somebody"))
        fake.script.append(lambda _: LOST)
        made = await bind_a(one, A)
        assert isinstance(made.outcome, Failed)
        assert ("query", X1) not in fake.sent
        assert len(fake.bound) == 2


@pytest.mark.parametrize("answered", [True, False], ids=["done", "lost"])
async def test_taken_over_bind_is_searched_only(seeded: str, emu: Emulated, *, answered: bool) -> None:
    """Whoever takes over a bind that was written down as sent does not send it."""
    fake = FakeAxyb(X2)
    async with axyb(seeded, emu, fake) as first:

        def dies(request: BindLine) -> Answer:
            if answered:
                fake.put(request)
            forget_lease(first.only_call())
            first.only_call().lost = True
            return LOST

        fake.script.append(dies)
        made = await bind_a(first, A, wait=False)
        await first.idle()
        await first.end_leases()
        async with axyb(seeded, emu, fake) as second:
            await second.rescue()
            binding = await second.state(made, "active", "failed")
            assert (binding.state, binding.reason) == (("active", None) if answered else ("failed", "outcome_unknown"))
            assert fake.ops("bind") == 1


async def test_a_claim_that_was_never_sent_is_sent_by_whoever_takes_it_over(seeded: str, emu: Emulated) -> None:
    """A process that died between the claim and the request leaves a bind that certainly was not sent."""
    fake = FakeAxyb(X2)
    async with axyb(seeded, emu, fake) as one:
        claimed = await unpicked(one).allocate(order_of(one, A), within_s=5)
        await one.end_leases()
        await one.rescue()
        await one.idle()
        assert await _books(one) == [(X2, None, "active")]
        assert claimed.line_id.hex in fake.requests[0].token
        assert fake.ops("query") == 0


async def test_release_while_it_is_searched_for(seeded: str, emu: Emulated) -> None:
    """What is found of a bind that was released meanwhile is unbound."""
    fake = FakeAxyb(X2)
    late: list[BindLine] = []

    def later(request: BindLine) -> Answer:
        late.append(request)
        return LOST

    fake.script.append(later)
    async with axyb(seeded, emu, fake, absence_s=1.0) as one:
        made = await bind_a(one, A, wait=False)

        async def searched() -> bool:
            return fake.ops("query") >= 3

        await eventually(searched)
        await one.release(made, wait=False)
        fake.put(late[0])
        assert (await one.state(made, "released")).reason == "released"
        assert fake.bound == {}


async def test_five_x_at_a_time(seeded: str, emu: Emulated) -> None:
    """A sixth X is refused before the platform is asked; an X that was released makes room."""
    fake = FakeAxyb(*(f"+861709999{place:04}" for place in range(8)))
    async with axyb(seeded, emu, fake) as one:
        made = [await bind_a(one, A) for _ in range(5)]
        with pytest.raises(Conflict) as refused:
            await bind_a(one, A)
        assert refused.value.code == "party_limit"
        assert isinstance((await bind_a(one, A2)).outcome, Active)
        await one.release(made[0])
        assert isinstance((await bind_a(one, A)).outcome, Active)
        assert fake.ops("bind") == 7


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(Verdict.PARTY_LIMIT, 403, "1011003"), "party_limit"),
        (Answer(Verdict.CAPACITY, 403, "1012008"), "pool_exhausted"),
        (Answer(Verdict.BAD_REQUEST, 403, "1010002"), "platform_rejected_request"),
        (GONE, "platform_refused"),
    ],
)
async def test_refusals(seeded: str, emu: Emulated, answer: Answer, reason: str) -> None:
    """What the platform refuses leaves nothing behind, and counts against nobody."""
    fake = FakeAxyb(X1)
    fake.script.append(lambda _: answer)
    async with axyb(seeded, emu, fake) as one:
        made = await bind_a(one, A)
        assert isinstance(made.outcome, Failed)
        assert made.outcome.reason == reason
        assert await one.rows("SELECT 1 FROM line WHERE seat IS NOT NULL") == []
        assert len(one.full) == (answer.verdict is Verdict.CAPACITY)


async def test_a_full_pool_is_believed_for_a_moment(seeded: str, emu: Emulated) -> None:
    """Whom the platform has just had no X for, the next one is refused without it; where any X will do, it is asked."""
    fake = FakeAxyb(X1)
    fake.script.append(lambda _: Answer(Verdict.CAPACITY, 403, "1012008"))
    now = 1000.0
    async with axyb(seeded, emu, fake) as one:
        claims = Unpicked(one.db, one.vault, lease_s=one.timing.lease_s, boottime=lambda: now)
        await bind_a(one, A)
        claims.note_full(one.full[0])
        now += 0.04
        with pytest.raises(PoolExhausted):
            await claims.allocate(order_of(one, A2), within_s=5)
        assert await one.rows("SELECT 1 FROM binding WHERE state = 'pending'") == []
        assert claims.refusals(one.full[0].pool_id) == {"full": 1}
        relaxed = await claims.allocate(order_of(one, A2, options=CallOptions(relaxed=True)), within_s=5)
        now += 0.02
        assert (await claims.allocate(order_of(one, A), within_s=5)).pool.id == relaxed.pool.id


async def test_an_x_that_our_books_have_still(seeded: str, emu: Emulated) -> None:
    """The platform gives an X to the next one before our books have let it go: both lines stand."""
    fake = FakeAxyb(X1, X1)
    async with axyb(seeded, emu, fake) as one:
        first, second = await bind_a(one, A), await bind_a(one, A2)
        assert isinstance(second.outcome, Active)
        seats = await one.rows("SELECT seat FROM line ORDER BY seat")
        assert [row["seat"] for row in seats] == [0, 1]
        assert (await one.release(first)).state == (await one.release(second)).state == "released"


async def test_a_claim_that_is_looked_for_is_not_forgotten(seeded: str, emu: Emulated) -> None:
    """The request's time ends while a claim without an answer is looked for: should it turn up, it is released."""
    async with axyb(seeded, emu, FakeAxyb(X1)) as one:
        hasty = Database(seeded, connections=2, timeout_s=0.5)
        await hasty.open()
        claims = Unpicked(hasty, one.vault, lease_s=one.timing.lease_s, boottime=boottime)
        blocker = await asyncpg.connect(seeded)
        try:
            async with blocker.transaction():
                await blocker.execute("LOCK TABLE line, binding IN ACCESS EXCLUSIVE MODE")
                asked = asyncio.create_task(claims.allocate(order_of(one, A), within_s=30))

                async def unanswered() -> bool:
                    return hasty.away == 1

                await eventually(unanswered)
                asked.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await asked
                assert len(claims.abandoned) == 1
        finally:
            await blocker.close()
            await hasty.close()

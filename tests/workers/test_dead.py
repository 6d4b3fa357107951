"""Calls that keep failing: what counts, when one is dead, what it holds, and how it comes back or is given up."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from broker.errors import Conflict, NotFound
from broker.flows.bind import Accepted
from broker.flows.calls import Active
from broker.flows.operate import calls as desk_calls
from broker.flows.operate.desk import Desk
from broker.flows.operate.fields import CallFilter, Discard
from broker.platform.protocol import Answer, BindLine, Permit, Verdict
from broker.store.calls import Ended, settle_ended
from tests.emulator.support import X1, Emulated
from tests.workers.fake import FakeAxb
from tests.workers.rig import Instance, effects, eventually, instance, requests

A, B, C, D = "+8613900000001", "+8613900000002", "+8613900000003", "+8613900000004"
WHO = "op@desk"
_PLACES = itertools.count(100)

pytestmark = pytest.mark.timeout(90)


@pytest.fixture
async def one(seeded: str, emu: Emulated) -> AsyncIterator[Instance]:
    """An instance that loses its patience soon."""
    async with instance(seeded, emu, dead_after_tries=4, dead_after_s=0.1) as running:
        yield running


def desk(one: Instance) -> Desk:
    """An operator."""
    return Desk(one.db, one.vault)


async def dead(one: Instance) -> list[dict[str, Any]]:
    """What is on the list."""
    return await desk_calls.every(desk(one), "test", CallFilter())


@asynccontextmanager
async def others_served(one: Instance) -> AsyncIterator[None]:
    """Bind and look, again and again: the platform answers others meanwhile."""

    async def work() -> None:
        while True:
            # New ones each time: who has a line already needs no platform.
            made = await one.bind(*(f"+8613900{next(_PLACES):06}" for _ in range(2)))
            assert isinstance(made.outcome, Active), made
            await asyncio.sleep(0.02)

    task = asyncio.create_task(work())
    try:
        yield
    finally:
        assert not task.done(), task
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until_dead(one: Instance) -> dict[str, Any]:
    """Wait for the only dead call."""

    async def look() -> dict[str, Any] | None:
        found = await dead(one)
        return found[0] if found else None

    found = await eventually(look, within_s=30.0)
    assert found is not None
    return found


async def buried_unbind(one: Instance, code: str = "1012001") -> tuple[Accepted, dict[str, Any]]:
    """An unbind that the platform refuses until it is dead."""
    made = await one.bind(A, B)
    await one.emu.fault(interface="unbind", kind="code", http=403, code=code)
    async with others_served(one):
        await one.release(made, wait=False)
        return made, await until_dead(one)


async def test_an_unbind_that_is_refused_again_and_again_dies(one: Instance) -> None:
    """It is tried no more, its X stays held, and the list, the explanation and the row say so."""
    made, told = await buried_unbind(one)
    assert (told["op"], told["state"], told["reason"], told["http"], told["code"]) == (
        "unbind", "dead", "configuration", 403, "1012001",
    )  # fmt: skip
    assert told["failures"] >= 4
    await one.idle()
    tried = len(requests(await one.emu.ledger(), "unbind"))
    await one.end_leases()
    await one.rescue()
    await one.idle()
    assert len(requests(await one.emu.ledger(), "unbind")) == tried
    assert (await one.show(made)).state == "releasing"
    assert (await one.held()).count((X1, True)) >= 2
    explained = await desk_calls.explain(desk(one), "test", told["id"])
    assert [entry["code"] for entry in explained["tries"]] == ["1012001"] * told["failures"]
    assert (explained["a"], explained["b"]) == ("+86*******0001", "+86*******0002")
    assert X1 in explained["blocks"]
    assert "calls through X may reach A and B" in explained["discard"]
    assert A not in str(explained)


async def test_a_retry_goes_on_where_it_was(one: Instance) -> None:
    """Once the cause is gone, a retry ends the binding; it is dead no more, and who did it is noted."""
    made, told = await buried_unbind(one)
    await one.emu.ask("DELETE", "faults")
    assert await desk_calls.retry(desk(one), "test", None, who=WHO) == [{"id": told["id"], "state": "open"}]
    await one.rescue()
    assert (await one.state(made, "released")).reason == "released"
    assert await dead(one) == []
    (noted,) = await one.rows("SELECT who, what, reason, binding_id FROM audit")
    assert noted == {"who": WHO, "what": "retry_call", "reason": None, "binding_id": made.binding_id}
    with pytest.raises(NotFound):
        await desk_calls.retry(desk(one), "test", [told["id"]], who=WHO)


async def test_a_retry_that_fails_again_dies_again(one: Instance) -> None:
    """With new patience; what was tried before is still told."""
    _, told = await buried_unbind(one)
    await desk_calls.retry(desk(one), "test", [told["id"]], who=WHO)
    with pytest.raises(Conflict):
        await desk_calls.retry(desk(one), "test", [told["id"]], who=WHO)
    async with others_served(one):
        await one.rescue()
        again = await until_dead(one)
    assert again["id"] == told["id"]
    asked = [entry["asked"] for entry in (await desk_calls.explain(desk(one), "test", told["id"]))["tries"]]
    assert asked.count("unbind") == told["failures"] + again["failures"]
    assert asked[told["failures"]] == "retry_call"


async def test_a_discard_says_why_and_keeps_the_number_barred(one: Instance) -> None:
    """The binding ends in our books; the X rests as long as the platform may hold it; the reason is kept."""
    made, told = await buried_unbind(one)
    wanted = Discard(calls=[told["id"]], reason="ended in the console")
    (done,) = await desk_calls.discard(desk(one), "test", wanted, who=WHO)
    assert done == {"id": told["id"], "state": "discarded", "op": "unbind"}
    shown = await one.show(made)
    assert (shown.state, shown.reason) == ("released", "released")
    (noted,) = await one.rows("SELECT who, what, reason FROM audit")
    assert noted == {"who": WHO, "what": "discard_call", "reason": "ended in the console"}
    (rest,) = await one.rows(
        "SELECT min(extract(epoch FROM s.until - broker_now())) AS least FROM slot AS s"
        " WHERE s.party_key = ANY ($1::bigint[])",
        [one.vault.party_key(A), one.vault.party_key(B)],
    )
    # What is left of the lifetime at the platform, and the quarantine of the app.
    assert 3600 + 7200 - 60 < rest["least"] <= 3600 + 7200
    with pytest.raises(NotFound):
        await desk_calls.discard(desk(one), "test", wanted, who=WHO)


async def test_the_owner_of_before_settles_nothing(one: Instance) -> None:
    """Who had the call when it died, and wakes later, has no effect: not dead, not after a retry."""
    made, told = await buried_unbind(one)
    line = await one.rows("SELECT line_id, no, pool_id, token FROM platform_call WHERE state = 'dead'")
    before = one.dispatcher.released

    async def settle(token: int) -> object:
        key = (await one.rows("SELECT pool_id, line_id, no FROM platform_call WHERE line_id = $1 AND no = $2",
                              line[0]["line_id"], line[0]["no"]))[0]  # fmt: skip
        from broker.store.calls import CallKey

        ended = Ended(CallKey(**key, token=token), 9, "released", "released", 1.0, "done", 200, "0")
        return (await settle_ended(one.db, [ended]))[0]

    assert await settle(line[0]["token"] - 1) is None
    await desk_calls.retry(desk(one), "test", [told["id"]], who=WHO)
    assert await settle(line[0]["token"]) is None
    assert one.dispatcher.released == before
    assert (await one.show(made)).state == "releasing"


@pytest.mark.parametrize("code", ["1010010", "1011006", "1010013"])
async def test_what_says_nothing_about_the_call_does_not_count(one: Instance, code: str) -> None:
    """Flow control and a clock that is off: tried far more often than a call may fail, and alive."""
    made = await one.bind(A, B)
    http = 401 if code == "1010013" else 403
    await one.emu.fault(interface="unbind", kind="code", http=http, code=code, count=7)
    async with others_served(one):
        await one.release(made, wait=False)
        await one.state(made, "released", within_s=30.0)
    assert await one.rows("SELECT FROM failing_call") == []


async def test_an_outage_buries_nothing(one: Instance) -> None:
    """While the platform answers nobody of the app no failure counts; afterwards everything goes on by itself."""
    made = await one.bind(A, B)
    await one.emu.fault(interface="*", kind="reset")
    await one.release(made, wait=False)

    async def often() -> bool:
        return len(requests(await one.emu.ledger(), "unbind")) > 10

    await eventually(often, within_s=20.0)
    assert await one.rows("SELECT FROM failing_call") == []
    await one.emu.ask("DELETE", "faults")
    await one.state(made, "released")


async def test_a_suspended_account_buries_nothing(one: Instance) -> None:
    """An account in arrears refuses everybody: the unbind waits for the operator, and goes on by itself."""
    made = await one.bind(A, B)
    await one.emu.fault(interface="*", kind="code", http=403, code="1010029")
    await one.release(made, wait=False)

    async def often() -> bool:
        return len(requests(await one.emu.ledger(), "unbind")) > 6

    await eventually(often, within_s=20.0)
    assert await one.rows("SELECT FROM failing_call") == []
    await one.emu.ask("DELETE", "faults")
    await one.state(made, "released")


async def test_a_bind_whose_query_is_never_answered_dies(one: Instance) -> None:
    """Nobody knows whether it is there: the X stays held, the order pending, until a retry finds it."""
    await one.emu.fault(interface="bind", kind="drop_answer", count=1)
    await one.emu.fault(interface="query", kind="reset")
    made = await one.bind(A, B, wait=False)

    async def lost() -> bool:
        return len(requests(await one.emu.ledger(), "query")) > 1

    await eventually(lost)
    async with others_served(one):
        told = await until_dead(one)
    assert (told["op"], told["reason"]) == ("bind", "unknown")
    assert (await one.show(made)).state == "pending"
    await one.emu.ask("DELETE", "faults")
    await desk_calls.retry(desk(one), "test", [told["id"]], who=WHO)
    await one.rescue()
    assert (await one.state(made, "active")).x == X1
    ours = [row for row in effects(await one.emu.ledger(), "bind") if row["a"] == A]
    assert len(ours) == 1


async def test_a_bind_that_is_given_up_fails(one: Instance) -> None:
    """It may be there: the binding has failed, and neither of the two gets that X meanwhile, not even together."""
    await one.emu.fault(interface="bind", kind="drop_answer", count=1)
    await one.emu.fault(interface="query", kind="reset")
    made = await one.bind(A, B, wait=False)

    async def lost() -> bool:
        return len(requests(await one.emu.ledger(), "query")) > 1

    await eventually(lost)
    async with others_served(one):
        told = await until_dead(one)
    await one.emu.ask("DELETE", "faults")
    await desk_calls.discard(desk(one), "test", Discard(calls=[told["id"]], reason="order is gone"), who=WHO)
    shown = await one.show(made)
    assert (shown.state, shown.reason) == ("failed", "discarded")
    again = await one.bind(A, B)
    assert isinstance(again.outcome, Active)
    assert again.outcome.x != X1


class Poisoned(FakeAxb):
    """A driver that fails on one A, as a mistake in our code would."""

    def __init__(self) -> None:
        super().__init__()
        self.tried = 0
        self.healed = False

    async def bind(self, request: BindLine, *, permit: Permit, timeout_s: float) -> Answer:
        """Bind all but A."""
        if request.a == A and not self.healed:
            self.tried += 1
            raise RuntimeError(f"no rule for {request.a}")
        return await super().bind(request, permit=permit, timeout_s=timeout_s)


async def crash(one: Instance, done: Callable[[], Awaitable[object]]) -> None:
    """Have the pauses after a crash end at once, and the call taken over, until ``done``."""

    async def again() -> object:
        await one.end_leases()
        await one.rescue()
        await one.idle()
        return await done()

    await eventually(again, within_s=30.0)


async def test_our_own_mistake_is_not_repeated_hot_and_dies(seeded: str, emu: Emulated) -> None:
    """Each crash doubles the pause; the fifth one is the last; neighbours are served; a fixed version can retry."""
    poisoned = Poisoned()
    async with instance(seeded, emu, platform=lambda _: poisoned) as one:
        made = await one.bind(A, B, wait=False)
        await one.idle()
        (call,) = await one.rows(
            "SELECT extract(epoch FROM claimable_at - clock_timestamp()) AS left_s FROM platform_call"
        )
        assert 4 < call["left_s"] <= 8
        assert isinstance((await one.bind(C, D)).outcome, Active)
        await one.rows("UPDATE platform_call SET claimable_at = clock_timestamp() WHERE state = 'open'")
        await one.rescue()
        await one.idle()
        (call,) = await one.rows(
            "SELECT extract(epoch FROM claimable_at - clock_timestamp()) AS left_s FROM platform_call"
            " WHERE state = 'open'"
        )
        assert 12 < call["left_s"] <= 16
        await crash(one, lambda: dead(one))
        (told,) = await dead(one)
        assert (told["reason"], told["crashes"], poisoned.tried) == ("crashed", 5, 5)
        explained = await desk_calls.explain(desk(one), "test", told["id"])
        assert {entry["error"] for entry in explained["tries"]} == {"RuntimeError"}
        assert A not in str(explained)
        poisoned.healed = True
        await desk_calls.retry(desk(one), "test", [told["id"]], who=WHO)
        await one.rescue()
        await one.state(made, "active")


async def test_a_row_that_cannot_be_read_harms_no_neighbour(one: Instance) -> None:
    """Of a slice that is taken over, the unreadable call is put aside and the others are carried out."""
    made = [await one.allocator.allocate(one.order(*pair), within_s=5) for pair in ((A, B), (C, D))]
    await one.rows("UPDATE line SET a_sealed = 'broken'::bytea WHERE id = $1", made[0].line_id)
    await one.end_leases()
    await one.rescue()
    await one.idle()
    states = {row["id"]: row["state"] for row in await one.rows("SELECT id, state FROM line")}
    assert states == {made[0].line_id: "pending", made[1].line_id: "active"}
    await crash(one, lambda: dead(one))
    (told,) = await dead(one)
    explained = await desk_calls.explain(desk(one), "test", told["id"])
    assert (explained["a"], explained["tries"][-1]["error"]) == (None, "SealBroken")
    await desk_calls.discard(desk(one), "test", Discard(calls=[told["id"]], reason="broken row"), who=WHO)
    assert await one.rows("SELECT state FROM binding WHERE state = 'pending'") == []


async def test_an_x_that_never_answers_is_given_up(seeded: str, emu: Emulated) -> None:
    """Others are bound meanwhile, so it is this X: nothing of ours is there, and the order gets another one."""
    fake = FakeAxb()
    asked: list[str] = []

    def silent(request: BindLine) -> Answer | None:
        if request.a != A or request.x != X1:
            return None
        asked.append(request.x)
        return Answer(Verdict.UNKNOWN)

    fake.script.extend([silent] * 10_000)
    async with instance(seeded, emu, platform=lambda _: fake) as one, others_served(one):
        made = await one.bind(A, B, within_s=30.0)
        assert isinstance(made.outcome, Active), made
        assert made.outcome.x != X1
        assert 5 <= len(asked) <= 8
        assert (X1, False) in await one.held()


async def test_an_x_that_answers_late_is_kept(seeded: str, emu: Emulated) -> None:
    """The last look before it is given up finds the bind, which came through late: it is adopted."""
    fake = FakeAxb()
    asked: list[BindLine] = []

    def silent(request: BindLine) -> Answer | None:
        if request.a != A:
            return None
        asked.append(request)
        if len(asked) == 5:
            asyncio.get_running_loop().call_later(0.1, fake.put, request, X1)
        return Answer(Verdict.UNKNOWN)

    fake.script.extend([silent] * 10_000)
    async with instance(seeded, emu, platform=lambda _: fake) as one, others_served(one):
        made = await one.bind(A, B, within_s=30.0)
        assert isinstance(made.outcome, Active), made
        assert made.outcome.x == X1
        assert [held.x for held in fake.bound.values() if held.a == A] == [X1]

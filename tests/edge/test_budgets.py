"""Budgets of an X: complaints, answered calls and heat, from what operators and the platform tell."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from broker.clock import boottime
from broker.domain.budget import Over
from broker.domain.choice import Policy
from broker.domain.phone import PhoneNumber
from broker.errors import Invalid
from broker.flows.allocate import Allocator
from broker.flows.number_status import apply_number_status
from broker.flows.operate import complaints, numbers
from broker.flows.operate.fields import Closing, Complaint, NumberFilter, Numbers
from broker.flows.order import BindOrder
from broker.metrics import Metrics
from broker.store import budgets
from broker.workers.budgets import Budgets
from tests.edge.rig import Edge, fee, fees, session_id
from tests.store.pairs import VAULT, A, B
from tests.store.shop import LEASE_S
from tests.store.test_operate import desk_of

_TWO = "UPDATE app SET complaint_budget = 2, over_budget = 'freeze'"
_REASON = "over its budget: more than 2 complaints in 30 days"
_MONTH_S = 31 * 86_400


async def _complain(edge: Edge, times: int = 1) -> dict[str, Any]:
    """Enter complaints about the first X; how it stands then."""
    for _ in range(times):
        (row,) = await complaints.report(
            desk_of(edge.shop), "shop", Complaint(number=edge.x(), reason="rang at midnight")
        )
    return row


async def _look(edge: Edge) -> dict[str, Any]:
    """What an instance does each minute; how the first X stands then."""
    assert not await Budgets(edge.shop.db, Metrics(), edge.registry, lambda _hot: None).look()
    rows = await numbers.every(desk_of(edge.shop), "shop", NumberFilter())
    return next(row for row in rows if row["number"] == edge.x())


async def _told(edge: Edge) -> list[tuple[Any, Any, Any]]:
    return [(d["state"], d["by"], d.get("over")) for kind, _, d in await edge.events() if kind == "number.status"]


def _calls(edge: Edge, many: int, *, answered: bool, x_id: int = 0) -> list[dict[str, object]]:
    """Records of calls of A that came in a moment from now (its line is just made)."""
    at = datetime.now(UTC) + timedelta(seconds=3)
    came = at.strftime("%Y-%m-%d %H:%M:%S")
    rang = {} if answered else {"fwdAnswerTime": "", "ulFailReason": 8105}
    return [
        fee(session_id(), at=at, talk_s=0, callerNum=A, bindNum=edge.x(x_id), **{"callInTime": came, **rang})
        for _ in range(many)
    ]


async def test_one_complaint_too_many_freezes_until_they_are_old(edge: Edge) -> None:
    """The third of two freezes the X, once; a month later it is handed out again."""
    await edge.shop.test_clock()
    await edge.configure(_TWO)
    row = await _complain(edge, 2)
    assert (row["complaints"], row["state"], row["over_budget"]) == (2, "open", None)
    row = await _complain(edge)
    assert (row["complaints"], row["state"], row["closed_by"]) == (3, "frozen", "budget")
    assert (row["state_reason"], row["over_budget"]) == (_REASON, "complaints")
    assert await edge.shop.reserve(edge.pairs.claim(A, B)) == ["closed"]
    await _complain(edge)
    assert (await _look(edge))["complaints"] == 4
    assert await _told(edge) == [("frozen", "budget", ["complaints"])]
    await edge.shop.advance(_MONTH_S)
    row = await _look(edge)
    assert (row["state"], row["closed_by"], row["over_budget"], row["complaints"]) == ("open", None, None, 0)
    assert await edge.shop.reserve(edge.pairs.claim(A, B)) == ["won"]
    await _look(edge)
    assert await _told(edge) == [("frozen", "budget", ["complaints"]), ("open", "budget", [])]


async def test_what_is_only_reported_is_handed_out(edge: Edge) -> None:
    """The app may want to hear of it only; another policy, or another budget, is in force with the next look."""
    await edge.configure("UPDATE app SET complaint_budget = 2")
    row = await _complain(edge, 3)
    assert (row["state"], row["over_budget"]) == ("open", "complaints")
    await edge.configure("UPDATE app SET over_budget = 'freeze'")
    assert (await _look(edge))["state"] == "frozen"
    await edge.configure("UPDATE app SET over_budget = 'report'")
    assert (await _look(edge))["state"] == "open"
    await edge.configure("UPDATE app SET complaint_budget = NULL")
    assert (await _look(edge))["over_budget"] is None
    over = ["complaints"]
    assert await _told(edge) == [
        ("open", "budget", over), ("frozen", "budget", over), ("open", "budget", over), ("open", "budget", []),
    ]  # fmt: skip


async def test_an_operators_freeze_is_never_undone(edge: Edge) -> None:
    """Frozen by hand before the budget, or after it: it stays so when the complaints are old."""
    await edge.shop.test_clock()
    await edge.configure(_TWO)
    desk = desk_of(edge.shop)
    freeze = Closing(numbers=[edge.x()], reason="ours")
    await numbers.freeze(desk, "shop", freeze)
    row = await _complain(edge, 3)
    assert (row["closed_by"], row["state_reason"], row["over_budget"]) == ("operator", "ours", "complaints")
    await edge.shop.advance(_MONTH_S)
    row = await _look(edge)
    assert (row["state"], row["closed_by"], row["over_budget"]) == ("frozen", "operator", None)
    await edge.shop.run("UPDATE x_number SET state = 'open', closed_by = NULL, state_reason = NULL")
    assert (await _complain(edge, 3))["closed_by"] == "budget"
    await numbers.freeze(desk, "shop", freeze)
    await edge.shop.advance(_MONTH_S)
    row = await _look(edge)
    assert (row["state"], row["closed_by"], row["state_reason"]) == ("frozen", "operator", "ours")


async def test_an_operator_who_opens_forgives(edge: Edge) -> None:
    """What was complained of before counts no more; the next ones do."""
    await edge.configure(_TWO)
    assert (await _complain(edge, 3))["state"] == "frozen"
    await numbers.reopen(desk_of(edge.shop), "shop", Numbers(numbers=[edge.x()]))
    row = await _look(edge)
    assert (row["state"], row["complaints"], row["over_budget"]) == ("open", 0, None)
    assert (await _complain(edge, 2))["state"] == "open"
    assert (await _complain(edge))["state"] == "frozen"


async def test_an_operator_who_opens_lets_the_calls_begin_anew(edge: Edge) -> None:
    """Of an X that was frozen because nobody answered, only the calls from then on are judged."""
    await edge.configure("UPDATE app SET answer_floor = 0.5, over_budget = 'freeze'")
    await edge.shop.run("INSERT INTO x_use VALUES ($1, 0, 60, 60, 0, broker_now())", edge.shop.pool)
    assert (await _look(edge))["over_budget"] == "answers"
    await numbers.reopen(desk_of(edge.shop), "shop", Numbers(numbers=[edge.x()]))
    row = await _look(edge)
    assert (row["state"], row["over_budget"], row["answer_rate"]) == ("open", None, None)
    assert row["calls_per_hour"] == pytest.approx(60, abs=1)


async def test_the_platforms_word_is_above_a_budget(edge: Edge) -> None:
    """A status suspends what a budget has frozen; when it is lifted the budget counts again."""
    await edge.configure(_TWO)
    await _complain(edge, 3)
    since = datetime.now(UTC) - timedelta(hours=12)
    await apply_number_status(edge.shop.db, edge.shop.app_id, edge.x(), "9", "", since)
    row = await _look(edge)
    assert (row["state"], row["closed_by"]) == ("suspended", "status")
    await apply_number_status(edge.shop.db, edge.shop.app_id, edge.x(), "5", "", since + timedelta(hours=7))
    row = await _look(edge)
    assert (row["state"], row["closed_by"]) == ("frozen", "budget")


async def test_many_instances_tell_once(edge: Edge) -> None:
    """Whoever looks first does it; the others find it done."""
    await edge.configure(_TWO)
    for _ in range(3):
        assert await budgets.complain(edge.shop.db, edge.shop.app_id, edge.x(), None)
    await asyncio.gather(*(_look(edge) for _ in range(4)))
    assert await _told(edge) == [("frozen", "budget", ["complaints"])]


async def test_what_was_decided_on_old_figures_is_not_done(edge: Edge) -> None:
    """An instance that was away for a while opens nothing that another one has frozen since."""
    await edge.configure(_TWO)
    assert await budgets.complain(edge.shop.db, edge.shop.app_id, edge.x(), None)
    (old,) = await budgets.standings(edge.shop.db, limit=10)
    assert await budgets.keep(edge.shop.db, old, [Over.COMPLAINTS])
    assert not await budgets.keep(edge.shop.db, old, [])
    assert await edge.shop.value("SELECT state FROM x_number WHERE number = $1", edge.x()) == "frozen"


async def test_complaints_of_a_number_that_is_not_ours(edge: Edge) -> None:
    """Named; and nothing is entered."""
    with pytest.raises(Invalid):
        await complaints.report(desk_of(edge.shop), "shop", Complaint(number="+8617000000009"))
    assert await edge.shop.value("SELECT count(*) FROM complaint") == 0


async def test_calls_that_nobody_answers(edge: Edge) -> None:
    """Enough of them, and too few answered: over its budget, until more are answered. Each record counts once."""
    await edge.configure("UPDATE app SET answer_floor = 0.5")
    await edge.pairs.active()
    few = fees(*_calls(edge, 20, answered=False), *_calls(edge, 10, answered=True))
    await edge.told("cdr", few)
    await edge.told("cdr", few)
    # Whom nobody is behind any more was not called.
    await edge.told("cdr", fees(*_calls(edge, 50, answered=False, x_id=1)))
    row = await _look(edge)
    assert (row["answer_rate"], row["over_budget"]) == (pytest.approx(1 / 3, abs=0.01), None)
    await edge.told("cdr", fees(*_calls(edge, 30, answered=False)))
    row = await _look(edge)
    assert (row["answer_rate"], row["over_budget"], row["state"]) == (pytest.approx(1 / 6, abs=0.01), "answers", "open")
    assert await edge.shop.value("SELECT count(*) FROM x_use") == 1
    await edge.told("cdr", fees(*_calls(edge, 50, answered=True)))
    assert (await _look(edge))["over_budget"] == "answers"
    await edge.told("cdr", fees(*_calls(edge, 20, answered=True)))
    assert (await _look(edge))["over_budget"] is None
    assert await _told(edge) == [("open", "budget", ["answers"]), ("open", "budget", [])]


async def _chosen(edge: Edge, policy: Policy = Policy.PACK) -> set[int]:
    """The X that an instance chooses for the next pairs, knowing what it learns of heat."""
    made = Allocator(edge.shop.db, VAULT, edge.registry, lease_s=LEASE_S, boottime=boottime)
    await Budgets(edge.shop.db, Metrics(), edge.registry, lambda hot: setattr(made, "hot", hot)).look_at_heat()
    found = set()
    for number in range(3):
        phones = [PhoneNumber(f"+86137000000{number}{side}") for side in (1, 2)]
        order = BindOrder(
            app=edge.registry().apps[edge.shop.app_id], caller_id=edge.shop.caller_id, a=phones[0], b=phones[1],
            a_key=VAULT.party_key(phones[0].reveal()), b_key=VAULT.party_key(phones[1].reveal()),
            pools=(edge.registry().pools[edge.shop.pool],), ttl_s=3600, direction="both", policy=policy,
        )  # fmt: skip
        choice = await made.pick(order)
        assert choice is not None
        found.add(choice.x)
    return found


@pytest.mark.parametrize("policy", [Policy.PACK, Policy.SPREAD])
async def test_a_hot_number_is_passed_over_while_others_are_not(edge: Edge, policy: Policy) -> None:
    """Twenty calls an hour are enough for an X; when all have them, or it is an hour later, it is taken as before."""
    await edge.shop.test_clock()
    await edge.configure("UPDATE app SET heat = 20")
    await edge.pairs.active()
    await edge.told("cdr", fees(*_calls(edge, 19, answered=True)))
    assert await _chosen(edge, policy) == {0}
    await edge.told("cdr", fees(*_calls(edge, 2, answered=True)))
    assert await _chosen(edge, policy) == {1}
    row = await _look(edge)
    assert (row["calls_per_hour"], row["over_budget"]) == (pytest.approx(21, abs=0.5), None)
    for x_id in (1, 2, 3):
        await edge.shop.run(
            "INSERT INTO x_use (pool_id, x_id, heat, calls, answered, as_of) VALUES ($1, $2, 30, 0, 0, broker_now())",
            edge.shop.pool, x_id,
        )  # fmt: skip
    assert await _chosen(edge, policy) == {0}
    await edge.shop.run("UPDATE x_use SET heat = 0 WHERE x_id = 2")
    assert await _chosen(edge, policy) == {2}
    await edge.shop.advance(3600)
    assert await _chosen(edge, policy) == {0}


async def test_nothing_is_counted_without_a_budget(edge: Edge) -> None:
    """An app that wants neither pays for neither."""
    await edge.configure()
    await edge.pairs.active()
    await edge.told("cdr", fees(*_calls(edge, 3, answered=True)))
    assert await edge.shop.value("SELECT count(*) FROM x_use") == 0

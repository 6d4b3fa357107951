"""What notifications become in our books."""

from __future__ import annotations

import random
import tracemalloc
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from broker.flows.operate.desk import Desk
from broker.flows.operate.records import take_in
from broker.store import retention
from tests.edge.rig import Edge, event, fee, fees, message, session_id
from tests.store.pairs import VAULT, A, B, C

_STEPS = ("callin", "callout", "alerting", "answer", "disconnect")


def _life(session: str, mark: str, began: datetime, x: str) -> list[dict[str, object]]:
    """The events of an answered call."""
    life = []
    for place, step in enumerate(_STEPS):
        fields: dict[str, object] = {"caller": A, "called": x if step == "callin" else B, "userData": mark}
        if step == "disconnect":
            fields |= {"stateCode": "0", "stateDesc": "The user releases the call."}
        life.append(event(step, session, at=began + timedelta(seconds=5 * place), **fields))
    return life


@pytest.mark.parametrize("seed", range(4))
async def test_a_call_is_one_row_whatever_the_order_of_its_events(edge: Edge, seed: int) -> None:
    """All five events, each up to three times and shuffled, make one call with its timeline and four events told."""
    claim = await edge.pairs.active()
    session, began = session_id(), datetime.now(UTC).replace(microsecond=0)
    pushes = _life(session, f"{claim.line_id.hex}.1", began, edge.x()) * 3
    random.Random(seed).shuffle(pushes)  # noqa: S311 - a shuffle that can be repeated
    for push in pushes:
        assert await edge.push("events", push) == (200, b"")
    await edge.settled()
    (call,) = await edge.rows("call")
    assert (call["line_id"], call["bindings"], call["found_by"], call["x"]) == (
        claim.line_id, [claim.binding_id], "token", edge.x(),
    )  # fmt: skip
    at = [began + timedelta(seconds=5 * place) for place in range(5)]
    assert [call[name] for name in ("started_at", "ringing_at", "answered_at", "ended_at")] == [
        at[0], at[2], at[3], at[4],
    ]  # fmt: skip
    assert (call["state_code"], edge.opened("call", "session", call)) == (0, session)
    assert (edge.opened("call", "caller", call), edge.opened("call", "callee", call)) == (A, B)
    assert [entry["type"] for entry in orjson.loads(call["timeline"])] == list(_STEPS)
    told = await edge.events()
    assert sorted(kind for kind, _, _ in told) == ["call.answered", "call.ended", "call.ringing", "call.started"]
    assert {binding for _, binding, _ in told} == {claim.binding_id}
    assert {data["session_id"] for _, _, data in told} == {session}
    assert await edge.inbox() == {("event", "done"): 5}


async def test_numbers_are_kept_encrypted_only(edge: Edge) -> None:
    """Neither the raw notification nor what was made of it shows a number, not even one in a session's id."""
    claim = await edge.pairs.active()
    session = f"{A}_{B}_4_627e5c1f_963036_669_1_0"
    for push in _life(session, claim.line_id.hex, datetime.now(UTC), edge.x()):
        await edge.told("events", push)
    await edge.told("cdr", fees(fee(session, callerNum=A, fwdDstNum=B, bindNum=edge.x(), userData=claim.line_id.hex)))
    await edge.told("sms", message(edge.x(), A, called=B, smsContent=f"call me at {B}", userData=claim.line_id.hex))
    for table in ("inbox", "call", "cdr", "sms", "event"):
        found = await edge.shop.value(f"SELECT string_agg(t::text, ' ') FROM {table} AS t")  # noqa: S608 - our own words
        assert found
        for party in (A, B):
            assert party[1:] not in found
            assert party[1:].encode().hex() not in found
    assert "session_id" not in (await edge.events())[0][2]


async def test_a_shared_line_tells_all_its_orders_of_that_time(edge: Edge) -> None:
    """A call belongs to every binding that the line had when it began, not to one that joined afterwards."""
    claim = await edge.pairs.active()
    second, third = edge.pairs.joiner(claim), edge.pairs.joiner(claim)
    assert await edge.pairs.join(second) == ["joined"]
    later = datetime.now(UTC) + timedelta(hours=1)
    assert await edge.pairs.join(third) == ["joined"]
    await edge.shop.run("UPDATE binding SET created_at = $1 WHERE id = $2", later, third.binding_id)
    await edge.told("events", event("callin", session_id(), caller=A, called=edge.x(), userData=claim.line_id.hex))
    assert {binding for _, binding, _ in await edge.events()} == {claim.binding_id, second.binding_id}


async def test_found_by_subscription_else_by_history(edge: Edge) -> None:
    """Without our mark the subscription on X tells the line; without both, X and the caller at that time do."""
    claim = await edge.pairs.active()
    subscription = "sub-" + claim.line_id.hex
    await edge.told("cdr", fees(fee(session_id(), callerNum=C, bindNum=edge.x(), subscriptionId=subscription)))
    await edge.told("events", event("callin", session_id(), caller=A, called=edge.x()))
    await edge.told("events", event("callin", session_id(), caller=C, called=edge.x()))
    (cdr,) = await edge.rows("cdr")
    assert (cdr["found_by"], cdr["line_id"]) == ("subscription", claim.line_id)
    assert sorted((call["found_by"] or "-", call["line_id"]) for call in await edge.rows("call")) == [
        ("-", None), ("history", claim.line_id),
    ]  # fmt: skip


async def test_found_in_the_history_after_the_end(edge: Edge) -> None:
    """A record that comes after the line has ended is still its order's."""
    claim = await edge.pairs.active()
    began = datetime.now(UTC)
    await edge.pairs.release(claim)
    assert await edge.pairs.end(claim, 2)
    await edge.shop.run("UPDATE held SET since = since - interval '1 hour', until = until + interval '2 minutes'")
    await edge.shop.run(
        "UPDATE binding SET created_at = created_at - interval '1 hour', ended_at = ended_at + interval '2 minutes'"
    )
    record = fee(session_id(), at=began, talk_s=3, callerNum=B, bindNum=edge.x())
    await edge.told("cdr", fees(record))
    (cdr,) = await edge.rows("cdr")
    assert (cdr["found_by"], cdr["bindings"]) == ("history", [claim.binding_id])


async def test_found_as_late_as_the_app_keeps_the_past(edge: Edge) -> None:
    """Records from a file of 31 days ago are their order's after what is not kept was deleted, by mark or history."""
    shop, desk = edge.shop, Desk(edge.shop.db, VAULT)
    await edge.configure("UPDATE app SET retention_days = 31")
    await shop.test_clock()
    claim = await edge.pairs.active()
    began = await shop.value("SELECT date_trunc('second', broker_now()) + interval '3 minutes'")
    await shop.advance(600)
    await edge.pairs.release(claim)
    assert await edge.pairs.end(claim, 2)

    async def imported(**fields: object) -> object:
        record = fee(session_id(), at=began, talk_s=3, callerNum=B, bindNum=edge.x(), **fields)
        return (await take_in(desk, "shop", iter([(1, record)]), dry_run=False, progress=lambda _: None))["new"]

    await shop.advance(31 * 86_400 - 600)
    for kind in retention.KINDS:
        while ((done := await retention.forget(shop.db, kind, limit=100)) is not None) and done.more:
            pass
    assert [await imported(), await imported(userData=claim.line_id.hex)] == [1, 1]
    # Who imports leaves the effects to others.
    await shop.run("UPDATE inbox SET due_at = clock_timestamp()")
    await edge.notices.rescue()
    await edge.settled()
    found = {row["found_by"]: row["bindings"] for row in await edge.rows("cdr")}
    assert found == {"history": [claim.binding_id], "token": [claim.binding_id]}
    await shop.advance(600)
    assert await imported() == 0


async def test_a_file_of_nonsense_takes_no_memory(edge: Edge) -> None:
    """Of unreadable lines the first hundred are named and all are counted; no more than those are remembered."""
    many = 100_000
    desk, lines = Desk(edge.shop.db, VAULT), ((number, None) for number in range(1000, 1000 + many))
    tracemalloc.start()
    try:
        told = await take_in(desk, "shop", lines, dry_run=True, progress=lambda _: None)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (told["unreadable"], told["unreadable_lines"]) == (many, list(range(1000, 1100)))
    assert peak < many * 20


async def test_records_come_in_any_parcels(edge: Edge) -> None:
    """Fifty records of a push, repeated in others, are fifty; talk time and the words of the end come with them."""
    claim = await edge.pairs.active()
    records = [
        fee(session_id(), talk_s=60 + n, callerNum=A, bindNum=edge.x(), userData=claim.line_id.hex) for n in range(50)
    ]
    del records[7]["fwdAnswerTime"]
    records[7] |= {"fwdUnaswRsn": "17", "ulFailReason": "518"}
    records[8] |= {"recordFlag": "1", "recordObjectName": "a.wav", "recordDomain": "d.example"}
    await edge.told("cdr", fees(*records))
    for first in range(0, 50, 7):
        await edge.told("cdr", fees(*records[first : first + 9]))
    await edge.told("events", {"eventType": "fee", "feeLst": records[3]})
    found = await edge.rows("cdr")
    assert len(found) == 50
    assert sorted(cdr["talk_s"] for cdr in found) == [0, *(60 + n for n in range(50) if n != 7)]
    told = await edge.events()
    assert [kind for kind, _, _ in told].count("cdr.created") == 50
    assert [kind for kind, _, _ in told].count("recording.ready") == 1
    assert [data["reason"] for _, _, data in told if data.get("talk_s") == 0] == ["busy"]


async def test_a_record_without_times_is_one_record(edge: Edge) -> None:
    """It is found again by its session's time, or at the beginning of all times."""
    for session in (session_id(), "no-time-in-it"):
        record = {"eventType": "fee", "feeLst": [{"direction": 2, "sessionId": session, "bindNum": edge.x()}]}
        for _ in range(3):
            await edge.told("cdr", record)
    assert [cdr["at"].year for cdr in await edge.rows("cdr")] == [1970, 2026]


async def test_short_messages(edge: Edge) -> None:
    """What was forwarded and what was not, each once."""
    claim = await edge.pairs.active()
    mark: dict[str, Any] = {"userData": claim.line_id.hex}
    paras = {"extParas": [{"key": "splitNum", "value": "2"}, {"key": "direction", "value": "1"}]}
    good = message(edge.x(), A, called=B, smsContent="on my way", sendResult=0, extInfo=paras, **mark)
    bad = message(edge.x(), B, sendResult="9", **mark)
    for push in (good, bad, good, bad):
        await edge.told("sms", push)
    told = [(kind, binding, data["reason"]) for kind, binding, data in await edge.events()]
    assert told == [
        ("sms.forwarded", claim.binding_id, "forwarded"),
        ("sms.failed", claim.binding_id, "parts of it were forwarded"),
    ]
    (sms, _) = sorted(await edge.rows("sms"), key=lambda row: row["result"])
    assert (sms["segments"], sms["direction"], edge.opened("sms", "content", sms)) == (2, 1, "on my way")


async def test_states_of_numbers(edge: Edge) -> None:
    """A word about an X of the app has its effect, whatever path it comes by; one about another number is counted."""
    words = [{"number": edge.x(), "status": 10, "cause": "2"}, {"number": "+8617000009999", "status": "5"}]
    await edge.told("events", {"eventType": "numStatus", "numInfo": words})
    state = await edge.shop.value("SELECT state FROM x_number WHERE number = $1", edge.x())
    assert state == "suspended"
    assert [kind for kind, _, _ in await edge.events() if kind == "number.status"] == ["number.status"]
    assert edge.notices.counts["status", "foreign_number"] == 1


async def test_an_event_of_a_session_never_seen(edge: Edge) -> None:
    """It makes a call that is nobody's yet; the one that names the line later makes it the line's."""
    claim = await edge.pairs.active()
    session = session_id()
    await edge.told("events", event("disconnect", session, caller=A, called=B, stateCode=8102))
    (call,) = await edge.rows("call")
    assert (call["line_id"], call["state_code"], call["bindings"]) == (None, 8102, [])
    await edge.told("events", event("alerting", session, caller=A, called=B, userData=claim.line_id.hex + ".3"))
    (call,) = await edge.rows("call")
    assert (call["line_id"], call["bindings"]) == (claim.line_id, [claim.binding_id])
    assert [(kind, binding) for kind, binding, _ in await edge.events()] == [
        ("call.ended", None), ("call.ringing", claim.binding_id),
    ]  # fmt: skip


def _dialled(session: str, began: datetime, x: str, **whose: str) -> list[dict[str, object]]:
    """The events of a call to an extension: the first two do not say whose it is (contract 6.4)."""
    life = [
        event("callin", session, at=began, caller=C, called=x),
        event("collectInfo", session, at=began + timedelta(seconds=1), digitInfo="0001"),
    ]
    for place, step in enumerate(_STEPS[1:]):
        fields: dict[str, object] = {"caller": C, "called": A, **whose}
        life.append(event(step, session, at=began + timedelta(seconds=2 + place), **fields))
    return life


@pytest.mark.parametrize("whose", ["mark", "subscription"])
async def test_whose_the_beginning_of_a_call_is_shows_later(edge: Edge, whose: str) -> None:
    """In AXE the first event that names the line has the beginning told, to all who share the line; once."""
    await edge.configure("UPDATE app SET mode = 'axe'")
    claim = await edge.pairs.active()
    mate = await edge.pairs.joined(claim)
    named = {"userData": claim.line_id.hex} if whose == "mark" else {"subscriptionId": "sub-" + claim.line_id.hex}
    began = datetime.now(UTC).replace(microsecond=0)
    pushes = _dialled(session_id(), began, edge.x(), **named)
    for push in pushes[:2]:
        await edge.told("events", push)
        assert await edge.events() == []
    await edge.told("events", pushes[2])
    (started, other) = await edge.events()
    assert (started[0], {started[1], other[1]}) == ("call.started", {claim.binding_id, mate.binding_id})
    assert (datetime.fromisoformat(started[2]["at"]), started[2].get("late")) == (began, None)
    for push in (*pushes, *pushes):
        await edge.told("events", push)
    (call,) = await edge.rows("call")
    assert (call["line_id"], call["x"], call["extension"]) == (claim.line_id, edge.x(), "0001")
    assert call["found_by"] == ("token" if whose == "mark" else "subscription")
    told = [(kind, binding) for kind, binding, _ in await edge.events()]
    kinds = ("call.started", "call.ringing", "call.answered", "call.ended")
    assert sorted(told) == sorted((kind, one.binding_id) for kind in kinds for one in (claim, mate))


@pytest.mark.parametrize("seed", range(3))
async def test_a_dialled_call_is_told_the_same_in_any_order(edge: Edge, seed: int) -> None:
    """Shuffled and twice: four events, all the binding's."""
    await edge.configure("UPDATE app SET mode = 'axe'")
    claim = await edge.pairs.active()
    pushes = _dialled(session_id(), datetime.now(UTC), edge.x(), userData=claim.line_id.hex) * 2
    random.Random(seed).shuffle(pushes)  # noqa: S311 - a shuffle that can be repeated
    for push in pushes:
        assert await edge.push("events", push) == (200, b"")
    await edge.settled()
    assert sorted((kind, binding) for kind, binding, _ in await edge.events()) == [
        (kind, claim.binding_id) for kind in ("call.answered", "call.ended", "call.ringing", "call.started")
    ]


async def test_a_dialled_call_that_reaches_nobody(edge: Edge) -> None:
    """Its beginning is told with its end, as nobody's; it is not late."""
    await edge.configure("UPDATE app SET mode = 'axe'")
    pushes = _dialled(session_id(), datetime.now(UTC), edge.x())
    await edge.told("events", pushes[0])
    assert await edge.events() == []
    await edge.told("events", pushes[-1])
    assert [(kind, binding, data.get("late")) for kind, binding, data in await edge.events()] == [
        ("call.started", None, None), ("call.ended", None, None),
    ]  # fmt: skip


async def test_what_comes_after_a_later_phase_says_so(edge: Edge) -> None:
    """Each phase is told once, with its own time; one that is told after a later one is late, and only such a one."""
    claim = await edge.pairs.active()
    pushes = _life(session_id(), f"{claim.line_id.hex}.1", datetime.now(UTC).replace(microsecond=0), edge.x())
    for place in (3, 0, 4, 2):
        await edge.told("events", pushes[place])
    assert [(kind, data.get("late")) for kind, _, data in await edge.events()] == [
        ("call.answered", None), ("call.started", True), ("call.ended", None), ("call.ringing", True),
    ]  # fmt: skip


async def test_calls_end_a_binding_where_the_app_says_so(edge: Edge) -> None:
    """The pushes themselves, in any order: an end that is told before its beginning leaves no call running."""
    await edge.configure("UPDATE app SET end_after_call_s = 300")
    claim = await edge.pairs.active()
    pushes = _life(session_id(), f"{claim.line_id.hex}.1", datetime.now(UTC) - timedelta(seconds=25), edge.x())
    left = "SELECT extract(epoch FROM expires_at - broker_now()) BETWEEN 1 AND 300 FROM binding WHERE id = $1"
    await edge.told("events", pushes[0])
    assert not await edge.shop.value(left, claim.binding_id)
    await edge.told("events", pushes[4])
    await edge.told("events", pushes[3])
    assert await edge.shop.value(left, claim.binding_id)
    assert await edge.shop.value("SELECT running = '{}' FROM binding_end")


async def test_a_moved_binding_keeps_the_calls_of_both_its_places(edge: Edge) -> None:
    """What went through the old X before the move is its own, and through the new one after it; told late, too."""
    claim = await edge.pairs.active()
    began = datetime.now(UTC)
    moved, new = await edge.pairs.move(claim, 1)
    assert moved == "won"
    assert await edge.shop.bind(new) is not None
    assert (await edge.pairs.show(claim)).x_id == 1
    for x, line in ((edge.x(0), claim.line_id), (edge.x(1), new.line_id)):
        await edge.told("events", event("callin", session_id(), at=began, caller=A, called=x, userData=line.hex))
    assert await edge.pairs.end(claim, 2)
    await edge.shop.run("UPDATE held SET since = since - interval '1 hour', until = until + interval '2 minutes'")
    earlier = began - timedelta(seconds=30)
    await edge.told("events", event("callin", session_id(), at=earlier, caller=A, called=edge.x(0)))
    assert [binding for kind, binding, _ in await edge.events() if kind == "call.started"] == [claim.binding_id] * 3
    assert [call["line_id"] for call in await edge.rows("call")].count(claim.line_id) == 2


async def test_a_late_push_goes_to_who_had_the_line_then(edge: Edge) -> None:
    """Of two orders that shared a line one after the other, the call that was in the first one's time is only its."""
    claim = await edge.pairs.active()
    mate = await edge.pairs.joined(claim)
    await edge.pairs.release(claim)
    await edge.shop.run(
        "UPDATE binding SET created_at = created_at - interval '1 hour', ended_at = created_at - interval '20 minutes'"
        " WHERE id = $1", claim.binding_id,
    )  # fmt: skip
    await edge.shop.run(
        "UPDATE binding SET created_at = created_at - interval '10 minutes' WHERE id = $1", mate.binding_id
    )
    for minutes, whose in ((30, claim), (5, mate)):
        at = datetime.now(UTC) - timedelta(minutes=minutes)
        await edge.told(
            "cdr", fees(fee(session_id(), at=at, callerNum=A, bindNum=edge.x(), userData=claim.line_id.hex))
        )
        assert [cdr["bindings"] for cdr in await edge.rows("cdr") if cdr["at"] <= at][-1:] == [[whose.binding_id]]

"""What is learned from calls to an X that nobody is behind any more, and from calls that never get through."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest

from broker.store import learned
from broker.store.allocation import Claim
from tests.edge.rig import Edge, event, fee, fees, session_id
from tests.store.pairs import A, B, C
from tests.store.shop import QUARANTINE_S

_MINUTES = (1, 3, 100)


async def _over(edge: Edge, claim: Claim) -> None:
    await edge.pairs.release(claim)
    assert await edge.pairs.end(claim, 2)


def _nobody(edge: Edge, caller: str, at: datetime, **fields: object) -> dict[str, object]:
    """A record of a call without a binding (contract 6.5, 8.1)."""
    return fee(
        session_id(), at=at, talk_s=0, callerNum=caller, bindNum=edge.x(), direction=2, ulFailReason=519,
        callInTime=at.strftime("%Y-%m-%d %H:%M:%S"), fwdAnswerTime="", **fields,
    )  # fmt: skip


async def _counted(edge: Edge) -> learned.Learned:
    return (await learned.of_pools(edge.shop.db, [edge.shop.pool]))[edge.shop.pool]


async def _all_sampled(edge: Edge) -> None:
    """As much of the sample as there can be; the claims are made for it."""
    await edge.configure("UPDATE app SET sample_share = 0.1, sample_factor = 7")


async def _sampled(edge: Edge, *, inside: bool = True, x: int = 0) -> Claim:
    """An order whose line is in the sample, or not."""
    for _ in itertools.count():
        claim = edge.pairs.claim(A, B, x)
        if await edge.shop.value("SELECT sample_place($1) < 0.1", claim.line_id) is inside:
            return await edge.shop.active(claim)
    raise AssertionError


async def test_the_sample_rests_longer_and_is_counted(edge: Edge) -> None:
    """A release of the sample rests seven times as long, and is one of its pool's; any other rests as it is told."""
    await _all_sampled(edge)
    claim, other = await _sampled(edge), await _sampled(edge, inside=False, x=1)
    await _over(edge, claim)
    await _over(edge, other)
    rests = "SELECT max(extract(epoch FROM until - broker_now()))::float8 FROM slot WHERE line_id = $1"
    assert 6.5 * QUARANTINE_S < await edge.shop.value(rests, claim.line_id) <= 7 * QUARANTINE_S
    assert await edge.shop.value(rests, other.line_id) <= QUARANTINE_S
    (cohort,) = (await _counted(edge)).cohorts
    assert (cohort.releases, cohort.rest_s, sum(cohort.calls)) == (1, 7 * QUARANTINE_S, 0)


async def test_late_calls_are_counted_by_age_once(edge: Edge) -> None:
    """Whoever of the two calls, and however often the record comes: one call at its age, of the caller's last line."""
    await _all_sampled(edge)
    claim = await _sampled(edge)
    await _over(edge, claim)
    ended: datetime = await edge.shop.value("SELECT until FROM held")
    ended = ended.astimezone(UTC).replace(microsecond=0) + timedelta(seconds=1)
    records = [_nobody(edge, phone, ended + timedelta(minutes=n)) for phone in (A, B) for n in _MINUTES]
    await edge.told("cdr", fees(*records))
    await edge.told("cdr", fees(*records[::-1]))
    # Who never was on this X, and who talked, left nothing behind.
    await edge.told("cdr", fees(_nobody(edge, C, ended), fee(session_id(), callerNum=A, bindNum=edge.x())))
    known = await _counted(edge)
    (cohort,) = known.cohorts
    # 100 minutes are later than the sample rests: such a slot may be somebody's again.
    assert {place: n for place, n in enumerate(cohort.calls) if n} == {0: 2, 3: 2}
    assert {place: n for place, n in enumerate(known.outside) if n} == {13: 2}


async def test_calls_after_other_releases_are_kept_apart(edge: Edge) -> None:
    """They are hidden once their slot is used again, so they tell nothing of the rate."""
    await _all_sampled(edge)
    await _over(edge, await _sampled(edge, inside=False))
    await edge.told("cdr", fees(_nobody(edge, B, datetime.now(UTC) + timedelta(minutes=3))))
    known = await _counted(edge)
    assert (known.cohorts, sum(known.outside)) == ([], 1)


async def test_a_call_of_a_line_that_lives_is_nobodys_rest(edge: Edge) -> None:
    """The pair is bound again: its call is the new line's, whatever became of it."""
    await _all_sampled(edge)
    await _over(edge, await _sampled(edge))
    again = await edge.pairs.active()
    await edge.told("cdr", fees(_nobody(edge, A, datetime.now(UTC) + timedelta(seconds=5))))
    (cdr,) = await edge.rows("cdr")
    assert cdr["line_id"] == again.line_id
    known = await _counted(edge)
    assert sum(known.outside) + sum(sum(one.calls) for one in known.cohorts) == 0


async def test_very_short_rests_have_no_sample(edge: Edge) -> None:
    """A quarantine of less than a minute is one of tests."""
    await edge.configure("UPDATE app SET sample_share = 0.1, quarantine_s = 5")
    await _over(edge, await _sampled(edge))
    assert (await _counted(edge)).cohorts == []


async def _call(edge: Edge, claim: Claim, code: int, caller: str = A) -> None:
    session, mark = session_id(), claim.line_id.hex
    await edge.told("events", event("callin", session, caller=caller, called=edge.x(), userData=mark))
    await edge.told("events", event("disconnect", session, caller=caller, called=B, userData=mark, stateCode=code))


async def _told(edge: Edge) -> list[tuple[object, object, object]]:
    return [(b, d["party"], d["calls"]) for kind, b, d in await edge.events() if kind == "party.unreachable"]


async def test_a_party_whose_calls_are_all_intercepted_is_told_once(edge: Edge) -> None:
    """The third intercepted call of A tells of it, with every binding of the line; the fourth tells nothing new."""
    claim = await edge.pairs.active()
    second = await edge.pairs.joined(claim)
    for number in range(4):
        await _call(edge, claim, 7107)
        assert len(await _told(edge)) == (0 if number < 2 else 2)
    assert sorted(await _told(edge), key=str) == sorted([(one.binding_id, "a", 3) for one in (claim, second)], key=str)
    await edge.shop.run("UPDATE unreachable SET told_at = told_at - interval '25 hours'")
    await _call(edge, claim, 7107)
    assert len(await _told(edge)) == 4


@pytest.mark.parametrize("other", [0, 8102])
async def test_one_call_that_gets_through_says_enough(edge: Edge, other: int) -> None:
    """Whoever was answered, or only busy, was not intercepted; nor is anything told where the app wants none."""
    claim = await edge.pairs.active()
    await _call(edge, claim, other)
    for _ in range(3):
        await _call(edge, claim, 7107)
    assert await _told(edge) == []
    await edge.configure("UPDATE app SET unreachable_after = 0")
    second = await edge.shop.active(edge.pairs.claim(C, B, 1))
    for _ in range(3):
        await _call(edge, second, 7107, C)
    assert await _told(edge) == []


async def test_a_callee_who_does_not_exist_is_told(edge: Edge) -> None:
    """The called side can be the one that nobody reaches."""
    claim = await edge.pairs.active()
    for _ in range(3):
        await _call(edge, claim, 8100)
    assert await _told(edge) == [(claim.binding_id, "b", 3)]


async def test_what_is_old_is_forgotten(edge: Edge) -> None:
    """Days of more than a year ago, and tellings of more than a day ago."""
    claim = await edge.pairs.active()
    for _ in range(3):
        await _call(edge, claim, 8100)
    await edge.shop.run("UPDATE unreachable SET told_at = told_at - interval '25 hours'")
    await edge.shop.run(
        "INSERT INTO cooldown VALUES ($1, current_date - 500, 4200, 0.1, 1, array_fill(0::bigint, ARRAY[40]))",
        edge.shop.pool,
    )
    assert await learned.forget(edge.shop.db, limit=10) == 1
    assert await edge.shop.value("SELECT count(*) FROM cooldown") == 0

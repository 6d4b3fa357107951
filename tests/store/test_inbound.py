from __future__ import annotations

import asyncio

from broker.domain.ids import new_id
from broker.domain.quota import Quota
from broker.store.inbound import LiveClaim, LiveLimit, Take, claim_live, count_live, drop_claims, take_requests
from tests.store.shop import Shop

_HELD = "SELECT held FROM live_limit WHERE whose = 'caller' AND owner_id = $1"


def _slow(shop: Shop, *, per_s: float = 0.01) -> Quota:
    """A quota that gains nothing while the test runs."""
    return Quota("caller", shop.caller_id, per_s)


async def test_a_burst_is_granted_once_and_the_next_request_is_told_when(shop: Shop) -> None:
    """A window's worth may come at once; then nothing is granted, with the time until the next."""
    quota = _slow(shop)
    assert (quota.burst, quota.window_s) == (1, 100)
    (first,) = await take_requests(shop.db, [Take(quota, 1, 0)])
    assert (first.granted, first.remaining) == (1, 0)
    (second,) = await take_requests(shop.db, [Take(quota, 1, 0)])
    assert second.granted == 0
    assert 0 < second.wait_s <= 100


async def test_slices_are_large_far_from_the_limit_and_nothing_near_it(shop: Shop) -> None:
    """At most an eighth of what is left is taken ahead."""
    quota = Quota("caller", shop.caller_id, 1000.0)
    (first,) = await take_requests(shop.db, [Take(quota, 1, 10_000)])
    assert first.granted == 1 + (1000 - 1) // 8
    await shop.run("UPDATE request_quota SET full_at = clock_timestamp() + interval '996 ms'")
    (near,) = await take_requests(shop.db, [Take(quota, 1, 10_000)])
    assert 1 <= near.granted < first.granted


async def test_what_costs_more_than_the_burst_needs_all_of_it_and_is_charged_in_full(shop: Shop) -> None:
    """A batch larger than the burst passes when the quota is whole; those after it wait for all of its items."""
    quota = Quota("app", shop.app_id, 0.1)
    (batch,) = await take_requests(shop.db, [Take(quota, 50, 0)])
    assert batch.granted == 50
    (after,) = await take_requests(shop.db, [Take(quota, 1, 0)])
    assert after.granted == 0
    assert 400 < after.wait_s <= 500


async def test_many_takers_at_once_never_get_more_than_the_burst(shop: Shop) -> None:
    """Forty at once on eight connections get as many as there are, and one more only as time passes."""
    quota = Quota("caller", shop.caller_id, 10.0)
    await take_requests(shop.db, [Take(quota, 1, 0)])
    await shop.run("UPDATE request_quota SET full_at = clock_timestamp() - interval '1 hour'")
    began = await shop.value("SELECT extract(epoch FROM clock_timestamp())::double precision")
    taken = await asyncio.gather(*(take_requests(shop.db, [Take(quota, 1, 0)]) for _ in range(40)))
    ended = await shop.value("SELECT extract(epoch FROM clock_timestamp())::double precision")
    granted = sum(one.granted for (one,) in taken)
    assert 10 <= granted <= 10 + (ended - began) * 10 + 1


async def test_claims_are_exact_under_concurrency(shop: Shop) -> None:
    """Of forty claims at once on a limit of seven, seven are taken."""
    limit = LiveLimit("caller", shop.caller_id, 7)
    claims = [LiveClaim(new_id(), shop.pools, (limit,)) for _ in range(40)]
    answers = await asyncio.gather(*(claim_live(shop.db, [claim]) for claim in claims))
    assert sum(refusing is None for (refusing,) in answers) == 7
    assert await shop.value(_HELD, shop.caller_id) == 7
    taken = [claim for claim, (refusing,) in zip(claims, answers, strict=True) if refusing is None]
    await drop_claims(shop.db, [*taken[:3], *taken[:3]])
    assert await shop.value(_HELD, shop.caller_id) == 4
    again = await claim_live(shop.db, [LiveClaim(new_id(), shop.pools, (limit,)) for _ in range(5)])
    assert [refusing is None for refusing in again] == [True, True, True, False, False]


async def test_who_is_refused_by_one_limit_counts_against_none(shop: Shop) -> None:
    """A binding that the caller's limit refuses takes nothing of the app's."""
    app, caller = LiveLimit("app", shop.app_id, 10), LiveLimit("caller", shop.caller_id, 1)
    answers = await claim_live(shop.db, [LiveClaim(new_id(), shop.pools, (app, caller)) for _ in range(3)])
    assert answers == [None, caller, caller]
    held = await shop.value("SELECT held FROM live_limit WHERE whose = 'app' AND owner_id = $1", shop.app_id)
    assert held == 1


async def test_claims_without_a_binding_are_dropped_only_later(shop: Shop) -> None:
    """A claim stands while its binding may still come; two minutes later it does not count any more."""
    limit = LiveLimit("caller", shop.caller_id, 1)
    assert await claim_live(shop.db, [LiveClaim(new_id(), shop.pools, (limit,))]) == [None]
    assert await claim_live(shop.db, [LiveClaim(new_id(), shop.pools, (limit,))]) == [limit]
    await shop.run("UPDATE live_claim SET claimed_at = claimed_at - interval '3 minutes'")
    await shop.run("UPDATE live_limit SET looked_at = '-infinity'")
    assert await claim_live(shop.db, [LiveClaim(new_id(), shop.pools, (limit,))]) == [None]


_BINDINGS = """
INSERT INTO binding (pool_id, id, app_id, caller_id, line_id, state, ttl_s, created_at, moves)
SELECT $1, gen_random_uuid(), $2, $3, gen_random_uuid(), s.state, 60, clock_timestamp(), s.moves
FROM unnest($4::text[], $5::uuid[]) AS s (state, moves)
"""


async def test_bindings_from_before_the_limit_are_counted_in(shop: Shop) -> None:
    """Pending, active and releasing ones count, until they end; rows of a move do not."""
    states = ["pending", "active", "releasing", "released", "failed", "active"]
    moves = [None, None, None, None, None, new_id()]
    await shop.run(_BINDINGS, shop.pool, shop.app_id, shop.caller_id, states, moves)
    await shop.run("UPDATE caller SET max_live_bindings = 3 WHERE id = $1", shop.caller_id)
    while await count_live(shop.db, limit=2):
        pass
    assert await shop.value(_HELD, shop.caller_id) == 3
    limit = LiveLimit("caller", shop.caller_id, 3)
    assert await claim_live(shop.db, [LiveClaim(new_id(), shop.pools, (limit,))]) == [limit]
    await shop.run("UPDATE binding SET state = 'released' WHERE state = 'releasing'")
    await shop.run("UPDATE live_limit SET looked_at = '-infinity'")
    assert await claim_live(shop.db, [LiveClaim(new_id(), shop.pools, (limit,))]) == [None]
    assert await shop.value(_HELD, shop.caller_id) == 3


async def test_a_limit_taken_away_is_forgotten(shop: Shop) -> None:
    """Without a limit nothing is kept; another value keeps what has been counted."""
    await shop.run("UPDATE caller SET max_live_bindings = 3 WHERE id = $1", shop.caller_id)
    await claim_live(shop.db, [LiveClaim(new_id(), shop.pools, (LiveLimit("caller", shop.caller_id, 3),))])
    await shop.run("UPDATE caller SET max_live_bindings = 5 WHERE id = $1", shop.caller_id)
    assert await shop.value(_HELD, shop.caller_id) == 1
    await shop.run("UPDATE caller SET max_live_bindings = NULL WHERE id = $1", shop.caller_id)
    assert await shop.value("SELECT count(*) FROM live_claim") == 0

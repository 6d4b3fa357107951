from __future__ import annotations

import asyncio
from datetime import timedelta

import asyncpg
import pytest

from broker.domain.phone import PhoneNumber
from broker.store import calls
from broker.store.allocation import Claim
from broker.store.bindings import ReleaseAsk, Releasing, release, show
from broker.store.calls import Extension
from broker.store.crypto import DataKey, Vault
from tests.store.shop import LEASE_S, QUARANTINE_S, TTL_S, Shop, ended, key_of

_A, _B, _C = 11, 22, 33


async def _release(shop: Shop, *claims: Claim, app_id: int | None = None) -> list[Releasing | None]:
    asks = [ReleaseAsk(c.pool_id, c.binding_id, app_id or shop.app_id) for c in claims]
    return await release(shop.db, asks, reason="released", lease_s=LEASE_S)


def _rests(shop_slots: dict[int, float | None], seconds: float) -> bool:
    return all(left is not None and seconds - 5 < left <= seconds for left in shop_slots.values())


async def test_settle_bound_makes_line_and_binding_active(shop: Shop) -> None:
    """A confirmed bind: line and binding are active with the same end, ttl_s after the confirmation."""
    claim = await shop.won(shop.claim(_A, _B))
    result = await shop.bind(claim)
    assert result is not None
    assert result.line_state == "active"
    line, binding = await shop.row("line", claim.line_id), await shop.row("binding", claim.binding_id)
    assert (line["state"], binding["state"]) == ("active", "active")
    assert line["expires_at"] == binding["expires_at"] == result.confirmed_at + timedelta(seconds=TTL_S)
    assert line["subscription_id"] == "sub-" + claim.line_id.hex
    assert line["sweep_at"] <= line["expires_at"]
    assert await shop.calls_of(claim) == [(1, "bind", "settled", 1)]
    assert await shop.slots_of(claim) == {_A: None, _B: None}


async def test_only_a_plain_first_bind_leaves_no_row(shop: Shop) -> None:
    """One that did nothing but succeed is told by its line alone; one that had another owner keeps its row."""
    plain, taken = await shop.won(shop.claim(_A, _B)), await shop.won(shop.claim(_A, _C, 1), lease_s=-1.0)
    (call,) = await calls.claim(shop.db, limit=10, lease_s=LEASE_S)
    assert call.key.line_id == taken.line_id
    result = await shop.bind(plain)
    assert result is not None
    assert await shop.bind(plain) is None
    assert await shop.bind(taken, token=2) is not None
    kept = await shop.db.fetch("SELECT line_id, token, outcome FROM platform_call")
    assert [tuple(row) for row in kept] == [(taken.line_id, 2, "done")]
    told = await shop.db.fetchrow("SELECT * FROM every_call WHERE line_id = $1", plain.line_id)
    assert told is not None
    assert (told["no"], told["attempt"], told["outcome"]) == (1, 1, "done")
    assert told["created_at"] <= told["settled_at"] == result.confirmed_at
    assert await shop.wrong_books() == []


async def test_a_line_without_ttl_never_expires(shop: Shop) -> None:
    """ttl_s 0: no end, and the sweep never looks at it."""
    claim = await shop.active(shop.claim(_A, _B, ttl_s=0))
    line, binding = await shop.row("line", claim.line_id), await shop.row("binding", claim.binding_id)
    assert (line["expires_at"], line["sweep_at"], binding["expires_at"]) == (None, None, None)


async def test_an_old_token_changes_nothing(shop: Shop) -> None:
    """Whoever does not hold the newest token neither settles nor extends, and nothing at all is changed."""
    claim = await shop.won(shop.claim(_A, _B), lease_s=-1.0)
    (taken,) = await calls.claim(shop.db, limit=10, lease_s=LEASE_S)
    assert (taken.key, taken.attempt) == (key_of(claim, token=2), 1)
    before = await shop.contents()
    assert await shop.bind(claim, token=1) is None
    assert not await shop.end(claim, no=1, token=1)
    assert await calls.extend(shop.db, [Extension(key_of(claim, token=1), 5, 60, 500, "x")]) == [None]
    assert not await shop.end(claim, no=2, token=1)
    assert await shop.contents() == before
    assert await shop.bind(claim, token=2) is not None
    settled = await shop.contents()
    assert await shop.bind(claim, token=2) is None
    assert not await shop.end(claim, no=1, token=2)
    assert await shop.contents() == settled


async def test_of_a_mixed_batch_only_our_own_calls_are_settled(shop: Shop) -> None:
    """In one statement the calls that are ours are settled and the others are named by None, in order."""
    ours, lost, gone = [await shop.won(shop.claim(100 + n, 200 + n)) for n in range(3)]
    assert await shop.end(gone, no=1)
    items = [ended(lost, no=1, token=7), ended(ours, no=1), ended(gone, no=1)]
    first, second, third = await calls.settle_ended(shop.db, items)
    assert (first, third) == (None, None)
    assert second is not None
    assert await shop.slots_of(lost) == {101: None, 201: None}


async def test_settle_ended_rests_both_parties_exactly(shop: Shop) -> None:
    """The end of a line frees its seat and lets both parties, and nobody else, rest on its X for the time given."""
    await shop.test_clock()
    claim, neighbour = await shop.active(shop.claim(_A, _B)), await shop.active(shop.claim(_A, _C, 1))
    assert [r is not None and r.to_send for r in await _release(shop, claim)] == [True]
    assert await shop.end(claim, no=2, rest_s=QUARANTINE_S)
    row = await shop.db.fetchrow(
        """
        SELECT min(extract(epoch FROM s.until - b.ended_at)) AS least,
               max(extract(epoch FROM s.until - b.ended_at)) AS most
        FROM slot AS s JOIN binding AS b USING (line_id) WHERE s.line_id = $1
        """,
        claim.line_id,
    )
    assert row is not None
    assert (row["least"], row["most"]) == (QUARANTINE_S, QUARANTINE_S)
    line, binding = await shop.row("line", claim.line_id), await shop.row("binding", claim.binding_id)
    assert (line["state"], line["seat"], line["sweep_at"]) == ("released", None, None)
    assert (binding["state"], binding["reason"]) == ("released", "released")
    assert await shop.slots_of(neighbour) == {_A: None, _C: None}
    assert await shop.wrong_books() == []


async def test_an_ended_line_does_not_touch_its_successors_slots(shop: Shop) -> None:
    """Slots that the pair's next line took over are not put to rest by anything that ends the old line."""
    old = await shop.won(shop.claim(_A, _B))
    assert await shop.end(old, no=1)
    new = await shop.won(shop.claim(_A, _B))
    # A late outcome for the old line, as if its call had been open still.
    await shop.run("UPDATE platform_call SET state = 'open', settled_at = NULL WHERE line_id = $1", old.line_id)
    assert await shop.end(old, no=1)
    assert await shop.slots_of(new) == {_A: None, _B: None}


async def test_a_refused_bind_fails_the_binding(shop: Shop) -> None:
    """A bind that the platform refused ends line and binding as failed, with the reason and the last answer."""
    claim = await shop.won(shop.claim(_A, _B))
    item = ended(claim, no=1, state="failed", rest_s=30)
    (at,) = await calls.settle_ended(shop.db, [item])
    assert at is not None
    line, binding = await shop.row("line", claim.line_id), await shop.row("binding", claim.binding_id)
    assert (line["state"], line["seat"]) == ("failed", None)
    assert (binding["state"], binding["reason"], binding["ended_at"]) == ("failed", "released", at)
    assert _rests(await shop.slots_of(claim), 30)


async def test_released_while_pending_the_unbind_follows_the_bind(shop: Shop) -> None:
    """A release during the bind sends nothing yet; settling the bind creates the unbind call, which ends the line."""
    claim = await shop.won(shop.claim(_A, _B))
    (begun,) = await _release(shop, claim)
    assert begun is not None
    assert not begun.to_send
    assert await shop.calls_of(claim) == [(1, "bind", "open", 1)]
    result = await shop.bind(claim)
    assert result is not None
    assert result.line_state == "releasing"
    assert await shop.calls_of(claim) == [(1, "bind", "settled", 1), (2, "unbind", "open", 1)]
    assert (await shop.row("binding", claim.binding_id))["state"] == "releasing"
    assert await shop.slots_of(claim) == {_A: None, _B: None}
    assert await shop.end(claim, no=2)
    assert _rests(await shop.slots_of(claim), QUARANTINE_S)
    assert (await shop.row("binding", claim.binding_id))["state"] == "released"
    assert await shop.wrong_books() == []


async def test_released_while_pending_a_refused_bind_ends_as_released(shop: Shop) -> None:
    """If the bind is refused after its release was asked for, line and binding end as released: nothing was bound."""
    claim = await shop.won(shop.claim(_A, _B))
    await _release(shop, claim)
    await calls.settle_ended(shop.db, [ended(claim, no=1, state="failed")])
    assert (await shop.row("line", claim.line_id))["state"] == "released"
    binding = await shop.row("binding", claim.binding_id)
    assert (binding["state"], binding["reason"]) == ("released", "released")


async def test_release_of_an_active_binding_is_ours_to_send(shop: Shop) -> None:
    """An active binding's release creates call 2 with token 1, and the answer has what sending it needs."""
    claim = await shop.active(shop.claim(_A, _B))
    (begun,) = await _release(shop, claim)
    assert begun is not None
    assert (begun.line_id, begun.no, begun.to_send) == (claim.line_id, 2, True)
    assert begun.subscription_id == "sub-" + claim.line_id.hex
    assert begun.x == await shop.value("SELECT number FROM x_number WHERE pool_id = $1 AND x_id = 0", shop.pool)
    assert await shop.calls_of(claim) == [(1, "bind", "settled", 1), (2, "unbind", "open", 1)]
    assert (await shop.row("line", claim.line_id))["sweep_at"] is None


async def test_release_of_anything_else_changes_nothing(shop: Shop) -> None:
    """Released already, ended, of another app, or unknown: not returned, nothing changed, and neighbours are served."""
    releasing, over, foreign, mine = [await shop.active(shop.claim(100 + n, 200 + n)) for n in range(4)]
    await _release(shop, releasing)
    await _release(shop, over)
    await shop.end(over)
    unknown = shop.claim(1, 2)
    before = await shop.contents()
    assert await _release(shop, releasing, over, unknown) == [None] * 3
    assert await _release(shop, foreign, app_id=shop.app_id + 1) == [None]
    assert await shop.contents() == before
    answers = await _release(shop, over, mine, unknown)
    assert [answer is not None for answer in answers] == [False, True, False]


async def test_a_release_and_a_confirmation_at_once_lose_nothing(shop: Shop) -> None:
    """Whichever comes first, exactly one unbind call follows a line that is released while its bind is confirmed."""
    for n in range(25):
        claim = await shop.won(shop.claim(100 + n, 200 + n, n % 4))
        (begun,), bound = await asyncio.gather(_release(shop, claim), shop.bind(claim))
        assert bound is not None
        if begun is None:
            (begun,) = await _release(shop, claim)
        assert begun is not None
        assert begun.to_send != (bound.line_state == "releasing")
        assert await shop.calls_of(claim) == [(1, "bind", "settled", 1), (2, "unbind", "open", 1)]
        assert (await shop.row("binding", claim.binding_id))["state"] == "releasing"
    assert await shop.wrong_books() == []


async def test_show_returns_what_exists(shop: Shop) -> None:
    """Bindings are read with their line and opened numbers; unknown ids are left out."""
    vault = Vault((DataKey(1, bytes(32)),), bytes(32))
    plain = shop.claim(_A, _B)
    claim = await shop.active(
        plain._replace(
            a_sealed=vault.seal("line", "a", plain.pool_id, plain.line_id, "+8613900000001"),
            b_sealed=vault.seal("line", "b", plain.pool_id, plain.line_id, "+8613900000002"),
        )
    )
    key, unknown = (claim.pool_id, claim.binding_id), (claim.pool_id, claim.line_id)
    found = await show(shop.db, vault, [unknown, key])
    assert set(found) == {key}
    assert found[key].state == "active"
    assert (found[key].a, found[key].b) == (PhoneNumber("+8613900000001"), PhoneNumber("+8613900000002"))


async def test_claim_takes_over_only_what_nobody_owns(shop: Shop) -> None:
    """Calls whose lease ended are taken with a new token, oldest first, up to the limit; no leased or settled ones."""
    late = [await shop.won(shop.claim(100 + n, 200 + n), lease_s=-60.0 + n) for n in range(3)]
    leased = await shop.won(shop.claim(_A, _B), lease_s=60)
    settled = await shop.won(shop.claim(1, 2), lease_s=-90)
    await shop.bind(settled)
    first = await calls.claim(shop.db, limit=2, lease_s=60)
    assert {call.key.line_id for call in first} == {claim.line_id for claim in late[:2]}
    assert {(call.key.token, call.attempt, call.op, call.line_state) for call in first} == {(2, 1, "bind", "pending")}
    second = await calls.claim(shop.db, limit=10, lease_s=-1)
    assert [call.key.line_id for call in second] == [late[2].line_id]
    (third,) = await calls.claim(shop.db, limit=10, lease_s=60)
    assert (third.key, third.attempt) == (key_of(late[2], token=3), 2)
    assert await calls.claim(shop.db, limit=10, lease_s=60) == []
    assert await shop.calls_of(leased) == [(1, "bind", "open", 1)]


async def test_claimants_at_once_share_without_overlap(shop: Shop) -> None:
    """Many claimants at once: every call goes to exactly one of them, and the limit is kept."""
    made = [shop.claim(1000 + n, 2000 + n) for n in range(60)]
    await shop.reserve(*made, lease_s=-1.0)
    shares = await asyncio.gather(*(calls.claim(shop.db, limit=20, lease_s=60) for _ in range(6)))
    taken = [call.key.line_id for share in shares for call in share]
    assert all(len(share) <= 20 for share in shares)
    assert len(taken) == len(set(taken))
    taken += [call.key.line_id for call in await calls.claim(shop.db, limit=60, lease_s=60)]
    assert sorted(taken) == sorted(claim.line_id for claim in made)


async def test_claim_does_not_wait_for_a_row_that_is_being_settled(shop: Shop, database_url: str) -> None:
    """A call that somebody is settling at that moment is passed over, not waited for."""
    claim = await shop.won(shop.claim(_A, _B), lease_s=-1.0)
    other = await asyncpg.connect(database_url)
    try:
        async with other.transaction():
            await other.execute("SELECT FROM platform_call WHERE line_id = $1 FOR UPDATE", claim.line_id)
            assert await calls.claim(shop.db, limit=10, lease_s=60) == []
    finally:
        await other.close()
    assert len(await calls.claim(shop.db, limit=10, lease_s=60)) == 1


async def test_extend_keeps_the_lease_and_notes_the_answer(shop: Shop) -> None:
    """Renewing puts off the take-over and keeps the last answer unless there is a newer one."""
    claim = await shop.won(shop.claim(_A, _B), lease_s=-1.0)
    key = key_of(claim)
    assert await calls.extend(shop.db, [Extension(key, 1, 60, 500, "1010010")]) == ["pending"]
    assert await calls.extend(shop.db, [Extension(key, 2, 60)]) == ["pending"]
    assert await calls.claim(shop.db, limit=10, lease_s=60) == []
    row = await shop.db.fetchrow("SELECT attempt, http, code, token FROM platform_call")
    assert row is not None
    assert tuple(row) == (2, 500, "1010010", 1)


_GRACE_S = 30


async def test_sweep_ends_expired_lines_and_rests_their_parties(shop: Shop) -> None:
    """An expired line ends without a call, after the grace only; both parties rest for the app's quarantine."""
    await shop.test_clock()
    claim, later = await shop.active(shop.claim(_A, _B)), await shop.active(shop.claim(_A, _C, 1, ttl_s=2 * TTL_S))
    await shop.advance(TTL_S - 5)
    assert await calls.sweep(shop.db, limit=10, grace_s=_GRACE_S) == (0, 0, 0)
    await shop.advance(10)
    assert await calls.sweep(shop.db, limit=10, grace_s=_GRACE_S) == (0, 0, 0)
    assert (await shop.row("line", claim.line_id))["state"] == "active"
    await shop.advance(_GRACE_S)
    assert await calls.sweep(shop.db, limit=10, grace_s=_GRACE_S) == (1, 0, 0)
    line, binding = await shop.row("line", claim.line_id), await shop.row("binding", claim.binding_id)
    assert (line["state"], line["seat"], line["sweep_at"]) == ("released", None, None)
    assert (binding["state"], binding["reason"]) == ("released", "expired")
    assert await shop.calls_of(claim) == [(1, "bind", "settled", 1)]
    assert _rests(await shop.slots_of(claim), QUARANTINE_S)
    assert await shop.slots_of(later) == {_A: None, _C: None}
    assert await shop.wrong_books() == []


async def test_sweep_withdraws_a_bind_that_outlived_its_ttl(shop: Shop) -> None:
    """A bind still pending after its ttl is withdrawn: slots stay live, and its settling undoes what came late."""
    await shop.test_clock()
    claim = await shop.won(shop.claim(_A, _B))
    await shop.advance(TTL_S + 1)
    assert await calls.sweep(shop.db, limit=10, grace_s=_GRACE_S) == (0, 1, 0)
    assert await calls.sweep(shop.db, limit=10, grace_s=_GRACE_S) == (0, 0, 0)
    binding = await shop.row("binding", claim.binding_id)
    assert (binding["state"], binding["reason"]) == ("releasing", "withdrawn")
    assert await shop.slots_of(claim) == {_A: None, _B: None}
    result = await shop.bind(claim)
    assert result is not None
    assert result.line_state == "releasing"
    assert await shop.end(claim, no=2)
    binding = await shop.row("binding", claim.binding_id)
    assert (binding["state"], binding["reason"]) == ("released", "withdrawn")
    assert await shop.wrong_books() == []


async def test_sweep_looks_again_at_a_line_confirmed_late(shop: Shop) -> None:
    """A line that was confirmed long after its reservation lives its whole ttl from the confirmation on."""
    await shop.test_clock()
    claim = await shop.won(shop.claim(_A, _B))
    await shop.advance(TTL_S - 10)
    assert await shop.bind(claim) is not None
    await shop.advance(60)
    assert await calls.sweep(shop.db, limit=10, grace_s=_GRACE_S) == (0, 0, 0)
    line = await shop.row("line", claim.line_id)
    assert line["state"] == "active"
    assert (line["sweep_at"] - line["expires_at"]).total_seconds() == _GRACE_S
    await shop.advance(TTL_S)
    assert await calls.sweep(shop.db, limit=10, grace_s=_GRACE_S) == (1, 0, 0)


async def test_sweep_works_in_slices_and_several_at_once(shop: Shop) -> None:
    """A slice takes no more than its limit, sweeps at once never end a line twice, and together they end all."""
    await shop.test_clock()
    made = [shop.claim(1000 + n, 2000 + n) for n in range(50)]
    await shop.reserve(*made)
    for claim in made:
        await shop.bind(claim)
    await shop.advance(TTL_S + 60)
    assert await calls.sweep(shop.db, limit=5, grace_s=_GRACE_S) == (5, 0, 0)
    slices = await asyncio.gather(*(calls.sweep(shop.db, limit=10, grace_s=_GRACE_S) for _ in range(8)))
    assert all(expired <= 10 for expired, *_ in slices)
    rest, *_ = await calls.sweep(shop.db, limit=100, grace_s=_GRACE_S)
    assert 5 + sum(expired for expired, *_ in slices) + rest == len(made)
    assert await shop.wrong_books() == []


async def test_a_releasing_line_is_not_swept(shop: Shop) -> None:
    """A line whose unbind is under way is left to that call, however long it takes."""
    await shop.test_clock()
    claim = await shop.active(shop.claim(_A, _B))
    await _release(shop, claim)
    await shop.advance(10 * TTL_S)
    assert await calls.sweep(shop.db, limit=10, grace_s=_GRACE_S) == (0, 0, 0)
    assert await shop.slots_of(claim) == {_A: None, _B: None}


@pytest.mark.parametrize("first", ["sweep", "release"])
async def test_a_sweep_and_a_release_at_once(shop: Shop, first: str) -> None:
    """An expired binding ends once: by the sweep, or by the release whose call is then on its way."""
    await shop.test_clock()
    claim = await shop.active(shop.claim(_A, _B))
    await shop.advance(TTL_S + _GRACE_S + 1)
    if first == "sweep":
        assert await calls.sweep(shop.db, limit=10, grace_s=_GRACE_S) == (1, 0, 0)
        assert await _release(shop, claim) == [None]
    else:
        (begun,) = await _release(shop, claim)
        assert begun is not None
        assert await calls.sweep(shop.db, limit=10, grace_s=_GRACE_S) == (0, 0, 0)
    assert await shop.wrong_books() == []

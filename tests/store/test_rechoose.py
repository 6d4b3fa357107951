from __future__ import annotations

import asyncpg
import pytest

from broker.domain.ids import new_id
from broker.store import allocation, bindings
from broker.store.allocation import Claim, LockMode, Rechoice
from broker.store.bindings import ReleaseAsk
from tests.store.shop import LEASE_S, QUARANTINE_S, Shop, key_of

_A, _B, _C = 11, 22, 33
_BAR_S = 120.0


def _other_x(claim: Claim, x: int, *, token: int = 1, cap: int = 500) -> Rechoice:
    return Rechoice(
        pool_id=claim.pool_id, old_line=claim.line_id, no=1, token=token, bar_s=_BAR_S, outcome="refused", http=403,
        code="1012010", x_id=x, cap=cap, line_id=new_id(), a_sealed=b"new a", b_sealed=b"new b",
        chosen="pack:longest_rest",
    )  # fmt: skip


async def _rechoose(shop: Shop, item: Rechoice, mode: LockMode = LockMode.WAIT) -> str:
    return await allocation.rechoose(shop.db, item, mode=mode, lease_s=LEASE_S)


async def test_a_pending_binding_moves_to_another_x(shop: Shop) -> None:
    """The binding keeps its id and words; its old line fails and rests, a new one has the next X and call."""
    old = await shop.won(shop.claim(_A, _B))
    before = await shop.row("binding", old.binding_id)
    item = _other_x(old, 1)
    assert await _rechoose(shop, item) == "won"
    after = await shop.row("binding", old.binding_id)
    assert after == {**before, "line_id": item.line_id, "chosen": item.chosen}
    line, gone = await shop.row("line", item.line_id), await shop.row("line", old.line_id)
    assert (line["state"], line["x_id"], line["a_key"], line["b_key"]) == ("pending", 1, _A, _B)
    assert (line["a_sealed"], line["b_sealed"], line["ttl_s"]) == (b"new a", b"new b", old.ttl_s)
    assert (gone["state"], gone["seat"], gone["sweep_at"]) == ("failed", None, None)
    for left in (await shop.slots_of(old)).values():
        assert left is not None
        assert _BAR_S - 5 < left <= _BAR_S
    call = await shop.db.fetchrow(
        "SELECT state, outcome, http, code FROM platform_call WHERE line_id = $1", old.line_id
    )
    assert call is not None
    assert tuple(call) == ("settled", "refused", 403, "1012010")
    open_calls = await shop.db.fetch("SELECT line_id, no, op, token FROM platform_call WHERE state = 'open'")
    assert [tuple(row) for row in open_calls] == [(item.line_id, 1, "bind", 1)]
    assert await shop.wrong_books() == []


async def test_the_given_up_x_is_barred(shop: Shop) -> None:
    """An X given up after a refusal is barred for both parties until the bar ends, with each other too."""
    await shop.test_clock()
    old = await shop.won(shop.claim(_A, _B))
    assert await _rechoose(shop, _other_x(old, 1)) == "won"
    assert await shop.reserve(shop.claim(_A, _C)) == ["barred"]
    assert await shop.reserve(shop.claim(_A, _B)) == ["barred"]
    await shop.advance(_BAR_S + 1)
    assert await shop.reserve(shop.claim(_A, _C)) == ["won"]


async def test_whoever_lost_the_call_rechooses_nothing(shop: Shop) -> None:
    """With an old token, or after the call was settled, nothing is changed."""
    claim = await shop.won(shop.claim(_A, _B))
    before = await shop.contents()
    assert await _rechoose(shop, _other_x(claim, 1, token=2)) == "superseded"
    assert await shop.contents() == before
    await shop.bind(claim)
    before = await shop.contents()
    assert await _rechoose(shop, _other_x(claim, 1)) == "superseded"
    assert await shop.contents() == before


async def test_a_binding_released_meanwhile_is_not_moved(shop: Shop) -> None:
    """If its release was asked for, the refused bind is simply the end: released, and no new line."""
    claim = await shop.won(shop.claim(_A, _B))
    ask = ReleaseAsk(claim.pool_id, claim.binding_id, shop.app_id)
    await bindings.release(shop.db, [ask], reason="released", lease_s=LEASE_S)
    assert await _rechoose(shop, _other_x(claim, 1)) == "released"
    binding = await shop.row("binding", claim.binding_id)
    assert (binding["state"], binding["reason"]) == ("released", "released")
    assert await shop.value("SELECT count(*) FROM line") == 1
    assert await shop.value("SELECT count(*) FROM platform_call WHERE state = 'open'") == 0
    assert await shop.wrong_books() == []


async def test_another_x_that_is_not_available_changes_nothing(shop: Shop) -> None:
    """Barred, full or closed: the reason is told and every table is as before, the old line's slots live."""
    claim = await shop.won(shop.claim(_A, _B))
    await shop.won(shop.claim(_A, _C, 1))
    await shop.won(shop.claim(71, 72, 2, cap=1))
    await shop.run("UPDATE x_number SET state = 'frozen' WHERE pool_id = $1 AND x_id = 3", shop.pool)
    before = await shop.contents()
    assert await _rechoose(shop, _other_x(claim, 1)) == "barred"
    assert await _rechoose(shop, _other_x(claim, 2, cap=1)) == "full"
    assert await _rechoose(shop, _other_x(claim, 3)) == "closed"
    assert await shop.contents() == before
    assert await shop.slots_of(claim) == {_A: None, _B: None}
    assert await shop.bind(claim) is not None


@pytest.mark.parametrize("mode", [LockMode.TRY, LockMode.WAIT])
async def test_a_party_locked_elsewhere_makes_it_busy(shop: Shop, database_url: str, mode: LockMode) -> None:
    """While a party is being claimed elsewhere the move is busy, tried or waited for, and changes nothing."""
    claim = await shop.won(shop.claim(_A, _B))
    before = await shop.contents()
    other = await asyncpg.connect(database_url)
    try:
        async with other.transaction():
            await other.execute("SELECT pg_advisory_xact_lock(party_lock($1, $2))", shop.pool, _B)
            assert await _rechoose(shop, _other_x(claim, 1), mode) == "busy"
    finally:
        await other.close()
    assert await shop.contents() == before
    assert await _rechoose(shop, _other_x(claim, 1), mode) == "won"


async def test_a_moved_binding_lives_on_as_any(shop: Shop) -> None:
    """The new line is confirmed, released and rested like one that was never moved."""
    old = await shop.won(shop.claim(_A, _B))
    item = _other_x(old, 1)
    assert await _rechoose(shop, item) == "won"
    new = old._replace(line_id=item.line_id, x_id=1)
    assert not await shop.end(old, no=1)
    assert await shop.bind(new) is not None
    ask = ReleaseAsk(new.pool_id, new.binding_id, shop.app_id)
    (begun,) = await bindings.release(shop.db, [ask], reason="released", lease_s=LEASE_S)
    assert begun is not None
    assert begun.line_id == key_of(new).line_id
    assert await shop.end(new)
    assert all(left is not None and left > QUARANTINE_S - 5 for left in (await shop.slots_of(new)).values())
    assert await shop.wrong_books() == []

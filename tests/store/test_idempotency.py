from __future__ import annotations

import asyncio

from broker.store.idempotency import Finish, KeyAsk, KeyState, Stored, begin, finish, forget, sweep
from tests.store.shop import Shop, with_key

_DAY_S = 24 * 3600
_ANSWER = Stored(201, "/v1/bindings/bnd_1", b'{"id":"bnd_1"}')


def _ask(shop: Shop, name: bytes = b"key", *, request: bytes = b"request", busy_s: float = 30.0) -> KeyAsk:
    return KeyAsk(shop.app_id, shop.caller_id, name, request, busy_s)


async def _begin(shop: Shop, ask: KeyAsk) -> KeyState:
    (state,) = await begin(shop.db, [ask])
    return state


async def test_a_fresh_key_is_ours_and_its_twin_waits(shop: Shop) -> None:
    """The first request owns the key; a twin meanwhile owns nothing and finds nothing stored."""
    assert await _begin(shop, _ask(shop)) == KeyState(token=1, made=None, same=True, stored=None)
    assert await _begin(shop, _ask(shop)) == KeyState(token=None, made=None, same=True, stored=None)


async def test_a_kept_answer_is_replayed(shop: Shop) -> None:
    """After finish every repeat gets the answer, byte by byte, and a second finish is refused."""
    ask = _ask(shop)
    await _begin(shop, ask)
    assert await finish(shop.db, [Finish(ask, 1, _ANSWER)]) == [True]
    assert await _begin(shop, ask) == KeyState(token=None, made=None, same=True, stored=_ANSWER)
    assert await finish(shop.db, [Finish(ask, 1, Stored(500, None, b"other"))]) == [False]
    assert (await _begin(shop, ask)).stored == _ANSWER


async def test_another_request_under_the_key_is_told_apart(shop: Shop) -> None:
    """The same key with another request is reported as such, answered or not, and never takes the key over."""
    ask = _ask(shop, busy_s=-1.0)
    other = _ask(shop, request=b"another request")
    await _begin(shop, ask)
    assert await _begin(shop, other) == KeyState(token=None, made=None, same=False, stored=None)
    await finish(shop.db, [Finish(ask, 1, _ANSWER)])
    state = await _begin(shop, other)
    assert (state.token, state.same) == (None, False)


async def test_a_twin_takes_over_after_busy_until_and_inherits(shop: Shop) -> None:
    """Once the first try's time is over a twin owns the key with a new token, and is told what that try had made."""
    await shop.test_clock()
    await _begin(shop, _ask(shop, busy_s=30))
    made = await shop.won(with_key(shop.claim(1, 2), b"key", 1))
    await shop.advance(29)
    assert (await _begin(shop, _ask(shop))).token is None
    await shop.advance(2)
    state = await _begin(shop, _ask(shop))
    assert state == KeyState(token=2, made=(made.pool_id, made.binding_id), same=True, stored=None)
    late = Finish(_ask(shop), 1, _ANSWER)
    assert await finish(shop.db, [late]) == [False]
    await forget(shop.db, _ask(shop), 1)
    assert (await _begin(shop, _ask(shop))).token is None
    assert await finish(shop.db, [Finish(_ask(shop), 2, _ANSWER)]) == [True]


async def test_a_forgotten_key_is_free_for_the_next_try(shop: Shop) -> None:
    """After a failure that is not kept, the next request owns the key at once; an answered key is not forgotten."""
    await _begin(shop, _ask(shop))
    await forget(shop.db, _ask(shop), 1)
    assert (await _begin(shop, _ask(shop))).token == 2
    await finish(shop.db, [Finish(_ask(shop), 2, _ANSWER)])
    await forget(shop.db, _ask(shop), 2)
    assert (await _begin(shop, _ask(shop))).stored == _ANSWER


async def test_after_a_day_a_key_is_new(shop: Shop) -> None:
    """24 hours after it was first used, a key means a new request, also a different one, and nothing is inherited."""
    await shop.test_clock()
    ask = _ask(shop)
    await _begin(shop, ask)
    await shop.won(with_key(shop.claim(1, 2), b"key", 1))
    await finish(shop.db, [Finish(ask, 1, _ANSWER)])
    await shop.advance(_DAY_S - 1)
    assert (await _begin(shop, ask)).stored == _ANSWER
    await shop.advance(2)
    state = await _begin(shop, _ask(shop, request=b"another request"))
    assert state.token is not None
    assert (state.made, state.stored) == (None, None)
    # The old owner, a day late, cannot answer for the new one.
    assert await finish(shop.db, [Finish(ask, 1, _ANSWER)]) == [False]
    await shop.advance(_DAY_S - 60)
    assert (await _begin(shop, ask)).same is False


async def test_keys_belong_to_their_caller(shop: Shop) -> None:
    """The same key of another caller or app is another key."""
    await _begin(shop, _ask(shop))
    for ask in (
        KeyAsk(shop.app_id, shop.caller_id + 1, b"key", b"request", 30),
        KeyAsk(shop.app_id + 1, shop.caller_id, b"key", b"request", 30),
    ):
        assert (await _begin(shop, ask)).token == 1


async def test_a_batch_is_answered_in_order(shop: Shop) -> None:
    """One statement serves fresh, busy and answered keys together, in the order asked."""
    answered, busy = _ask(shop, b"answered"), _ask(shop, b"busy")
    await begin(shop.db, [answered, busy])
    await finish(shop.db, [Finish(answered, 1, _ANSWER)])
    states = await begin(shop.db, [busy, _ask(shop, b"new 2"), answered, _ask(shop, b"new 1")])
    assert [(state.token, state.stored) for state in states] == [(None, None), (1, None), (None, _ANSWER), (1, None)]
    kept = await finish(
        shop.db, [Finish(_ask(shop, b"new 1"), 9, _ANSWER), Finish(busy, 1, _ANSWER), Finish(answered, 1, _ANSWER)]
    )
    assert kept == [False, True, False]


async def test_of_many_twins_at_once_one_owns_the_key(shop: Shop) -> None:
    """Twins at the same moment, in batches of their own: each key has exactly one owner, and nobody fails."""
    asks = [_ask(shop, b"key %d" % n) for n in range(10)]
    answers = await asyncio.gather(*(begin(shop.db, asks[::step]) for step in (1, -1, 1, -1, 1, -1)))
    owners = [state.token for states in answers for state in states if state.token is not None]
    assert owners == [1] * len(asks)
    assert all(state.same and state.stored is None for states in answers for state in states)


async def test_sweep_deletes_what_is_over_a_day_old(shop: Shop) -> None:
    """Records are swept in slices an hour after their day; younger ones stay."""
    await shop.test_clock()
    await begin(shop.db, [_ask(shop, b"old %d" % n) for n in range(5)])
    await shop.advance(_DAY_S + 3601)
    await _begin(shop, _ask(shop, b"young"))
    await sweep(shop.db, limit=3)
    assert (await shop.counts())["idempotency"] == 3
    await sweep(shop.db, limit=30)
    assert await shop.value("SELECT array_agg(key_hash) FROM idempotency") == [b"young"]


async def test_old_records_go_slice_by_slice(shop: Shop) -> None:
    """A sweep says how much it deleted, so that the service goes on at once while there is more."""
    await shop.run(
        "INSERT INTO idempotency (app_id, caller_id, key_hash, request_hash, busy_until, created_at)"
        " SELECT 1, 1, int8send(g), 'x', now(), now() - interval '3 days' FROM generate_series(1, 7) g"
    )
    assert [await sweep(shop.db, limit=5) for _ in range(3)] == [5, 2, 0]

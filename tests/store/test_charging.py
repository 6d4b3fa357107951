from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from broker.domain.quota import Left, Quota, limit_header, policy_header
from broker.flows.batching import Batcher
from broker.flows.inbound import Inbound
from broker.store.inbound import Take, Taken, take_requests
from broker.store.registry import Key
from tests.store.shop import Shop


class _Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def _gate(shop: Shop, clock: _Clock) -> tuple[Inbound, list[Take]]:
    asked: list[Take] = []

    async def take(items: Sequence[Take]) -> list[Taken]:
        asked.extend(items)
        return await take_requests(shop.db, items)

    return Inbound(Batcher("take", take), clock), asked


def _key(app: Any, caller_id: int, rate: float | None) -> Key:
    return Key(app, caller_id, "main", frozenset(), requests_per_s=rate)


class _App:
    id = 1
    requests_per_s: float | None = None


def test_policies_are_told_in_whole_seconds() -> None:
    """A rate below one is told over as many seconds as one request takes; r and t say what is left."""
    fast, slow = Quota("caller", 1, 2.5), Quota("app", 1, 0.3)
    assert policy_header([Left(fast, 1), Left(slow, 0)]) == '"caller";q=2;w=1, "app";q=1;w=4'
    assert limit_header([Left(fast, 1), Left(slow, 0)]) == '"caller";r=1;t=1, "app";r=0;t=4'


async def test_who_has_no_limit_costs_nothing(shop: Shop) -> None:
    """No statement, no standing."""
    gate, asked = _gate(shop, _Clock())
    assert await gate.charge(_key(_App(), shop.caller_id, None)) is None
    assert asked == []


async def test_a_slice_taken_ahead_saves_statements_and_is_given_up_in_time(shop: Shop) -> None:
    """Many requests within a slice's life take few statements; what is left of it is not used later."""
    clock = _Clock()
    gate, asked = _gate(shop, clock)
    key = _key(_App(), shop.caller_id, 10_000.0)
    for _ in range(200):
        standing = await gate.charge(key)
        assert standing is not None
        assert standing.wait_s is None
    assert len(asked) < 20
    before = len(asked)
    clock.now += 1.0
    await gate.charge(key)
    assert len(asked) == before + 1


async def test_who_is_over_the_limit_costs_one_statement(shop: Shop) -> None:
    """Until something can be had again the instance refuses by itself; larger requests do not shut smaller ones out."""
    clock = _Clock()
    gate, asked = _gate(shop, clock)
    key = _key(_App(), shop.caller_id, 0.01)
    first = await gate.charge(key)
    assert first is not None
    assert first.wait_s is None
    for _ in range(10):
        standing = await gate.charge(key)
        assert standing is not None
        assert standing.wait_s is not None
        assert standing.left[0].remaining == 0
    assert len(asked) == 2

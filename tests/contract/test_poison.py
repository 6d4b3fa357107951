"""Requests of which some are poisonous: whoever stands beside them in a batch or arrives with them is served."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import pytest

from tests.contract.service import Answer, Client, Json, phone

_BATCH = "/v1/bindings:batch"
_NEIGHBOURS = 20


def _good() -> Json:
    return {"a": phone(), "b": phone()}


def _bad_number(_x: list[str]) -> Json:
    return {"a": "+86139-0000-0001", "b": phone()}


def _unknown_pool(_x: list[str]) -> Json:
    return {**_good(), "pool": "atlantis"}


def _oversized_metadata(_x: list[str]) -> Json:
    return {**_good(), "metadata": {"k": "v" * 2048}}


def _own_x(x: list[str]) -> Json:
    return {"a": x[0], "b": x[1]}


_ITEMS: dict[str, tuple[Callable[[list[str]], Json], set[str]]] = {
    "bad number": (_bad_number, {"/a"}),
    "unknown pool": (_unknown_pool, {"/pool"}),
    "oversized metadata": (_oversized_metadata, {"/metadata"}),
    "pair of our own X": (_own_x, {"/a", "/b"}),
}


async def _our_x(client: Client) -> list[str]:
    a = phone()
    return [(await client.bind(a=a)).body["x"] for _ in range(2)]


async def _check(client: Client, kinds: list[str], beside: Callable[[], Awaitable[None]]) -> None:
    """Send a batch with these kinds among good items, ``beside`` at the same time; each fares as it would alone."""
    ours = await _our_x(client)
    assert len(set(ours)) == 2
    items: list[Json] = []
    for place in range(_NEIGHBOURS):
        items.append(_good())
        if place < len(kinds):
            items.append(_ITEMS[kinds[place]][0](ours))
    answer, _ = await asyncio.gather(client.ask("POST", _BATCH, {"items": items}), beside())
    assert answer.status == 200, answer.raw
    told: list[Any] = answer.body["items"]
    assert len(told) == len(items)
    bad = {2 * place + 1: kind for place, kind in enumerate(kinds)}
    for place, (item, outcome) in enumerate(zip(items, told, strict=True)):
        if place not in bad:
            assert (outcome["status"], outcome["binding"]["state"]) == (201, "active")
            continue
        problem = outcome["problem"]
        assert (outcome["status"], problem["code"]) == (422, "validation_failed")
        assert {error["pointer"] for error in problem["errors"]} == _ITEMS[bad[place]][1]
        alone = (await client.ask("POST", "/v1/bindings", data=orjson.dumps(item))).body
        assert {**problem, "instance": ""} == {**alone, "instance": ""}
    held = {binding["a"] for binding in await client.platform_bindings()}
    assert {item["a"] for place, item in enumerate(items) if place not in bad} <= held


async def _nothing() -> None:
    pass


def _used_key(client: Client) -> Callable[[], Awaitable[None]]:
    """A key that has its request already, sent with others: alone, and over a whole batch."""
    key = {"Idempotency-Key": uuid.uuid4().hex}

    async def send() -> None:
        first = await client.bind(headers=key)
        assert first.status == 201
        asked: list[Awaitable[Answer]] = [client.bind(headers=key) for _ in range(10)]
        asked.append(client.ask("POST", _BATCH, {"items": [_good()]}, headers=key))
        for answer in await asyncio.gather(*asked):
            answer.problem(422, "idempotency_key_reused")

    return send


@pytest.mark.parametrize("kind", _ITEMS)
async def test_each_kind_alone(client: Client, kind: str) -> None:
    """One bad item has the problem that it would have alone; all its neighbours are bound."""
    await _check(client, [kind], _nothing)


async def test_a_used_key_alone(client: Client) -> None:
    """Requests under a key that was used for another one are refused; a batch beside them is bound."""
    await _check(client, [], _used_key(client))


async def test_all_kinds_together(client: Client) -> None:
    """A batch with every kind of bad item, used keys beside it: all good items are bound."""
    await _check(client, [*_ITEMS], _used_key(client))

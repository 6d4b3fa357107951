"""Bindings of the same pair share a line: who joins, what each sees, and when the line ends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from broker.cli.demo import TONE
from tests.contract.service import Answer, Client, eventually, phone


async def _ops(client: Client, *parties: str) -> list[str]:
    """What the platform did for lines of these two, without look-ups."""
    rows = [row for row in await client.ledger() if {row["a"], row["b"]} == set(parties) and row["op"] != "query"]
    return [row["op"] for row in rows]


async def _release(client: Client, *bindings: str) -> None:
    for binding in bindings:
        answer = await client.ask("DELETE", f"/v1/bindings/{binding}")
        assert (answer.status, answer.body["state"]) == (200, "released"), answer.raw


async def _reached(client: Client, x: str, *callers: str) -> list[str | None]:
    return [(await client.call(caller, x))["connected_to"] for caller in callers]


async def test_the_same_pair_shares_a_line(client: Client) -> None:
    """A second order of a pair joins: its own id, the same line and X, shared on both; the platform sees one bind."""
    a, b = phone(), phone()
    first = (await client.bind(a=a, b=b, order_id="one")).body
    assert first["shared"] is False
    answer = await client.bind(a=a, b=b, order_id="two", ttl_s=600, user_data="own", metadata={"k": 2})
    assert answer.status == 201
    second = answer.body
    assert second["id"] != first["id"]
    same = ("line", "x", "a", "b", "platform_binding_id", "pool")
    assert {name: second[name] for name in same} == {name: first[name] for name in same}
    assert (second["shared"], second["order_id"], second["ttl_s"], second["user_data"]) == (True, "two", 600, "own")
    assert await client.show(second["id"]) == second
    assert await client.show(first["id"]) == first | {"shared": True}
    assert await _ops(client, a, b) == ["bind"]


async def test_each_delete_ends_its_own_binding(client: Client) -> None:
    """The line ends with the last: one unbind at the platform, and until then both are reached."""
    a, b = phone(), phone()
    three = [(await client.bind(a=a, b=b)).body for _ in range(3)]
    x = three[0]["x"]
    await _release(client, three[1]["id"], three[0]["id"])
    assert await _reached(client, x, a, b) == [b, a]
    last = await client.show(three[2]["id"])
    assert (last["state"], last["shared"]) == ("active", False)
    assert (await client.show(three[0]["id"]))["reason"] == "released"
    await _release(client, three[2]["id"])
    assert await _reached(client, x, a, b) == [None, None]
    assert await _ops(client, a, b) == ["bind", "unbind"]
    again = (await client.bind(a=a, b=b)).body
    assert again["line"] != three[0]["line"]


async def test_a_pair_is_unordered_when_both_may_call(client: Client) -> None:
    """Bound the other way round, each order sees its own a and b, and the tones of its own sides, on one line."""
    a, b = phone(), phone()
    both = {"caller": TONE, "callee": TONE}
    first = (await client.bind(a=a, b=b, tones=both)).body
    second = (await client.bind(a=b, b=a, tones=both)).body
    assert second["line"] == first["line"]
    assert (second["a"], second["b"]) == (first["b"], first["a"])
    assert await client.show(second["id"]) == second
    answer = await client.ask("PATCH", f"/v1/bindings/{second['id']}", {"tones": {"caller": None}})
    assert answer.body["tones"] == {"caller": None, "callee": TONE}
    assert (await client.show(first["id"]))["tones"] == {"caller": TONE, "callee": None}


async def test_tones_that_differ_by_side_keep_pairs_ordered(client: Client) -> None:
    """With another tone for each side, only the same pair the same way round joins."""
    a, b = phone(), phone()
    first = (await client.bind(a=a, b=b, tones={"caller": TONE})).body
    assert (await client.bind(a=a, b=b, tones={"caller": TONE})).body["line"] == first["line"]
    assert (await client.bind(a=b, b=a, tones={"caller": TONE})).body["line"] != first["line"]


async def test_a_change_of_the_flipped_side(client: Client) -> None:
    """What remains of a line that was bound the other way is changed as its order sees it."""
    a, b, new = phone(), phone(), phone()
    first = (await client.bind(a=a, b=b)).body
    second = (await client.bind(a=b, b=a)).body
    await _release(client, first["id"])
    path, x = f"/v1/bindings/{second['id']}", second["x"]
    answer = await client.ask("PATCH", path, {"direction": "a_to_b", "tones": {"caller": TONE}})
    assert (answer.status, answer.body["direction"]) == (200, "a_to_b"), answer.raw
    assert answer.body["tones"] == {"caller": TONE, "callee": None}
    assert await _reached(client, x, b, a) == [a, None]
    answer = await client.ask("PATCH", path, {"b": new})
    assert (answer.status, answer.body["b"][-4:], answer.body["a"]) == (200, new[-4:], second["a"])
    assert await _reached(client, x, b, new, a) == [new, None, None]
    ended = await client.show(first["id"])
    assert (ended["a"], ended["b"], ended["direction"]) == (first["a"], first["b"], "both")


@pytest.mark.parametrize("direction", ["a_to_b", "b_to_a"])
async def test_a_pair_is_ordered_when_one_may_call(client: Client, direction: str) -> None:
    """With a direction, only the same pair the same way round joins."""
    a, b = phone(), phone()
    first = (await client.bind(a=a, b=b, direction=direction)).body
    assert (await client.bind(a=a, b=b, direction=direction)).body["line"] == first["line"]
    assert (await client.bind(a=b, b=a, direction=direction)).body["line"] != first["line"]


@pytest.mark.parametrize(
    "different",
    [
        {"share": False},
        {"direction": "a_to_b"},
        {"recording": {"enabled": True}},
        {"recording": {"enabled": True, "hint_tone": TONE}},
        {"max_call_minutes": 5},
        {"max_call_minutes": 5, "last_minute_tone": TONE},
        {"sms": True},
        {"sms": False},
        {"tones": {"caller": TONE}},
        {"pool": "shenzhen"},
    ],
)
async def test_other_options_get_a_line_of_their_own(client: Client, different: dict[str, Any]) -> None:
    """Different options, another pool or share: false is another line; equal ones join."""
    a, b = phone(), phone()
    plain = (await client.bind(a=a, b=b, pool="beijing")).body
    other = (await client.bind(**({"a": a, "b": b, "pool": "beijing"} | different))).body
    assert other["line"] != plain["line"]
    assert (other["shared"], (await client.show(plain["id"]))["shared"]) == (False, False)
    twin = (await client.bind(**({"a": a, "b": b, "pool": "beijing"} | different))).body
    assert (twin["line"] == other["line"]) is ("share" not in different)


async def test_nobody_joins_a_line_that_is_not_shared(client: Client) -> None:
    """share: false holds for those that come later, too."""
    a, b = phone(), phone()
    alone = (await client.bind(a=a, b=b, share=False)).body
    later = (await client.bind(a=a, b=b)).body
    assert later["line"] != alone["line"]
    assert (await client.bind(a=a, b=b)).body["line"] == later["line"]


async def test_items_of_a_batch_share(client: Client) -> None:
    """Items of the same pair in one batch share a line; released together they are one unbind."""
    a, b = phone(), phone()
    items = [
        {"a": a, "b": b},
        {"a": b, "b": a},
        {"a": a, "b": phone()},
        {"a": a, "b": b},
        {"a": a, "b": b, "share": False},
    ]
    answer = await client.ask("POST", "/v1/bindings:batch", {"items": items})
    assert [item["status"] for item in answer.body["items"]] == [201] * 5, answer.raw
    bound = [item["binding"] for item in answer.body["items"]]
    assert len({bound[place]["line"] for place in (0, 1, 3)}) == 1
    assert len({one["line"] for one in bound}) == 3
    assert await _ops(client, a, b) == ["bind", "bind"]
    ids = [one["id"] for one in bound]
    released = await client.ask("POST", "/v1/bindings:batch-release", {"ids": [*ids, ids[0]]})
    assert [item["status"] for item in released.body["items"]] == [200] * 6, released.raw
    assert sorted(await _ops(client, a, b)) == ["bind", "bind", "unbind", "unbind"]
    assert await client.platform_of(a) == []


async def test_twins_at_once_share(client: Client) -> None:
    """Twenty binds of a pair at the same time, over both workers: one line, one bind; twenty releases, one unbind."""
    a, b = phone(), phone()
    answers = await asyncio.gather(*(client.bind(a=a, b=b, headers={"Connection": "close"}) for _ in range(20)))
    assert {answer.status for answer in answers} == {201}
    assert len({answer.body["line"] for answer in answers}) == 1
    assert len({answer.body["id"] for answer in answers}) == 20

    async def release(answer: Answer) -> Answer:
        return await client.ask("DELETE", answer.headers["Location"], headers={"Connection": "close"})

    ended = await asyncio.gather(*map(release, answers))
    assert {answer.status for answer in ended} == {200}
    assert await _ops(client, a, b) == ["bind", "unbind"]


async def test_joining_a_line_that_is_being_bound(client: Client) -> None:
    """While the first bind waits, a second one joins and is answered by the same confirmation, or fails with it."""
    a, b = phone(), phone()
    await client.fault("bind", "delay", ms=700, when="before", count=1)
    first = asyncio.create_task(client.bind(a=a, b=b, headers={"Request-Timeout": "20"}))
    await eventually(client.fault_hits, "the bind waits at the platform")
    second = await client.bind(a=a, b=b, headers={"Request-Timeout": "20"})
    assert (second.status, (await first).status) == (201, 201)
    assert second.body["line"] == (await first).body["line"]
    assert await _ops(client, a, b) == ["bind"]


async def test_parties_and_direction_of_a_shared_line_stay(client: Client) -> None:
    """409 line_shared for a, b and direction; with on_conflict the binding alone gets another X."""
    a, b, new = phone(), phone(), phone()
    first = (await client.bind(a=a, b=b)).body
    second = (await client.bind(a=a, b=b)).body
    path = f"/v1/bindings/{first['id']}"
    for patch in ({"a": new}, {"b": new}, {"direction": "a_to_b"}):
        (await client.ask("PATCH", path, patch)).problem(409, "line_shared")
    answer = await client.ask("PATCH", path, {"b": new, "on_conflict": "rebind"})
    assert answer.status == 200, answer.raw
    moved = answer.body
    assert (moved["shared"], moved["line"] == first["line"], moved["x"] == first["x"]) == (False, False, False)
    assert await _reached(client, moved["x"], a, new) == [new, a]
    assert await _reached(client, first["x"], a, b) == [b, a]
    assert await client.show(second["id"]) == second | {"shared": False}
    assert await _ops(client, a, b) == ["bind"]


async def test_what_is_own_and_what_is_the_lines(client: Client) -> None:
    """ttl_s, user_data and metadata are each order's own; an option is the line's: all see it, with another ETag."""
    a, b = phone(), phone()
    first = (await client.bind(a=a, b=b)).body
    second = (await client.bind(a=a, b=b, user_data="mine")).body
    path, other = f"/v1/bindings/{first['id']}", f"/v1/bindings/{second['id']}"
    tag = (await client.ask("GET", other)).headers["ETag"]
    own = await client.ask("PATCH", path, {"ttl_s": 600, "user_data": "yours"})
    assert own.status == 200
    assert await client.show(second["id"]) == second
    assert (await client.ask("GET", other)).headers["ETag"] == tag
    assert (await client.ask("PATCH", path, {"sms": False})).status == 200
    assert await client.show(second["id"]) == second | {"sms": False}
    (await client.ask("PATCH", other, {"user_data": "x"}, headers={"If-Match": tag})).problem(
        412, "precondition_failed"
    )
    assert (await client.bind(a=a, b=b)).body["line"] != first["line"]
    assert (await client.bind(a=a, b=b, sms=False)).body["line"] == first["line"]

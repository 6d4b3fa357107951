"""Finding bindings by order, X, state and party, page by page."""

from __future__ import annotations

import re
import uuid
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from tests.contract.service import Answer, Client, Json, Tenant, phone

_LIST = "/v1/bindings"
_SEARCH = "/v1/bindings:search"


async def _list(client: Client, **filters: Any) -> Answer:
    answer = await client.ask("GET", f"{_LIST}?{urlencode(filters)}")
    assert answer.status == 200, answer.raw
    return answer


async def _search(client: Client, **filters: Any) -> list[Json]:
    answer = await client.ask("POST", _SEARCH, filters)
    assert answer.status == 200, answer.raw
    return list(answer.body["items"])


def _ids(answer: Answer) -> list[str]:
    return [item["id"] for item in answer.body["items"]]


async def _pages(client: Client, path: str) -> list[list[str]]:
    """Follow rel="next" to the end."""
    pages = []
    while path:
        answer = await client.ask("GET", path)
        assert answer.status == 200, answer.raw
        pages.append(_ids(answer))
        link = re.fullmatch(r'<([^>]+)>; rel="next"', answer.headers.get("Link", "<>"))
        path = link[1] if link else ""
        assert bool(path) == (answer.body["next_cursor"] is not None)
    return pages


async def test_by_order(client: Client) -> None:
    """An order's bindings come newest first, ended ones too, each as GET shows it; state narrows them."""
    order = f"listing {uuid.uuid4().hex}&=+"
    made = [(await client.bind(order_id=order)).body["id"] for _ in range(3)]
    await client.ask("DELETE", f"/v1/bindings/{made[0]}")
    answer = await _list(client, order_id=order)
    assert _ids(answer) == made[::-1]
    assert "Link" not in answer.headers
    assert answer.body["items"] == [await client.show(binding) for binding in made[::-1]]
    assert _ids(await _list(client, order_id=order, state="released")) == made[:1]
    assert _ids(await _list(client, order_id=order, state="active")) == made[:0:-1]
    assert _ids(await _list(client, order_id=order, state="failed")) == []


async def test_pages_follow_rel_next(client: Client) -> None:
    """Following Link gives every binding once, in order; what is bound meanwhile does not disturb it."""
    order = uuid.uuid4().hex
    made = [(await client.bind(order_id=order)).body["id"] for _ in range(7)]
    first = await _list(client, order_id=order, limit=3)
    await client.bind(order_id=order)
    link = first.headers["Link"].split(">")[0][1:]
    assert [_ids(first), *await _pages(client, link)] == [made[:3:-1], made[3:0:-1], made[:1]]
    assert await _pages(client, f"{_LIST}?order_id={order}&limit=8") == [_ids(await _list(client, order_id=order))]


async def test_all_of_the_app(client: Client) -> None:
    """Without filters all bindings of the app come newest first, over all its pools, 50 to a page."""
    made = [(await client.bind(pool=("beijing", "shenzhen")[n % 2])).body["id"] for n in range(6)]
    answer = await _list(client)
    assert _ids(answer)[:6] == made[::-1]
    everything = [found for page in await _pages(client, f"{_LIST}?limit=200") for found in page]
    assert everything[:6] == made[::-1]
    assert len(set(everything)) == len(everything)
    assert everything == sorted(everything, reverse=True)


async def test_by_x(client: Client) -> None:
    """Who is, or was, behind an X: with the + as %2B, as + (decoded to a blank) and in a search."""
    live, ended = (await client.bind(pool="shenzhen")).body, (await client.bind(pool="shenzhen")).body
    await client.ask("DELETE", f"/v1/bindings/{ended['id']}")
    for written in (quote(live["x"]), live["x"]):
        answer = await client.ask("GET", f"{_LIST}?x={written}&state=active&limit=200")
        assert live["id"] in _ids(answer)
        assert {item["x"] for item in answer.body["items"]} == {live["x"]}
        assert {item["state"] for item in answer.body["items"]} == {"active"}
    released = [found for page in await _pages(client, f"{_LIST}?x={ended['x']}&state=released") for found in page]
    assert ended["id"] in released
    assert live["id"] in {found["id"] for found in await _search(client, x=live["x"], limit=200)}
    assert _ids(await _list(client, x="+8613000000000")) == []


async def test_by_party(client: Client) -> None:
    """A search finds a party on either side, live and ended, and nobody else; a URL takes no party."""
    party = phone()
    as_a, as_b = (await client.bind(a=party)).body["id"], (await client.bind(b=party, order_id="mine")).body["id"]
    await client.bind()
    await client.ask("DELETE", f"/v1/bindings/{as_a}")
    assert [found["id"] for found in await _search(client, party=party)] == [as_b, as_a]
    assert [found["id"] for found in await _search(client, party=party, state="active")] == [as_b]
    assert [found["id"] for found in await _search(client, party=party, order_id="mine")] == [as_b]
    assert await _search(client, party=phone()) == []
    refused = await client.ask("GET", f"{_LIST}?party={quote(party)}")
    assert refused.pointers() == {"/party"}
    assert party.encode() not in refused.raw


async def test_search_pages_by_cursor(client: Client) -> None:
    """A search hands its cursor out in the body, for the same filters only."""
    party = phone()
    made = [(await client.bind(a=party)).body["id"] for _ in range(3)]
    first = (await client.ask("POST", _SEARCH, {"party": party, "limit": 2})).body
    assert [found["id"] for found in first["items"]] == made[:0:-1]
    cursor = first["next_cursor"]
    second = (await client.ask("POST", _SEARCH, {"party": party, "limit": 2, "cursor": cursor})).body
    assert ([found["id"] for found in second["items"]], second["next_cursor"]) == (made[:1], None)
    other = await client.ask("POST", _SEARCH, {"party": phone(), "cursor": cursor})
    assert other.pointers() == {"/cursor"}


async def test_cursors_cannot_be_made(client: Client, other: Tenant) -> None:
    """A cursor that was changed, made up, or given to another app or for other filters is refused."""
    order = uuid.uuid4().hex
    for _ in range(2):
        await client.bind(order_id=order)
    cursor = (await _list(client, order_id=order, limit=1)).body["next_cursor"]
    changed = ("A" if cursor[0] != "A" else "B") + cursor[1:]
    for bad in (changed, "x", "ü" * 10, "A" * 43, cursor + "A"):
        answer = await client.ask("GET", f"{_LIST}?{urlencode({'order_id': order, 'cursor': bad})}")
        assert answer.pointers() == {"/cursor"}, bad
    assert (await client.ask("GET", f"{_LIST}?cursor={cursor}")).pointers() == {"/cursor"}
    theirs = await client.ask("GET", f"{_LIST}?order_id={order}&cursor={cursor}", key=other.keys["main"])
    assert theirs.pointers() == {"/cursor"}


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("limit=0", "/limit"),
        ("limit=201", "/limit"),
        ("limit=-1", "/limit"),
        ("limit=many", "/limit"),
        ("limit=", "/limit"),
        ("limit=99999999999999999999", "/limit"),
        ("state=asleep", "/state"),
        ("x=075512345", "/x"),
        ("order_id=", "/order_id"),
        ("order_id=" + "x" * 129, "/order_id"),
        ("order_id=%00", "/order_id"),
        ("nonsense=1", "/nonsense"),
        ("limit=1&limit=2", "/limit"),
        ("cursor=", "/cursor"),
    ],
)
async def test_bad_filters_are_named(client: Client, query: str, pointer: str) -> None:
    """A filter that is none, or out of its range, is a 422 with its name."""
    assert (await client.ask("GET", f"{_LIST}?{query}")).pointers() == {pointer}


async def test_another_app_sees_nothing(client: Client, other: Tenant) -> None:
    """Neither order, X nor party finds another app's binding."""
    party, order = phone(), uuid.uuid4().hex
    bound = (await client.bind(a=party, order_id=order)).body
    key = other.keys["main"]
    for filters in ({}, {"order_id": order}, {"x": bound["x"]}, {"x": bound["x"], "state": "active"}):
        answer = await client.ask("GET", f"{_LIST}?{urlencode(filters)}", key=key)
        assert (answer.status, answer.body) == (200, {"items": [], "next_cursor": None})
    found = await client.ask("POST", _SEARCH, {"party": party}, key=key)
    assert (found.status, found.body["items"]) == (200, [])

"""``POST /v1/bindings:hand-over``: a courier's live bindings become another's."""

from __future__ import annotations

import uuid
from typing import Any

from tests.contract.service import Answer, Client, Tenant, phone


async def _hand_over(client: Client, old: str, new: str, **more: Any) -> Answer:
    return await client.ask("POST", "/v1/bindings:hand-over", {"from": old, "to": new, **more})


async def _items(client: Client, old: str, new: str, **more: Any) -> dict[str, dict[str, Any]]:
    answer = await _hand_over(client, old, new, **more)
    assert answer.status == 200, answer.raw
    return {item["binding"]["id"]: item for item in answer.body["items"]}


async def _reached(client: Client, x: str, *callers: str) -> list[str | None]:
    return [(await client.call(caller, x))["connected_to"] for caller in callers]


async def test_every_live_binding_moves(client: Client) -> None:
    """On whichever side the courier stands, the new one takes the place; X stays, what has ended stays."""
    old, new, b, c, d = (phone() for _ in range(5))
    first = (await client.bind(a=old, b=b)).body
    second = (await client.bind(a=c, b=old, direction="b_to_a")).body
    ended = (await client.bind(a=old, b=d)).body
    await client.ask("DELETE", f"/v1/bindings/{ended['id']}")
    items = await _items(client, old, new)
    assert set(items) == {first["id"], second["id"]}
    assert all((item["status"], "problem" in item) == (200, False) for item in items.values())
    masked = f"+86*******{new[-4:]}"
    assert items[first["id"]]["binding"] == first | {"a": masked}
    assert items[second["id"]]["binding"] == second | {"b": masked}
    assert await _reached(client, first["x"], new, b, old) == [b, new, None]
    assert await _reached(client, second["x"], new, c, old) == [c, None, None]
    assert (await client.show(ended["id"]))["a"] == ended["a"]
    assert await _items(client, old, new) == {}


async def test_a_dry_run_changes_nothing(client: Client) -> None:
    """It says what would be done, by the same rules, and the platform hears nothing."""
    old, new, b = phone(), phone(), phone()
    free = (await client.bind(a=old, b=b, pool="shenzhen")).body
    barred = (await client.bind(a=old, b=phone(), pool="beijing")).body
    await client.behind(new, barred["x"], "beijing")
    before = (await client.ledger())[-1]["seq"]
    items = await _items(client, old, new, dry_run=True)
    assert (items[free["id"]]["status"], items[free["id"]]["would"]) == (200, "change")
    assert (items[barred["id"]]["status"], items[barred["id"]]["problem"]["code"]) == (409, "party_barred")
    items = await _items(client, old, new, dry_run=True, on_conflict="rebind")
    assert {item["would"] for item in items.values()} == {"change", "rebind"}
    assert await client.show(free["id"]) == free
    assert [row for row in await client.ledger(before) if row["a"] in {old, new}] == []


async def test_where_the_new_one_is_barred(client: Client) -> None:
    """The binding stays as it is and says why, and the others move; with on_conflict it gets another X."""
    old, new, b, c = phone(), phone(), phone(), phone()
    barred = (await client.bind(a=old, b=b, pool="beijing")).body
    free = (await client.bind(a=old, b=c, pool="shenzhen")).body
    await client.behind(new, barred["x"], "beijing")
    items = await _items(client, old, new)
    assert (items[barred["id"]]["status"], items[barred["id"]]["problem"]["code"]) == (409, "party_barred")
    assert items[barred["id"]]["binding"] == barred
    assert items[free["id"]]["status"] == 200
    assert await _reached(client, barred["x"], old, b) == [b, old]
    (item,) = (await _items(client, old, new, on_conflict="rebind")).values()
    assert (item["status"], item["binding"]["x"] != barred["x"]) == (200, True)
    assert await _reached(client, item["binding"]["x"], new, b, old) == [b, new, None]


async def test_bindings_of_a_line_move_together(client: Client) -> None:
    """Orders that share a line share it afterwards: one modify; where it is barred each gets an X of its own."""
    old, new, b = phone(), phone(), phone()
    first = (await client.bind(a=old, b=b, pool="beijing")).body
    second = (await client.bind(a=b, b=old, pool="beijing")).body
    before = (await client.ledger())[-1]["seq"]
    items = await _items(client, old, new)
    assert {item["status"] for item in items.values()} == {200}
    assert {item["binding"]["line"] for item in items.values()} == {first["line"]}
    assert items[second["id"]]["binding"]["b"] == f"+86*******{new[-4:]}"
    assert [row["op"] for row in await client.ledger(before) if row["x"] == first["x"]] == ["modify"]
    third = phone()
    await client.behind(third, first["x"], "beijing")
    refused = await _items(client, new, third)
    assert {item["problem"]["code"] for item in refused.values()} == {"party_barred"}
    moved = await _items(client, new, third, on_conflict="rebind")
    assert {item["status"] for item in moved.values()} == {200}, moved
    for item in moved.values():
        assert item["binding"]["x"] != first["x"]
        assert await _reached(client, item["binding"]["x"], third, b, new) == [b, third, None]


async def test_to_the_other_side_is_no_hand_over(client: Client) -> None:
    """A binding between the two couriers themselves stays, dry run or not, and is not bound to one phone twice."""
    old, new = phone(), phone()
    between = (await client.bind(a=old, b=new)).body
    for more in ({"dry_run": True}, {}, {"on_conflict": "rebind"}):
        (item,) = (await _items(client, old, new, **more)).values()
        assert (item["status"], item["problem"]["code"]) == (409, "party_barred"), item
    assert await client.show(between["id"]) == between


async def test_what_the_platform_refuses_of_a_shared_line(client: Client) -> None:
    """When the platform bars the new party from a shared line, on_conflict gives each order another X."""
    old, new, b = phone(), phone(), phone()
    for _ in range(2):
        assert (await client.bind(a=old, b=b)).status == 201
    await client.fault("modify", "code", code="1012010", count=1)
    items = await _items(client, old, new, on_conflict="rebind")
    assert [item["status"] for item in items.values()] == [200, 200], items
    for item in items.values():
        assert await _reached(client, item["binding"]["x"], new, b, old) == [b, new, None]


async def test_respond_async_answers_each_item_202(client: Client) -> None:
    """With Prefer: respond-async every item is 202 with what is to become of it."""
    old, new = phone(), phone()
    created = (await client.bind(a=old)).body
    await client.fault("modify", "delay", ms=1000, when="before", count=1)
    answer = await client.ask(
        "POST", "/v1/bindings:hand-over", {"from": old, "to": new}, headers={"Prefer": "respond-async"}
    )
    (item,) = answer.body["items"]
    assert (item["status"], item["binding"]["pending_change"]) == (202, {"a": f"+86*******{new[-4:]}"})
    assert item["binding"]["id"] == created["id"]


async def test_wrong_hand_overs_are_422(client: Client) -> None:
    """Both phones are needed, differ, are real, and not ours."""
    a, b = phone(), phone()
    x = (await client.bind()).body["x"]
    ask = client.ask
    path = "/v1/bindings:hand-over"
    assert (await ask("POST", path, {})).pointers() == {"/from", "/to"}
    assert (await ask("POST", path, {"from": a, "to": a})).pointers() == {"/to"}
    assert (await ask("POST", path, {"from": a, "to": x})).pointers() == {"/to"}
    assert (await ask("POST", path, {"from": "1390", "to": b, "dry_run": 1})).pointers() == {"/from", "/dry_run"}
    assert (await ask("POST", path, {"from": a, "to": b, "on_conflict": "x"})).pointers() == {"/on_conflict"}
    assert (await ask("POST", path, {"from_": a, "to": b})).pointers() == {"/from_", "/from"}


async def test_it_stays_within_the_app_and_is_replayed(client: Client, other: Tenant) -> None:
    """Another app's key finds no bindings; a repeat with the same Idempotency-Key gets the same bytes."""
    old, new = phone(), phone()
    await client.bind(a=old)
    body = {"from": old, "to": new}
    theirs = await client.ask("POST", "/v1/bindings:hand-over", body, key=other.keys["main"])
    assert (theirs.status, theirs.body) == (200, {"items": []})
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    first = await client.ask("POST", "/v1/bindings:hand-over", body, headers=headers)
    assert len(first.body["items"]) == 1
    again = await client.ask("POST", "/v1/bindings:hand-over", body, headers=headers)
    assert (again.raw, again.headers["Idempotency-Replayed"]) == (first.raw, "true")

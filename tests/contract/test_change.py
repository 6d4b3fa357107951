"""``PATCH /v1/bindings/{id}``: what changes, what it costs, when it is refused, and who is reached."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import pytest

from tests.contract.service import Answer, Client, Tenant, eventually, phone

_GONE = "bnd_00000000000000000000000000000000"


async def _patch(client: Client, binding: str, headers: Mapping[str, str] | None = None, **fields: Any) -> Answer:
    return await client.ask("PATCH", f"/v1/bindings/{binding}", fields, headers=headers)


async def _reached(client: Client, x: str, *callers: str) -> list[str | None]:
    return [(await client.call(caller, x))["connected_to"] for caller in callers]


async def _last(client: Client) -> int:
    rows = await client.ledger()
    return int(rows[-1]["seq"]) if rows else 0


async def _effects(client: Client, after: int, x: str) -> list[str]:
    return [str(row["op"]) for row in await client.ledger(after) if row["x"] == x]


def _masked(number: str) -> str:
    return f"+86*******{number[-4:]}"


# -- what a patch does -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["a", "b"])
async def test_a_replaced_party_is_reached_by_nobody(client: Client, side: str) -> None:
    """After 200 the new party and the kept one reach each other through the same X, and the replaced one nobody."""
    parties: dict[str, Any] = {"a": phone(), "b": phone()}
    created = (await client.bind(**parties)).body
    old, kept, new = parties[side], parties["b" if side == "a" else "a"], phone()
    change: dict[str, Any] = {side: new}
    answer = await _patch(client, created["id"], **change)
    assert answer.status == 200, answer.raw
    body = answer.body
    assert body == created | {side: _masked(new)}
    assert await client.show(created["id"]) == body
    assert await _reached(client, body["x"], new, kept, old) == [kept, new, None]
    (held,) = [item for item in await client.platform_bindings() if item["x"] == body["x"] and kept in item.values()]
    assert held["subscription_id"] == created["platform_binding_id"]


@pytest.mark.parametrize("direction", ["a_to_b", "b_to_a"])
async def test_a_direction_is_changed(client: Client, direction: str) -> None:
    """Who may call is changed at the platform, and back to both."""
    a, b = phone(), phone()
    created = (await client.bind(a=a, b=b)).body
    assert (await _patch(client, created["id"], direction=direction)).body["direction"] == direction
    wanted = [b, None] if direction == "a_to_b" else [None, a]
    assert await _reached(client, created["x"], a, b) == wanted
    assert (await _patch(client, created["id"], direction="both")).status == 200
    assert await _reached(client, created["x"], a, b) == [b, a]


async def test_what_is_our_own_costs_no_platform_call(client: Client) -> None:
    """user_data, metadata and ttl_s take effect at once: the platform hears nothing."""
    created = (await client.bind(ttl_s=3600, user_data="one", metadata={"k": 1})).body
    before = await _last(client)
    answer = await _patch(client, created["id"], user_data="two", metadata={"m": [1]}, ttl_s=600)
    assert answer.status == 200
    body = answer.body
    assert (body["user_data"], body["metadata"], body["ttl_s"]) == ("two", {"k": 1, "m": [1]}, 600)
    assert datetime.fromisoformat(body["expires_at"]) < datetime.fromisoformat(created["expires_at"])
    assert (await _patch(client, created["id"], user_data=None)).body["user_data"] is None
    assert (await client.ask("PATCH", f"/v1/bindings/{created['id']}", {})).status == 200
    assert await _effects(client, before, created["x"]) == []


async def test_the_same_values_again_change_nothing(client: Client) -> None:
    """A patch that names what is so already costs no call and leaves the ETag; ttl_s alone is counted anew."""
    a, b = phone(), phone()
    created = await client.bind(a=a, b=b, user_data="u", metadata={"k": {"l": 1}}, sms=True)
    before = await _last(client)
    same: dict[str, Any] = {
        "a": a,
        "b": b,
        "direction": "both",
        "sms": True,
        "user_data": "u",
        "metadata": {"k": {"l": 1}, "z": None},
    }
    answer = await _patch(client, created.body["id"], **same)
    assert (answer.status, answer.body) == (200, created.body)
    assert answer.headers["ETag"] == created.headers["ETag"]
    assert await _effects(client, before, created.body["x"]) == []


@pytest.mark.parametrize(
    ("stored", "patch", "merged"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"a": "foo"}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        (None, {"a": {"x": None, "y": 1}}, {"a": {"y": 1}}),
        ({"a": 1}, None, None),
    ],
)
async def test_metadata_is_merged(client: Client, stored: Any, patch: Any, merged: Any) -> None:
    """Metadata follows RFC 7396: members are merged, null removes one, null for all of it leaves none."""
    created = (await client.bind(metadata=stored)).body
    answer = await _patch(client, created["id"], metadata=patch)
    assert (answer.status, answer.body["metadata"]) == (200, merged)
    assert (await client.show(created["id"]))["metadata"] == merged


async def test_metadata_that_grows_too_large_is_422(client: Client) -> None:
    """The limit holds for the result, not for the patch."""
    created = (await client.bind(metadata={"k": "v" * 1500})).body
    assert (await _patch(client, created["id"], metadata={"l": "v" * 1500})).pointers() == {"/metadata"}
    assert (await _patch(client, created["id"], metadata={"k": None, "l": "v" * 1500})).status == 200


# -- conditions --------------------------------------------------------------------------------------------------------


async def test_if_match_guards_against_lost_updates(client: Client) -> None:
    """The ETag of POST, GET and PATCH is one and the same; a stale one is 412 and changes nothing."""
    created = await client.bind()
    path = created.headers["Location"]
    first = created.headers["ETag"]
    assert (await client.ask("GET", path)).headers["ETag"] == first
    changed = await client.ask("PATCH", path, {"user_data": "1"}, headers={"If-Match": first})
    assert changed.status == 200
    second = changed.headers["ETag"]
    assert second not in {first, ""}
    assert (await client.ask("GET", path)).headers["ETag"] == second
    stale = await client.ask("PATCH", path, {"user_data": "2"}, headers={"If-Match": first})
    stale.problem(412, "precondition_failed")
    assert (await client.show(created.body["id"]))["user_data"] == "1"
    moved = await client.ask("PATCH", path, {"b": phone()}, headers={"If-Match": second})
    assert (moved.status, moved.headers["ETag"] not in {first, second}) == (200, True)
    assert (await client.ask("GET", path)).headers["ETag"] == moved.headers["ETag"]


async def test_if_match_takes_any_and_lists(client: Client) -> None:
    """``*`` is any binding that is there, a list holds if one of it does; a weak tag never matches."""
    created = await client.bind()
    path = created.headers["Location"]
    for tags in ("*", f'"nonsense", {created.headers["ETag"]}'):
        answer = await client.ask("PATCH", path, {}, headers={"If-Match": tags})
        assert answer.status == 200, tags
    for tags in ('"nonsense"', '"a", "b"', f"W/{created.headers['ETag']}"):
        (await client.ask("PATCH", path, {}, headers={"If-Match": tags})).problem(412, "precondition_failed")
    (await client.ask("PATCH", f"/v1/bindings/{_GONE}", {}, headers={"If-Match": "*"})).problem(
        404, "binding_not_found"
    )


async def test_of_twins_with_one_etag_one_wins(client: Client) -> None:
    """Ten changes at once with the same ETag: exactly one is made, the others are 412."""
    created = await client.bind()
    headers = {"If-Match": created.headers["ETag"]}
    answers = await asyncio.gather(
        *(_patch(client, created.body["id"], headers=headers, user_data=f"{number}") for number in range(10))
    )
    assert sorted(answer.status for answer in answers) == [200] + [412] * 9
    (won,) = [answer.body["user_data"] for answer in answers if answer.status == 200]
    assert (await client.show(created.body["id"]))["user_data"] == won


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "pointers"),
    [
        ({"a": "13900000001"}, {"/a"}),
        ({"a": None}, {"/a"}),
        ({"b": None, "ttl_s": None, "direction": None}, {"/b", "/ttl_s", "/direction"}),
        ({"on_conflict": None}, {"/on_conflict"}),
        ({"ttl_s": 59}, {"/ttl_s"}),
        ({"ttl_s": 31_536_001}, {"/ttl_s"}),
        ({"direction": "up"}, {"/direction"}),
        ({"user_data": "u" * 1025}, {"/user_data"}),
        ({"user_data": ""}, {"/user_data"}),
        ({"metadata": [1]}, {"/metadata"}),
        ({"metadata": {"k": "\x00"}}, {"/metadata"}),
        ({"on_conflict": "force"}, {"/on_conflict"}),
        ({"order_id": "other"}, {"/order_id"}),
        ({"pool": "beijing"}, {"/pool"}),
        ({"x": "+8617010000001"}, {"/x"}),
        ({"share": False}, {"/share"}),
    ],
)
async def test_wrong_patches_are_422(client: Client, fields: dict[str, Any], pointers: set[str]) -> None:
    """Out of range, of the wrong kind, null for what cannot be absent, and what cannot be changed at all."""
    created = (await client.bind()).body
    assert (await _patch(client, created["id"], **fields)).pointers() == pointers
    assert await client.show(created["id"]) == created


async def test_parties_that_cannot_be_are_422(client: Client) -> None:
    """The other party, one of our X, both at once: none of them can replace a party."""
    a, b = phone(), phone()
    created = (await client.bind(a=a, b=b)).body
    assert (await _patch(client, created["id"], a=b)).pointers() == {"/a"}
    assert (await _patch(client, created["id"], b=a)).pointers() == {"/b"}
    assert (await _patch(client, created["id"], b=created["x"])).pointers() == {"/b"}
    assert (await _patch(client, created["id"], a=phone(), b=phone())).pointers() == {"/b"}
    for data in (b"", b"{", b"[]", b"null", b'"a"'):
        answer = await client.ask("PATCH", f"/v1/bindings/{created['id']}", data=data)
        assert answer.status in {400, 422}


async def test_what_has_ended_cannot_be_changed(client: Client) -> None:
    """A released or failed binding is 409 binding_ended; an unknown or another app's one is 404."""
    released = (await client.bind()).body["id"]
    await client.ask("DELETE", f"/v1/bindings/{released}")
    await client.fault("bind", "code", code="1010002", count=1)
    failed = (await client.bind()).problem(422, "platform_rejected_request")["binding"]
    for ended in (released, failed):
        patches: tuple[dict[str, Any], ...] = (
            {"user_data": "x"}, {"b": phone()}, {"b": phone(), "on_conflict": "rebind"}, {},
        )  # fmt: skip
        for fields in patches:
            (await _patch(client, ended, **fields)).problem(409, "binding_ended")
    (await _patch(client, _GONE, user_data="x")).problem(404, "binding_not_found")


async def test_another_apps_binding_cannot_be_changed(client: Client, other: Tenant) -> None:
    """Another app's key finds nothing there, and a key that may only read changes nothing."""
    created = (await client.bind()).body
    path = f"/v1/bindings/{created['id']}"
    theirs = await client.ask("PATCH", path, {"user_data": "x"}, key=other.keys["main"])
    theirs.problem(404, "binding_not_found")
    (await client.ask("PATCH", path, {"user_data": "x"}, key=other.keys["reader"])).problem(403, "forbidden")
    assert await client.show(created["id"]) == created


async def test_a_party_that_has_the_x_is_barred(client: Client) -> None:
    """Who is behind the X with somebody else cannot come in; with on_conflict the binding gets another X."""
    a, b, busy = phone(), phone(), phone()
    first = (await client.bind(a=a, b=b, pool="shenzhen")).body
    await client.behind(busy, first["x"], "shenzhen")
    before = await _last(client)
    (await _patch(client, first["id"], b=busy)).problem(409, "party_barred")
    assert await client.show(first["id"]) == first
    assert await _effects(client, before, first["x"]) == []
    answer = await _patch(client, first["id"], b=busy, on_conflict="rebind", user_data="moved")
    assert answer.status == 200, answer.raw
    body = answer.body
    assert body["x"] != first["x"]
    assert (body["id"], body["state"], body["b"], body["user_data"]) == (first["id"], "active", _masked(busy), "moved")
    assert body["created_at"] == first["created_at"]
    assert await _reached(client, body["x"], a, busy, b) == [busy, a, None]

    async def old_line_ended() -> bool:
        return await _reached(client, first["x"], a, b) == [None, None]

    await eventually(old_line_ended, "nobody is behind the old X")
    assert await client.show(first["id"]) == body


async def test_a_replaced_party_rests(client: Client) -> None:
    """The replaced party cannot have that X with another counterpart yet; the pair it was of may."""
    a, b, c, d = phone(), phone(), phone(), phone()
    first = (await client.bind(a=a, b=b, pool="shenzhen", share=False)).body
    assert (await _patch(client, first["id"], b=c)).status == 200
    second = await client.behind(d, first["x"], "shenzhen")
    (await _patch(client, second["id"], b=b)).problem(409, "party_barred")
    again = await _patch(client, first["id"], b=b)
    assert again.status == 200, again.raw
    assert await _reached(client, first["x"], a, b, c) == [b, a, None]


async def test_a_party_that_the_platform_bars_gets_another_x(client: Client) -> None:
    """When the platform knows of a binding that we do not: 409, or another X with on_conflict; rests stay whole."""
    a, b, c = phone(), phone(), phone()
    first = (await client.bind(a=a, b=b)).body
    await client.fault("modify", "code", code="1012010", count=1)
    problem = (await _patch(client, first["id"], b=c)).problem(409, "party_barred")
    assert problem["platform_code"] == "1012010"
    shown = await client.show(first["id"])
    assert shown == first | {"change_failed": "party_barred"}
    d = phone()
    await client.fault("modify", "code", code="1012010", count=1)
    answer = await _patch(client, first["id"], b=d, ttl_s=900, on_conflict="rebind")
    assert answer.status == 200, answer.raw
    assert (answer.body["x"] != first["x"], answer.body["ttl_s"], answer.body["b"]) == (True, 900, _masked(d))
    assert await _reached(client, answer.body["x"], a, d, b, c) == [d, a, None, None]


@pytest.mark.parametrize(
    ("code", "status", "problem"),
    [
        ("1010002", 422, "platform_rejected_request"),
        ("1010003", 502, "platform_refused"),
        ("1010004", 503, "app_suspended"),
    ],
)
async def test_a_change_that_the_platform_refuses(client: Client, code: str, status: int, problem: str) -> None:
    """A refusal is told with the platform's code; the binding is as it was, and says why; the next change clears it."""
    a, b = phone(), phone()
    created = (await client.bind(a=a, b=b)).body
    await client.fault("modify", "code", code=code, count=1)
    told = (await _patch(client, created["id"], b=phone())).problem(status, problem)
    assert told["platform_code"] == code
    shown = await client.show(created["id"])
    assert shown == created | {"change_failed": problem}
    assert await _reached(client, created["x"], a, b) == [b, a]

    async def changed() -> Answer | None:
        answer = await _patch(client, created["id"], direction="a_to_b")
        return answer if answer.status == 200 else None

    answer = await eventually(changed, "the next change is made")
    assert answer.body["change_failed"] is None


async def test_a_line_that_the_platform_lost(client: Client) -> None:
    """A change of what the platform does not hold any more is refused, and what the binding was is bound anew."""
    a, b = phone(), phone()
    created = (await client.bind(a=a, b=b)).body
    (lost,) = await client.platform_of(a)
    await client.fault("modify", "code", code="1012007", count=1)
    (await _patch(client, created["id"], b=phone())).problem(502, "platform_refused")

    async def anew() -> bool:
        held = await client.platform_of(a)
        return [one["b"] for one in held] == [b] and held[0]["subscription_id"] != lost["subscription_id"]

    await eventually(anew, "the line is bound anew")
    assert (await client.show(created["id"]))["state"] == "active"
    assert await _reached(client, created["x"], a, b) == [b, a]


# -- while the platform does not answer --------------------------------------------------------------------------------


async def test_not_confirmed_in_time_is_202(client: Client) -> None:
    """Until the platform answers: 202, pending_change has the new values, old and new party both hold the X."""
    a, b, new = phone(), phone(), phone()
    created = (await client.bind(a=a, b=b, pool="shenzhen")).body
    beside = await client.behind(phone(), created["x"], "shenzhen")
    await client.fault("modify", "delay", ms=2500, when="before", count=1)
    answer = await _patch(client, created["id"], headers={"Request-Timeout": "0.3"}, b=new, sms=False, ttl_s=900)
    assert answer.status == 202, answer.raw
    assert answer.body["pending_change"] == {"b": _masked(new), "sms": False}
    assert (answer.body["b"], answer.body["sms"], answer.body["ttl_s"]) == (_masked(b), None, 900)
    again = await _patch(client, created["id"], headers={"Request-Timeout": "0.3"}, direction="a_to_b")
    again.problem(409, "change_in_progress")
    assert int(again.headers["Retry-After"]) > 0
    for party in (b, new):
        (await _patch(client, beside["id"], headers={"Request-Timeout": "0.3"}, b=party)).problem(409, "party_barred")
    # What is the binding's own can be changed meanwhile.
    own = await _patch(client, created["id"], user_data="meanwhile")
    assert (own.status, own.body["user_data"]) == (202, "meanwhile")

    async def confirmed() -> dict[str, Any] | None:
        shown = await client.show(created["id"])
        return shown if shown["pending_change"] is None else None

    shown = await eventually(confirmed, "the change is confirmed")
    assert (shown["b"], shown["sms"], shown["change_failed"]) == (_masked(new), False, None)
    assert await _reached(client, created["x"], a, new, b) == [new, a, None]
    # The 202's tag is of what was then.
    stale = await _patch(client, created["id"], headers={"If-Match": answer.headers["ETag"]}, user_data="late")
    stale.problem(412, "precondition_failed")


async def test_respond_async_answers_at_commit(client: Client) -> None:
    """With Prefer: respond-async the answer is 202 before the platform was asked; it comes true by itself."""
    a, b, new = phone(), phone(), phone()
    created = (await client.bind(a=a, b=b)).body
    await client.fault("modify", "delay", ms=1000, when="before", count=1)
    answer = await _patch(client, created["id"], headers={"Prefer": "respond-async"}, a=new)
    assert (answer.status, answer.body["pending_change"]) == (202, {"a": _masked(new)})

    async def confirmed() -> bool:
        return str((await client.show(created["id"]))["a"]) == _masked(new)

    await eventually(confirmed, "the change is confirmed")
    assert await _reached(client, created["x"], new, b, a) == [b, new, None]


@pytest.mark.parametrize("kind", ["drop_answer", "reset"])
async def test_an_answer_that_is_lost(client: Client, kind: str) -> None:
    """When nobody knows what the platform did, the broker finds out: the change comes true, once."""
    a, b, new = phone(), phone(), phone()
    created = (await client.bind(a=a, b=b)).body
    await client.fault("modify", kind, count=1)
    answer = await _patch(client, created["id"], headers={"Request-Timeout": "1"}, b=new)
    assert answer.status in {200, 202}, answer.raw

    async def confirmed() -> bool:
        return str((await client.show(created["id"]))["b"]) == _masked(new)

    await eventually(confirmed, "the change is confirmed", 60)
    assert await _reached(client, created["x"], a, new, b) == [new, a, None]


async def test_a_pending_binding_is_not_modified(client: Client) -> None:
    """Before the bind is confirmed the line cannot change; what is the binding's own can."""
    await client.fault("bind", "delay", ms=1500, when="before", count=1)
    pending = (await client.bind(headers={"Prefer": "respond-async"})).body
    (await _patch(client, pending["id"], direction="a_to_b")).problem(409, "change_in_progress")
    answer = await _patch(client, pending["id"], user_data="early", ttl_s=600)
    assert (answer.status, answer.body["user_data"], answer.body["state"]) == (202, "early", "pending")
    shown = await client.until(pending["id"], "active")
    assert (shown["user_data"], shown["ttl_s"]) == ("early", 600)


async def test_a_release_ends_a_change_under_way(client: Client) -> None:
    """DELETE while a change waits: in the end nobody, old or new, is behind the X."""
    a, b, new = phone(), phone(), phone()
    created = (await client.bind(a=a, b=b)).body
    await client.fault("modify", "delay", ms=1500, when="before", count=1)
    assert (await _patch(client, created["id"], headers={"Prefer": "respond-async"}, b=new)).status == 202
    await client.ask("DELETE", f"/v1/bindings/{created['id']}")
    await client.until(created["id"], "released")
    assert await _reached(client, created["x"], a, b, new) == [None, None, None]


# -- repeats -----------------------------------------------------------------------------------------------------------


async def test_a_replay_is_byte_identical(client: Client) -> None:
    """A repeat with the same Idempotency-Key gets the first answer and changes nothing again, even what failed."""
    a, b, new = phone(), phone(), phone()
    created = (await client.bind(a=a, b=b)).body
    key = {"Idempotency-Key": uuid.uuid4().hex}
    first = await _patch(client, created["id"], headers=key, b=new)
    assert (await _patch(client, created["id"], b=phone())).status == 200
    before = await _last(client)
    second = await _patch(client, created["id"], headers=key, b=new)
    assert (second.status, second.raw) == (first.status, first.raw) == (200, first.raw)
    assert second.headers["Idempotency-Replayed"] == "true"
    assert await _effects(client, before, created["x"]) == []
    (await _patch(client, created["id"], headers=key, b=phone())).problem(422, "idempotency_key_reused")
    key = {"Idempotency-Key": uuid.uuid4().hex}
    refused = await _patch(client, created["id"], headers=key, b=a)
    assert refused.pointers() == {"/b"}
    assert (await _patch(client, created["id"], headers=key, b=a)).raw == refused.raw

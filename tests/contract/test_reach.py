"""Who is reached through an X."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest

from tests.contract.service import Answer, Client, Json, Service, Tenant, add_key, phone, rows, settled_config

_QUERY = "/v1/reach:query"


async def _ask(client: Client, key: str = "", **fields: Any) -> Answer:
    return await client.ask("POST", _QUERY, fields, key=key)


async def _reached(client: Client, **fields: Any) -> Json:
    answer = await _ask(client, **fields)
    assert answer.status == 200, answer.raw
    body: Json = answer.body
    return body


async def test_now(client: Client) -> None:
    """Either party reaches the other, masked; a stranger nobody, with the reason; after the release nobody."""
    a, b = phone(), phone()
    made = (await client.bind(a=a, b=b)).body
    assert await _reached(client, x=made["x"], caller=a) == {
        "reached": True, "why": "bound", "detail": "is bound", "x": made["x"], "caller": made["a"], "digits": None,
        "at": None, "role": "b", "party": made["b"], "bindings": [made["id"]],
    }  # fmt: skip
    assert (await _reached(client, x=made["x"], caller=b))["party"] == made["a"]
    nobody = await _reached(client, x=made["x"], caller=phone())
    assert (nobody["reached"], nobody["why"], nobody["party"], nobody["bindings"]) == (False, "party_unknown", None, [])
    before = (await rows(client.service, "SELECT broker_now()"))[0][0]
    await client.ask("DELETE", f"/v1/bindings/{made['id']}")
    assert (await _reached(client, x=made["x"], caller=a))["why"] == "not_bound"
    then = await _reached(client, x=made["x"], caller=a, at=before.isoformat())
    assert (then["reached"], then["party"], then["bindings"]) == (True, made["b"], [made["id"]])


async def test_by_get(client: Client) -> None:
    """The same by GET, with each + as %2B or as it is; it never reveals."""
    a = phone()
    made = (await client.bind(a=a)).body
    for x, caller in ((quote(made["x"]), quote(a)), (made["x"], a)):
        answer = await client.ask("GET", f"/v1/reach?x={x}&caller={caller}")
        assert answer.body["party"] == made["b"], answer.raw
    at = (datetime.now(UTC) - timedelta(days=1)).astimezone().isoformat(timespec="seconds")
    assert (await client.ask("GET", f"/v1/reach?x={made['x']}&caller={a}&at={at}")).body["reached"] is False
    answer = await client.ask("GET", f"/v1/reach?x={made['x']}&caller={a}&reveal=true")
    assert answer.pointers() == {"/reveal"}


async def test_reveal_needs_its_scope_and_is_noted_first(service: Service, client: Client) -> None:
    """With the scope the number comes in clear, after a row that says who asked; it is never stored."""
    a, b = phone(), phone()
    made = (await client.bind(a=a, b=b)).body
    (await _ask(client, x=made["x"], caller=a, reveal=True)).problem(403, "forbidden")
    (app,) = await rows(service, "SELECT app_id FROM caller WHERE name = 'demo' OR id = 1 ORDER BY id LIMIT 1")
    key = await add_key(service, app["app_id"], "desk", ("read", "reveal"))
    await settled_config(service, client, key)
    sent = {"x": made["x"], "caller": a, "reveal": True}
    answer = await client.ask("POST", _QUERY, sent, key=key, headers={"Idempotency-Key": "reveal-once"})
    assert answer.body["party"] == b
    noted = await rows(service, "SELECT who, what, line_id FROM audit ORDER BY id")
    assert [(row["who"].split("/")[1], row["what"], row["line_id"].hex) for row in noted] == [
        ("desk …....", "reveal", made["line"])
    ]
    again = await client.ask("POST", _QUERY, sent, key=key, headers={"Idempotency-Key": "reveal-once"})
    assert "Idempotency-Replayed" not in again.headers
    assert not [
        row for row in await rows(service, "SELECT body FROM idempotency") if b.encode() in (row["body"] or b"")
    ]
    await rows(service, "ALTER TABLE audit RENAME TO audit_away")
    try:
        assert (await client.ask("POST", _QUERY, sent, key=key)).status >= 500
    finally:
        await rows(service, "ALTER TABLE audit_away RENAME TO audit")
    assert b not in service.log.read_text()


async def test_others_numbers_are_not_there(service: Service, client: Client, other: Tenant) -> None:
    """Another app's X looks exactly like one that is nobody's."""
    made = (await client.bind(a=phone())).body
    answers = [await _ask(client, other.keys["reader"], x=x, caller=phone()) for x in (made["x"], "+8619999999999")]
    told = [answer.problem(404, "number_not_found") for answer in answers]
    assert {problem.pop("instance") for problem in told}
    assert told[0] == told[1]
    assert (await _ask(client, other.keys["binder"], x=made["x"], caller=phone())).status == 403
    del service


@pytest.mark.parametrize(
    ("fields", "pointers"),
    [
        ({}, {"/x", "/caller"}),
        ({"x": "17010000001", "caller": "013900000001"}, {"/x", "/caller"}),
        ({"x": "+8617010000001", "caller": "+8613900000001", "digits": "12345", "at": "yesterday"}, {"/digits", "/at"}),
        ({"x": "+8617010000001", "caller": "+8613900000001", "at": "2026-11-22T12:00:00"}, {"/at"}),
        ({"x": "+8617010000001", "caller": "+8613900000001", "at": "0001-01-01T00:00:00+14:00"}, {"/at"}),
        ({"x": "+8617010000001", "caller": "+8613900000001", "at": 5, "reveal": "yes"}, {"/at", "/reveal"}),
    ],
)
async def test_bad_questions(client: Client, fields: Json, pointers: set[str]) -> None:
    """Every bad field is named."""
    assert (await _ask(client, **fields)).pointers() == pointers


async def test_bad_for_this_number(client: Client) -> None:
    """Digits where none are dialled, and moments that have not come or are too long ago."""
    a = phone()
    made = (await client.bind(a=a)).body
    assert (await _ask(client, x=made["x"], caller=a, digits="12")).pointers() == {"/digits"}
    assert (await _ask(client, x=made["x"], caller=a, at="2999-01-01T00:00:00Z")).pointers() == {"/at"}
    old = await _reached(client, x=made["x"], caller=a, at="2001-01-01T00:00:00Z")
    assert (old["reached"], old["why"]) == (None, "not_kept")

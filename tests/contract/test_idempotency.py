"""One effect and one answer for each (caller, Idempotency-Key)."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from typing import Any

import orjson
import pytest

from tests.contract.service import (
    Answer,
    Client,
    Service,
    add_app,
    client_of,
    eventually,
    phone,
    rows,
    settled_config,
)

_KEYS = 100
_TWINS = 20


def _key() -> dict[str, str]:
    return {"Idempotency-Key": uuid.uuid4().hex}


def _is_replay(first: Answer, second: Answer) -> bool:
    """Same status, same bytes, same Location and kind, and the mark."""
    assert "Idempotency-Replayed" not in first.headers
    assert second.headers.get("Idempotency-Replayed") == "true", (second.status, second.raw)
    same = ("Location", "Content-Type")
    return (first.status, first.raw, *map(first.headers.get, same)) == (
        second.status, second.raw, *map(second.headers.get, same),
    )  # fmt: skip


async def test_a_replay_is_byte_identical(client: Client) -> None:
    """A repeat gets the first answer with Idempotency-Replayed: true, even once the binding has changed."""
    key = _key()
    fields: dict[str, Any] = {"a": phone(), "b": phone(), "metadata": {"z": 1, "a": [1.0, "ü"]}}
    first = await client.bind(headers=key, **fields)
    assert first.status == 201
    assert _is_replay(first, await client.bind(headers=key, **fields))
    await client.ask("DELETE", first.headers["Location"])
    assert _is_replay(first, await client.bind(headers=key, **fields))
    assert await client.platform_of(str(fields["a"])) == []


async def test_quoted_and_bare_keys_are_equal(client: Client) -> None:
    """The structured-field form of a key and the bare one name the same key; case counts."""
    name, fields = uuid.uuid4().hex + "-Aa", {"a": phone(), "b": phone()}
    first = await client.bind(headers={"Idempotency-Key": f'"{name}"'}, **fields)
    for spelling in (name, f'"{name}"', f"  {name} "):
        assert _is_replay(first, await client.bind(headers={"Idempotency-Key": spelling}, **fields))
    other = await client.bind(headers={"Idempotency-Key": name.upper()}, b=phone(), a=fields["a"])
    assert other.status == 201
    assert "Idempotency-Replayed" not in other.headers


async def test_spelling_of_the_body_does_not_count(client: Client) -> None:
    """Order of members and white space are no difference; a value is."""
    key, a, b = _key(), phone(), phone()
    first = await client.ask("POST", "/v1/bindings", {"a": a, "b": b, "ttl_s": 60}, headers=key)
    spelled = b' {\n"ttl_s" : 60, "b":"%s",\t"a":"%s"} ' % (b.encode(), a.replace("+", "\\u002b").encode())
    assert _is_replay(first, await client.ask("POST", "/v1/bindings", data=spelled, headers=key))
    for changed in ({"a": a, "b": b, "ttl_s": 61}, {"a": a, "b": b}, {"a": b, "b": a, "ttl_s": 60}, {}):
        answer = await client.ask("POST", "/v1/bindings", changed, headers=key)
        answer.problem(422, "idempotency_key_reused")
    (await client.ask("POST", "/v1/bindings", data=b"{", headers=key)).problem(400, "malformed_json")
    assert _is_replay(first, await client.ask("POST", "/v1/bindings", {"a": a, "b": b, "ttl_s": 60}, headers=key))


async def test_a_key_belongs_to_its_method_and_path(client: Client) -> None:
    """The key of a bind is no key for a release."""
    key = _key()
    created = (await client.bind(headers=key)).body
    answer = await client.ask("DELETE", f"/v1/bindings/{created['id']}", headers=key)
    answer.problem(422, "idempotency_key_reused")
    assert (await client.show(created["id"]))["state"] == "active"


async def test_a_422_is_replayed(client: Client) -> None:
    """Refusals for the body's sake are answers like any other, ours and the platform's."""
    key, fields = _key(), {"a": phone(), "b": "nonsense"}
    first = await client.bind(headers=key, **fields)
    assert first.pointers() == {"/b"}
    assert _is_replay(first, await client.bind(headers=key, **fields))
    await client.fault("bind", "code", code="1010002", count=1)
    key, fields = _key(), {"a": phone(), "b": phone()}
    first = await client.bind(headers=key, **fields)
    first.problem(422, "platform_rejected_request")
    assert _is_replay(first, await client.bind(headers=key, **fields))


async def test_a_409_pool_exhausted_is_replayed(client: Client) -> None:
    """An exhausted pool stays the answer to that key, also when there is room again."""
    a = phone()
    full = await asyncio.gather(*(client.bind(a=a, pool="beijing") for _ in range(24)))
    key, fields = _key(), {"a": a, "b": phone(), "pool": "beijing"}
    first = await client.bind(headers=key, **fields)
    first.problem(409, "pool_exhausted")
    await client.ask("DELETE", full[0].headers["Location"])
    assert _is_replay(first, await client.bind(headers=key, **fields))


async def test_a_202_is_replayed(client: Client) -> None:
    """The answer 202 stays 202; the binding's own address tells how it went on."""
    await client.fault("bind", "delay", ms=300, count=1)
    key = {**_key(), "Prefer": "respond-async"}
    fields = {"a": phone(), "b": phone()}
    first = await client.bind(headers=key, **fields)
    assert first.status == 202
    await client.until(first.body["id"], "active")
    assert _is_replay(first, await client.bind(headers=key, **fields))


async def test_a_twin_in_progress_is_409(client: Client) -> None:
    """While the first request is carried out, its twin is told to come back; then it gets the same answer."""
    await client.fault("bind", "delay", ms=800, count=1)
    key, fields = _key(), {"a": phone(), "b": phone()}
    first = asyncio.create_task(client.bind(headers=key, **fields))
    query = "SELECT 1 FROM line WHERE a_key = $1 AND state = 'pending'"
    party = client.service.vault().party_key(fields["a"])
    await eventually(lambda: rows(client.service, query, party), "the first request's line")
    twin = await client.bind(headers=key, **fields)
    twin.problem(409, "idempotency_in_progress")
    assert int(twin.headers["Retry-After"]) > 0
    (await client.bind(headers=key, a=fields["a"], b=phone())).problem(422, "idempotency_key_reused")
    answer = await first
    assert answer.status == 201
    assert _is_replay(answer, await client.bind(headers=key, **fields))


async def test_answers_that_are_not_kept(client: Client) -> None:
    """400, 401, 413 and 415 leave the key free."""
    key, fields = _key(), {"a": phone(), "b": phone()}
    (await client.ask("POST", "/v1/bindings", data=b"{", headers=key)).problem(400, "malformed_json")
    (await client.ask("POST", "/v1/bindings", fields, headers=key, key=None)).problem(401, "unauthorized")
    (await client.ask("POST", "/v1/bindings", data=b" " * 70_000, headers=key)).problem(413, "body_too_large")
    answer = await client.bind(headers=key, **fields)
    assert answer.status == 201
    assert "Idempotency-Replayed" not in answer.headers


async def test_a_503_before_anything_was_made_is_not_stored(service: Service) -> None:
    """A suspended app's 503 is not kept: once the app is open again the same key binds."""
    numbers = ["+8617099900001"]
    tenant = await add_app(service, "paused", state="suspended", pools=[("only", "020", numbers)])
    async with client_of(service) as client:
        app = "key-of-paused"
        await client.emulator("PUT", f"apps/{app}", {"secret": "secret", "mode": "axb", "rate": 0})
        await client.emulator("PUT", f"apps/{app}/numbers", [{"number": numbers[0], "area_code": "020"}])
        caller = tenant.keys["main"]
        await settled_config(service, client, caller)
        key, fields = _key(), {"a": phone(), "b": phone()}
        (await client.bind(headers=key, key=caller, **fields)).problem(503, "app_suspended")
        await rows(service, "UPDATE app SET state = 'open' WHERE name = 'paused'")
        deadline = asyncio.get_running_loop().time() + 10
        while (answer := await client.bind(headers=key, key=caller, **fields)).status == 503:
            assert asyncio.get_running_loop().time() < deadline
        assert (answer.status, answer.body["x"]) == (201, numbers[0])


@pytest.mark.parametrize(("code", "status"), [("1010003", 502), ("1010004", 503)])
async def test_a_5xx_of_the_platform_is_not_stored(client: Client, code: str, status: int) -> None:
    """Once an operator has mended what the platform refused, the same key binds."""
    await client.fault("bind", "code", code=code, count=1)
    key, fields = _key(), {"a": phone(), "b": phone()}
    assert (await client.bind(headers=key, **fields)).status == status
    again = await client.bind(headers=key, **fields)
    assert again.status == 201, again.raw
    assert len(await client.platform_of(fields["a"])) == 1
    assert _is_replay(again, await client.bind(headers=key, **fields))


async def test_delete_takes_a_key(client: Client) -> None:
    """DELETE with a key is replayed like a POST; 404 is not kept."""
    created = (await client.bind()).body
    key, path = _key(), f"/v1/bindings/{created['id']}"
    first = await client.ask("DELETE", path, headers=key)
    assert (first.status, first.body["state"]) == (200, "released")
    assert _is_replay(first, await client.ask("DELETE", path, headers=key))
    (await client.ask("DELETE", "/v1/bindings/bnd_none", headers=key)).problem(422, "idempotency_key_reused")


async def test_the_scope_is_the_caller(service: Service) -> None:
    """Another caller of the same app, and of another app, may use the same key for something else."""
    tenant = await add_app(service, "scopes", callers=[("one", ("bind", "read")), ("two", ("bind", "read"))])
    async with client_of(service) as client:
        await settled_config(service, client, tenant.keys["two"])
        key = _key()
        first = await client.bind(headers=key)
        assert first.status == 201
        answers = [await client.bind(headers=key, key=tenant.keys[name]) for name in ("one", "two")]
        for answer in answers:
            answer.problem(409, "pool_exhausted")
            assert "Idempotency-Replayed" not in answer.headers
        assert answers[0].body["instance"] != answers[1].body["instance"]


async def test_many_twins_make_one_binding_each(client: Client) -> None:
    """100 keys, 20 twins each at once through two workers: 100 bindings here and at the platform, one answer a key."""
    prefix = uuid.uuid4().hex
    bodies = [{"a": phone(), "b": phone(), "order_id": f"{prefix}-{n}"} for n in range(_KEYS)]

    async def ask(n: int) -> Answer:
        headers = {"Idempotency-Key": f"{prefix}-{n}", "Request-Timeout": "30", "Connection": "close"}
        for _ in range(600):
            answer = await client.ask("POST", "/v1/bindings", bodies[n], headers=headers)
            if answer.status == 409:
                answer.problem(409, "idempotency_in_progress")
            elif answer.status == 503:  # 2,000 at once on a slow machine: an overloaded service says so, not stored
                answer.problem(503, "database_unavailable")
            else:
                return answer
            await asyncio.sleep(0.05)
        raise AssertionError("still in progress")

    turns = [n for _, n in itertools.product(range(_TWINS), range(_KEYS))]
    answers = await asyncio.gather(*map(ask, turns))
    by_key: dict[int, set[bytes]] = {}
    for n, answer in zip(turns, answers, strict=True):
        assert answer.status == 201, answer.raw
        by_key.setdefault(n, set()).add(answer.raw)
    assert [len(by_key[n]) for n in range(_KEYS)] == [1] * _KEYS
    ids = {orjson.loads(raw)["id"] for found in by_key.values() for raw in found}
    assert len(ids) == _KEYS
    stored = await rows(client.service, "SELECT count(*) FROM binding WHERE order_id LIKE $1", f"{prefix}-%")
    assert stored[0][0] == _KEYS
    phones = {str(body["a"]) for body in bodies}
    assert len([item for item in await client.platform_bindings() if item["a"] in phones]) == _KEYS
    binds = [row for row in await client.ledger() if row["op"] == "bind" and row.get("a") in phones]
    assert len(binds) == _KEYS

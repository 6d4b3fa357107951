"""Many binds, and many releases, in one request."""

from __future__ import annotations

import asyncio
import io
import uuid
from typing import Any

import aiohttp
import orjson
import pytest

from tests.contract.service import (
    Answer,
    Client,
    Json,
    Tenant,
    client_of,
    memory,
    phone,
    rows,
    up,
)
from tests.pg import state_folder

_BATCH = "/v1/bindings:batch"
_RELEASE = "/v1/bindings:batch-release"
_ASYNC = {"Prefer": "respond-async"}


def _item(**fields: Any) -> Json:
    return {"a": phone(), "b": phone(), **fields}


def _statuses(answer: Answer) -> list[int]:
    assert answer.status == 200, answer.raw
    return [item["status"] for item in answer.body["items"]]


async def test_items_are_answered_in_order(client: Client) -> None:
    """Every item of a batch is bound and confirmed, and its outcome stands at its place."""
    items = [_item(order_id=f"batch-{n}", metadata={"n": n}) for n in range(25)]
    answer = await client.ask("POST", _BATCH, {"items": items})
    assert _statuses(answer) == [201] * 25
    for item, told in zip(items, answer.body["items"], strict=True):
        assert set(told) == {"status", "binding"}
        binding = told["binding"]
        assert (binding["order_id"], binding["metadata"], binding["state"]) == (
            item["order_id"], item["metadata"], "active",
        )  # fmt: skip
        assert binding == await client.show(binding["id"])


async def test_respond_async_answers_202_at_commit(client: Client) -> None:
    """With Prefer: respond-async each good item is 202 and pending, and is confirmed later."""
    answer = await client.ask("POST", _BATCH, {"items": [_item(), _item(ttl_s=1)]}, headers=_ASYNC)
    assert _statuses(answer) == [202, 422]
    binding = answer.body["items"][0]["binding"]
    assert (binding["state"], binding["x"]) == ("pending", None)
    assert (await client.until(binding["id"], "active"))["x"]


async def test_a_batch_waits_until_its_deadline(client: Client) -> None:
    """Items that the platform does not confirm in time are 202 at the Request-Timeout, and are confirmed later."""
    await client.fault("bind", "delay", ms=1000, count=2)
    answer = await client.ask("POST", _BATCH, {"items": [_item(), _item()]}, headers={"Request-Timeout": "0.3"})
    assert _statuses(answer) == [202, 202]
    for told in answer.body["items"]:
        await client.until(told["binding"]["id"], "active")


_POISON: tuple[tuple[Any, str], ...] = (
    ({"a": "13900000001", "b": "+8613900000002"}, "/a"),
    ({"a": "+8613900000001", "b": "+8613900000002", "pool": "atlantis"}, "/pool"),
    ({"a": "+8613900000001", "b": "+8613900000002", "metadata": {"k": "v" * 3000}}, "/metadata"),
    ({"a": "+8617075500001", "b": "+8613900000002"}, "/a"),
    ({"a": "+8613900000001", "b": "+8613900000001"}, "/b"),
    ({"a": "+8613900000001", "b": "+8613900000002", "nonsense": 1}, "/nonsense"),
    ({"a": "+8613900000001"}, "/b"),
    ({}, "/a"),
    ("text", ""),
    (None, ""),
    ([], ""),
    (7, ""),
)


async def test_poison_never_harms_neighbours(client: Client) -> None:
    """Each kind of bad item gets the problem that it would get alone; all items around it are bound."""
    ours = (await client.bind()).body["x"]
    poison = [(item if pointer != "/a" or "7075500001" not in str(item) else {**item, "a": ours}, pointer)
              for item, pointer in _POISON]  # fmt: skip
    items: list[Any] = [_item()]
    for item, _ in poison:
        items += [item, _item()]
    answer = await client.ask("POST", _BATCH, {"items": items})
    statuses = _statuses(answer)
    assert statuses[::2] == [201] * (len(poison) + 1)
    for (item, pointer), told in zip(poison, answer.body["items"][1::2], strict=True):
        problem = told["problem"]
        assert (told["status"], problem["status"], problem["code"]) == (422, 422, "validation_failed"), item
        assert pointer in {error["pointer"] for error in problem["errors"]}
        alone = (await client.ask("POST", "/v1/bindings", data=orjson.dumps(item))).body
        assert {**problem, "instance": ""} == {**alone, "instance": ""}


async def test_an_exhausted_pool_is_the_items_own_problem(client: Client) -> None:
    """A party that is behind every X of the pool gets 409 pool_exhausted for what is too much, and only that."""
    a = phone()
    answer = await client.ask("POST", _BATCH, {"items": [_item(a=a, pool="beijing") for _ in range(26)]})
    statuses = _statuses(answer)
    assert sorted(statuses) == [201] * 24 + [409] * 2
    bound = [told["binding"]["x"] for told in answer.body["items"] if told["status"] == 201]
    assert len(set(bound)) == 24
    refused = [told["problem"] for told in answer.body["items"] if told["status"] == 409]
    assert {problem["code"] for problem in refused} == {"pool_exhausted"}
    assert refused[0]["reasons"]["a_busy"] == 24


async def test_what_the_platform_refuses_is_the_items_own_problem(client: Client) -> None:
    """A bind that the platform rejects is a problem with the binding's id, beside confirmed neighbours."""
    await client.fault("bind", "code", code="1010002", count=1)
    answer = await client.ask("POST", _BATCH, {"items": [_item() for _ in range(5)]})
    assert sorted(_statuses(answer)) == [201] * 4 + [422]
    (problem,) = (told["problem"] for told in answer.body["items"] if "problem" in told)
    assert problem["code"] == "platform_rejected_request"
    assert (await client.show(problem["binding"]))["state"] == "failed"


@pytest.mark.parametrize(
    ("path", "body", "pointer"),
    [
        (_BATCH, {}, "/items"),
        (_BATCH, {"items": []}, "/items"),
        (_BATCH, {"items": {}}, "/items"),
        (_BATCH, {"items": [{}] * 1001}, "/items"),
        (_BATCH, {"items": [{}], "more": 1}, "/more"),
        (_BATCH, [], ""),
        (_RELEASE, {}, ""),
        (_RELEASE, {"ids": ["x"], "order_ids": ["y"]}, ""),
        (_RELEASE, {"ids": []}, "/ids"),
        (_RELEASE, {"order_ids": [""]}, "/order_ids/0"),
        (_RELEASE, {"order_ids": ["x"] * 1001}, "/order_ids"),
    ],
)
async def test_a_bad_envelope_is_refused_as_a_whole(client: Client, path: str, body: Any, pointer: str) -> None:
    """What is no batch of 1 to 1,000 items is one 422."""
    assert pointer in (await client.ask("POST", path, body or None, data=orjson.dumps(body))).pointers()


async def test_a_batch_may_have_4_mib(client: Client) -> None:
    """A batch of exactly 4 MiB is read, one byte more is not; other routes keep their 64 KiB, chunked or not."""
    core = orjson.dumps({"items": [_item()]})
    assert _statuses(await client.ask("POST", _BATCH, data=io.BytesIO(core.ljust(4 << 20)))) == [201]
    (await client.ask("POST", _BATCH, data=io.BytesIO(core.ljust((4 << 20) + 1)))).problem(413, "body_too_large")

    async def chunks() -> Any:
        for _ in range(20):
            yield b" " * 4096

    (await client.ask("POST", "/v1/bindings", data=chunks())).problem(413, "body_too_large")


async def test_a_thousand_items(client: Client) -> None:
    """The largest batch is accepted whole, each item as a binding of its own."""
    couriers = [phone() for _ in range(100)]
    items = [_item(a=couriers[n % 100]) for n in range(1000)]
    answer = await client.ask("POST", _BATCH, {"items": items}, headers={**_ASYNC, "Request-Timeout": "20"})
    assert _statuses(answer) == [202] * 1000
    assert len({told["binding"]["id"] for told in answer.body["items"]}) == 1000


# -- idempotency -------------------------------------------------------------------------------------------------------


async def test_one_key_covers_the_batch(client: Client) -> None:
    """A repeat gets the first answer byte for byte and binds nothing; another body under the key is 422."""
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    items = [_item(), _item(pool="atlantis"), _item()]
    first = await client.ask("POST", _BATCH, {"items": items}, headers=headers)
    assert _statuses(first) == [201, 422, 201]
    again = await client.ask("POST", _BATCH, {"items": items}, headers=headers)
    assert (again.raw, again.headers["Idempotency-Replayed"]) == (first.raw, "true")
    assert len(await client.platform_of(items[0]["a"])) == 1
    other = await client.ask("POST", _BATCH, {"items": items[:1]}, headers=headers)
    other.problem(422, "idempotency_key_reused")


async def test_twins_bind_once(client: Client) -> None:
    """Of many concurrent batches with one key, one is carried out."""
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    items = [_item() for _ in range(10)]
    answers = await asyncio.gather(*(client.ask("POST", _BATCH, {"items": items}, headers=headers) for _ in range(10)))
    assert {answer.status for answer in answers} <= {200, 409}
    assert len({answer.raw for answer in answers if answer.status == 200}) == 1
    for item in items:
        assert len(await client.platform_of(item["a"])) == 1


async def test_a_batch_with_an_items_5xx_may_be_repeated(client: Client) -> None:
    """An item that failed for no fault of its own is tried anew by a repeat; what was bound is found."""
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    items = [_item() for _ in range(4)]
    await client.fault("bind", "code", code="1010003", count=1)
    first = await client.ask("POST", _BATCH, {"items": items}, headers=headers)
    assert sorted(_statuses(first)) == [201, 201, 201, 502]
    again = await client.ask("POST", _BATCH, {"items": items}, headers=headers)
    assert _statuses(again) == [201] * 4
    assert "Idempotency-Replayed" not in again.headers
    for before, after in zip(first.body["items"], again.body["items"], strict=True):
        assert before["status"] == 502 or before["binding"]["id"] == after["binding"]["id"]
    third = await client.ask("POST", _BATCH, {"items": items}, headers=headers)
    assert (third.raw, third.headers["Idempotency-Replayed"]) == (again.raw, "true")


async def test_a_repeat_after_a_crash_finds_what_was_made() -> None:
    """A worker killed amid a batch: the repeat with the key answers every item, and none is bound twice."""
    quick = {
        "BROKER_TEST_CRASH_AT": "after_commit:kill:3", "BROKER_RESCUE_INTERVAL_S": "0.2", "BROKER_LEASE_S": "6",
    }  # fmt: skip
    with state_folder(memory()) as folder, up(folder, "--workers", "1", settings=quick) as service:
        async with client_of(service) as client:
            items = [_item(order_id=f"crash-{n}") for n in range(2)]
            headers = {"Idempotency-Key": "crash", "Request-Timeout": "1"}
            items += [_item(order_id="crash-2"), _item(order_id="crash-3", pool="atlantis")]
            with pytest.raises(aiohttp.ClientError):
                await client.ask("POST", _BATCH, {"items": items}, headers=headers)
            made = await rows(service, "SELECT id FROM binding ORDER BY id")
            assert len(made) == 3
            answer = await _until_answered(client, {"items": items}, headers)
            assert _statuses(answer)[3] == 422
            assert set(_statuses(answer)[:3]) <= {201, 202}
            for place, told in enumerate(answer.body["items"][:3]):
                found = await client.until(told["binding"]["id"], "active")
                assert found["order_id"] == f"crash-{place}"
            again = await client.ask("POST", _BATCH, {"items": items}, headers=headers)
            assert (again.raw, again.headers["Idempotency-Replayed"]) == (answer.raw, "true")
            assert await rows(service, "SELECT id FROM binding ORDER BY id") == made
            assert len(await client.platform_bindings()) == 3


async def _until_answered(client: Client, body: Json, headers: dict[str, str]) -> Answer:
    """Repeat as a client would: through refused connections, and as long as the first try counts as under way."""
    deadline = asyncio.get_running_loop().time() + 30
    while True:
        assert asyncio.get_running_loop().time() < deadline
        try:
            answer = await client.ask("POST", _BATCH, body, headers=headers)
        except aiohttp.ClientError:
            await asyncio.sleep(0.05)
            continue
        if answer.status != 409:
            return answer
        answer.problem(409, "idempotency_in_progress")
        await asyncio.sleep(0.1)


# -- releasing ---------------------------------------------------------------------------------------------------------


async def test_release_by_ids(client: Client, other: Tenant) -> None:
    """Each id has its outcome in order: released, released before, unknown, malformed, no text; nobody else's."""
    bound = (await client.ask("POST", _BATCH, {"items": [_item() for _ in range(3)]})).body["items"]
    ids = [told["binding"]["id"] for told in bound]
    await client.ask("DELETE", f"/v1/bindings/{ids[1]}")
    foreign = await client.ask("POST", _RELEASE, {"ids": ids}, key=other.keys["main"])
    assert _statuses(foreign) == [404, 404, 404]
    answer = await client.ask("POST", _RELEASE, {"ids": [*ids, "bnd_" + "0" * 32, "nothing", 7]})
    assert _statuses(answer) == [200, 200, 200, 404, 404, 404]
    assert [told["binding"]["state"] for told in answer.body["items"][:3]] == ["released"] * 3
    assert {told["problem"]["code"] for told in answer.body["items"][3:]} == {"binding_not_found"}
    held = {item["subscription_id"] for item in await client.platform_bindings()}
    assert not held & {told["binding"]["platform_binding_id"] for told in bound}


async def test_release_by_orders(client: Client) -> None:
    """All live bindings of the named orders are released; an order without any is a 404 at its place."""
    one, two = uuid.uuid4().hex, uuid.uuid4().hex
    made = [(await client.bind(order_id=order)).body["id"] for order in (one, two, one)]
    answer = await client.ask("POST", _RELEASE, {"order_ids": [two, "never heard of", one]})
    assert _statuses(answer) == [200, 404, 200, 200]
    told = answer.body["items"]
    assert told[1]["problem"]["order_id"] == "never heard of"
    assert [told[place]["binding"]["id"] for place in (0, 2, 3)] == [made[1], made[0], made[2]]


async def test_release_with_respond_async(client: Client) -> None:
    """With Prefer: respond-async releases are begun, not awaited."""
    binding = (await client.bind()).body["id"]
    await client.fault("unbind", "delay", ms=500, count=1)
    answer = await client.ask("POST", _RELEASE, {"ids": [binding]}, headers=_ASYNC)
    assert _statuses(answer) == [202]
    assert answer.body["items"][0]["binding"]["state"] == "releasing"
    await client.until(binding, "released")


async def test_an_order_is_released_whole(client: Client, other: Tenant) -> None:
    """POST /v1/orders/{order_id}:release ends all live bindings of the order of this app; again it has none."""
    order = f"order {uuid.uuid4().hex}/ü:1"
    path = "/v1/orders/" + order.replace(" ", "%20").replace("/", "%2F").replace("ü", "%C3%BC") + ":release"
    made = {(await client.bind(order_id=order)).body["id"] for _ in range(3)}
    nothing = await client.ask("POST", path, key=other.keys["main"])
    assert (nothing.status, nothing.body) == (200, {"items": []})
    answer = await client.ask("POST", path)
    assert answer.status == 200, answer.raw
    assert {binding["id"] for binding in answer.body["items"]} == made
    assert {binding["state"] for binding in answer.body["items"]} == {"released"}
    assert (await client.ask("POST", path)).body == {"items": []}


@pytest.mark.parametrize("way", ["ids", "order_ids", "order"])
async def test_many_released_with_grace(client: Client, way: str) -> None:
    """All have ended at once; each line goes on to connect until its grace ends, also one that several share."""
    order, pairs = uuid.uuid4().hex, [(phone(), phone()) for _ in range(2)]
    made = [(await client.bind(a=a, b=b, order_id=order)).body for a, b in (*pairs, pairs[0], pairs[0])]
    assert len({one["line"] for one in made}) == 2
    if way == "order":
        answer = await client.ask("POST", f"/v1/orders/{order}:release?grace_s=600")
        shown = answer.body["items"]
    else:
        named = {"ids": [one["id"] for one in made], "order_ids": [order]}
        answer = await client.ask("POST", _RELEASE, {way: named[way], "grace_s": 600})
        shown = [item["binding"] for item in answer.body["items"]]
    assert (answer.status, [one["state"] for one in shown]) == (200, ["released"] * 4)
    for a, b in pairs:
        (held,) = await client.platform_of(a)
        assert held["x"] == (again := (await client.bind(a=a, b=b)).body)["x"]
        assert again["line"] in {one["line"] for one in made}


async def test_a_grace_too_long_is_refused(client: Client) -> None:
    """By every way to release."""
    batch = await client.ask("POST", _RELEASE, {"ids": ["x"], "grace_s": 86_401})
    order = await client.ask("POST", "/v1/orders/x:release?grace_s=-1")
    assert (batch.pointers(), order.pointers()) == ({"/grace_s"}, {"/grace_s"})


async def test_an_order_not_yet_released_is_202(client: Client) -> None:
    """When the platform is slow the order's release is 202 with what is still releasing."""
    order = uuid.uuid4().hex
    binding = (await client.bind(order_id=order)).body["id"]
    await client.fault("unbind", "delay", ms=800, count=1)
    answer = await client.ask("POST", f"/v1/orders/{order}:release", headers={"Request-Timeout": "0.2"})
    assert (answer.status, [found["state"] for found in answer.body["items"]]) == (202, ["releasing"])
    await client.until(binding, "released")


async def test_scopes(client: Client, other: Tenant) -> None:
    """Binding and releasing want the scope bind, listing wants read."""
    for path in (_BATCH, _RELEASE, "/v1/orders/x:release"):
        (await client.ask("POST", path, {}, key=other.keys["reader"])).problem(403, "forbidden")
    for method, path in (("GET", "/v1/bindings"), ("POST", "/v1/bindings:search"), ("GET", "/v1/pools")):
        body: Json | None = {} if method == "POST" else None
        (await client.ask(method, path, body, key=other.keys["binder"])).problem(403, "forbidden")

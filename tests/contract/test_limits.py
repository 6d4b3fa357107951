from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from tests.contract.service import Answer, Client, Service, add_app, add_key, eventually, phone, rows, settled_config

_APP = "UPDATE app SET {} WHERE name = $1"
_CALLER = "UPDATE caller SET {} WHERE name = 'main' AND app_id = (SELECT id FROM app WHERE name = $1)"


async def _limited(service: Service, client: Client, name: str, limits: str, *, app: str = "") -> str:
    """An app with two numbers whose caller, and which itself, has limits; its key, stored after all else."""
    tenant = await add_app(service, name, pools=[("here", "0755", [phone(), phone()])], callers=())
    await rows(service, "INSERT INTO caller (app_id, name) VALUES ($1, 'main')", tenant.app_id)
    await rows(service, _CALLER.format(limits), name)
    if app:
        await rows(service, _APP.format(app), name)
    await client.emulator("PUT", f"apps/key-of-{name}", {"secret": "secret", "mode": "axb", "rate": 0, "burst": None})
    numbers = await rows(
        service, "SELECT number FROM x_number JOIN pool ON pool.id = pool_id WHERE app_id = $1", tenant.app_id
    )
    rented = [{"number": row["number"], "area_code": "0755"} for row in numbers]
    await client.emulator("PUT", f"apps/key-of-{name}/numbers", rented)
    return await add_key(service, tenant.app_id, "main", ("bind", "read"))


async def test_over_the_limit_is_429_with_when_to_come_back(service: Service, client: Client) -> None:
    """One request in 100 s: both workers share it; 429 tells when to come back; no answer hides the limit."""
    key = await _limited(service, client, "slow", "requests_per_s = 0.01")

    async def ask() -> Any:
        answer = await client.ask("GET", "/v1/bindings/bnd_none", key=key, headers={"Connection": "close"})
        return answer if answer.status != 401 else None

    statuses: Counter[int] = Counter()
    for _ in range(12):
        answer = await eventually(ask, "the key is known")
        statuses[answer.status] += 1
        assert answer.headers["RateLimit-Policy"] == '"caller";q=1;w=100'
        if answer.status == 429:
            answer.problem(429, "rate_limited")
            assert 1 <= int(answer.headers["Retry-After"]) <= 100
            assert answer.headers["RateLimit"] == '"caller";r=0;t=100'
    assert statuses[404] == 1
    assert statuses[429] == 11


async def test_who_has_no_limit_hears_of_none(client: Client) -> None:
    """No header, no row."""
    answer = await client.ask("GET", "/v1/bindings/bnd_none")
    assert answer.status == 404
    assert "RateLimit-Policy" not in answer.headers


async def test_both_limits_are_told(service: Service, client: Client) -> None:
    """The caller's and the app's stand side by side; a batch costs its items."""
    key = await _limited(service, client, "both", "requests_per_s = 500", app="requests_per_s = 2000")
    await settled_config(service, client, key)
    items = [{"a": phone(), "b": phone()} for _ in range(30)]
    answer = await client.ask("POST", "/v1/bindings:batch", {"items": items}, key=key)
    assert answer.status == 200, answer.raw
    assert answer.headers["RateLimit-Policy"] == '"caller";q=500;w=1, "app";q=2000;w=1'
    caller, app = (int(part.split("r=")[1].split(";")[0]) for part in answer.headers["RateLimit"].split(", "))
    assert caller <= 480
    assert app <= 1990


async def test_live_bindings_are_exact_over_both_workers(service: Service, client: Client) -> None:
    """Of forty binds at once on two workers five are made; a release makes room for one; 429 is never stored."""
    key = await _limited(service, client, "few", "max_live_bindings = 5")
    await settled_config(service, client, key)
    pairs = [(phone(), phone()) for _ in range(40)]

    async def bind(n: int) -> Answer:
        a, b = pairs[n]
        return await client.bind(key=key, headers={"Idempotency-Key": f"k{n}"}, a=a, b=b)

    answers = await asyncio.gather(*(bind(n) for n in range(40)))
    assert Counter(answer.status for answer in answers) == {201: 5, 429: 35}
    refused = next(n for n, answer in enumerate(answers) if answer.status == 429)
    assert answers[refused].problem(429, "live_limit")["limit"] == 5
    assert int(answers[refused].headers["Retry-After"]) >= 1
    gone = next(answer.body["id"] for answer in answers if answer.status == 201)
    assert (await client.ask("DELETE", f"/v1/bindings/{gone}", key=key)).status == 200
    assert (await bind(refused)).status == 201
    assert (await client.bind(key=key)).status == 429


async def test_items_of_a_batch_have_the_limit_each(service: Service, client: Client) -> None:
    """What fits is made, the others are 429; the batch's answer is not stored, and its repeat makes nothing twice."""
    key = await _limited(service, client, "batch", "max_live_bindings = 100", app="max_live_bindings = 3")
    await settled_config(service, client, key)
    items = [{"a": phone(), "b": phone()} for _ in range(10)]
    headers = {"Idempotency-Key": "batch"}
    answer = await client.ask("POST", "/v1/bindings:batch", {"items": items}, key=key, headers=headers)
    first = answer.body["items"]
    assert Counter(item["status"] for item in first) == {201: 3, 429: 7}
    assert {item["problem"]["code"] for item in first if item["status"] == 429} == {"live_limit"}
    answer = await client.ask("POST", "/v1/bindings:batch", {"items": items}, key=key, headers=headers)
    assert "Idempotency-Replayed" not in answer.headers
    made = [item["binding"]["id"] for item in first if item["status"] == 201]
    assert [item["binding"]["id"] for item in answer.body["items"] if "binding" in item] == made


async def test_a_bind_that_comes_to_nothing_does_not_count(service: Service, client: Client) -> None:
    """Refused binds leave room: two numbers hold one pair of parties twice at most, however often a third is asked."""
    key = await _limited(service, client, "none", "max_live_bindings = 4")
    await settled_config(service, client, key)
    a = phone()
    statuses = Counter([(await client.bind(key=key, a=a, share=False)).status for _ in range(6)])
    assert statuses[201] == 2
    assert statuses[409] == 4
    assert (await client.bind(key=key)).status == 201

"""Mode AXYB over HTTP: the platform picks X and Y, and each B has a number of its own."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from tests.contract.axyb import Axyb
from tests.contract.service import Client, Json, Service, client_of, eventually, phone


@pytest.fixture
def axyb(service: Service, client: Client) -> Axyb:
    """The app of mode AXYB."""
    return Axyb(service, client)


async def test_x_and_y_connect(axyb: Axyb) -> None:
    """B dials X and reaches A, A dials Y and reaches B; after the release nobody does."""
    a, b = phone(), phone()
    binding = await axyb.bind(a=a)
    assert (binding["mode"], binding["b"], binding["extension"], binding["state"]) == ("axyb", None, None, "active")
    made = await axyb.add(binding, b=b, ttl_s=600)
    assert made.status == 201, made.raw
    peer = made.body
    assert (peer["state"], peer["b"], peer["ttl_s"]) == ("active", f"{b[:3]}{'*' * 7}{b[-4:]}", 600)
    assert made.headers["Location"] == f"/v1/bindings/{binding['id']}/peers/{peer['id']}"
    assert (await axyb.client.call(a, peer["y"]))["connected_to"] == b
    assert (await axyb.client.call(b, binding["x"]))["connected_to"] == a
    dropped = await axyb.ask("DELETE", made.headers["Location"])
    assert (dropped.status, dropped.body["state"], dropped.body["reason"]) == (200, "released", "released")
    assert (await axyb.client.call(a, peer["y"]))["connected_to"] is None
    assert (await axyb.release(binding)).body["state"] == "released"
    assert (await axyb.client.call(b, binding["x"]))["connected_to"] is None


async def test_a_b_has_one_y(axyb: Axyb) -> None:
    """A second request for the same B is answered with its Y; a repeat with the same key is the same answer."""
    binding, b = await axyb.bind(), phone()
    path, headers = f"/v1/bindings/{binding['id']}/peers", {"Idempotency-Key": "one-y"}
    first, twin = await asyncio.gather(*(axyb.ask("POST", path, {"b": b}, headers=headers) for _ in range(2)))
    made = first if first.status == 201 else twin
    repeat = await axyb.ask("POST", path, {"b": b}, headers=headers)
    assert (repeat.status, repeat.raw, repeat.headers["Idempotency-Replayed"]) == (201, made.raw, "true")
    again = await axyb.add(binding, b=b)
    assert (again.status, again.body) == (200, made.body)
    shown = await axyb.ask("GET", made.headers["Location"])
    assert (shown.status, shown.body) == (200, made.body)


async def test_the_platform_makes_one_when_b_dials(axyb: Axyb) -> None:
    """Who dials X first gets a Y from the platform; the list has it, and says whose making it was."""
    a, b = phone(), phone()
    binding = await axyb.bind(a=a, peer_ttl_s=600)
    assert (await axyb.client.call(b, binding["x"]))["connected_to"] == a
    listed = await axyb.ask("GET", f"/v1/bindings/{binding['id']}/peers")
    assert (listed.status, listed.body["complete"]) == (200, True)
    (peer,) = listed.body["items"]
    assert (peer["made_by_platform"], peer["state"], peer["b"][-4:]) == (True, "active", b[-4:])
    assert (await axyb.client.call(a, peer["y"]))["connected_to"] == b


async def test_peers_end_with_their_binding(axyb: Axyb) -> None:
    """The release of the binding takes its peers along; it takes no new ones."""
    binding = await axyb.bind()
    peers = [(await axyb.add(binding, b=phone())).body for _ in range(3)]
    await axyb.release(binding)
    for peer in peers:
        shown = (await axyb.ask("GET", f"/v1/bindings/{binding['id']}/peers/{peer['id']}")).body
        assert (shown["state"], shown["reason"]) == ("released", "binding_ended")
    (await axyb.add(binding, b=phone())).problem(409, "binding_ended")


async def test_refused_requests(axyb: Axyb) -> None:
    """Each has its own code, and nothing is made."""
    a = phone()
    binding = await axyb.bind(a=a)
    assert (await axyb.add(binding, b=a)).pointers() == {"/b"}
    assert (await axyb.add(binding, b="+864001234567")).mistakes() == {"/b": "service_number"}
    assert (await axyb.add(binding, b=phone(), ttl_s=7_776_001)).mistakes() == {"/ttl_s": "ttl_out_of_range"}
    assert (await axyb.add(binding, b=phone(), tone="nobody-knows")).pointers() == {"/tone"}
    assert (await axyb.add(binding, b=binding["x"])).pointers() == {"/b"}
    assert (await axyb.add(binding)).pointers() == {"/b"}
    other = await axyb.bind()
    theirs = (await axyb.add(other, b=phone())).body
    for stranger in (theirs["id"], "per_" + "0" * 32, binding["id"]):
        for method in ("GET", "DELETE"):
            answer = await axyb.ask(method, f"/v1/bindings/{binding['id']}/peers/{stranger}")
            answer.problem(404, "peer_not_found")
    assert (await axyb.ask("GET", f"/v1/bindings/{binding['id']}/peers")).body == {"items": [], "complete": True}
    pair = (await axyb.client.bind()).body
    answer = await axyb.client.ask("POST", f"/v1/bindings/{pair['id']}/peers", {"b": phone()})
    answer.problem(409, "not_modifiable")


async def test_what_the_wire_cannot_change(axyb: Axyb) -> None:
    """A PATCH of anything that the platform holds is refused; what stays with us changes."""
    binding = await axyb.bind()
    path = f"/v1/bindings/{binding['id']}"
    for change in ({"a": phone()}, {"ttl_s": 7200}, {"direction": "a_to_b"}, {"recording": {"enabled": True}}):
        (await axyb.ask("PATCH", path, change)).problem(409, "not_modifiable")
    kept = await axyb.ask("PATCH", path, {"user_data": "ours"})
    assert (kept.status, kept.body["user_data"], kept.body["x"]) == (200, "ours", binding["x"])


async def test_lifetimes_are_finite(axyb: Axyb) -> None:
    """A bind without an end, or with one too far away, is refused."""
    for ttl_s in (0, 7_776_001, 59):
        answer = await axyb.ask("POST", "/v1/bindings", {"a": phone(), "area_code": "0755", "ttl_s": ttl_s})
        assert answer.mistakes() == {"/ttl_s": "ttl_out_of_range"}


async def test_five_x_at_most(axyb: Axyb) -> None:
    """The sixth X of an A is refused by us, with no request to the platform."""
    a = phone()
    made = [await axyb.bind(a=a) for _ in range(5)]
    before = len([row for row in await axyb.client.ledger() if row["op"] == "bind"])
    answer = await axyb.ask("POST", "/v1/bindings", {"a": a, "area_code": "0755", "ttl_s": 600})
    answer.problem(409, "party_limit")
    assert len([row for row in await axyb.client.ledger() if row["op"] == "bind"]) == before
    assert len({one["x"] for one in made}) == 5
    for one in made:
        await axyb.release(one)


async def test_five_x_at_most_under_two_processes(service: Service, axyb: Axyb) -> None:
    """However many ask at once, at whichever process, an A gets five X and no sixth."""
    a = phone()
    path, body = "/v1/bindings", {"a": a, "area_code": "0755", "ttl_s": 600}

    async def once() -> int:
        async with client_of(service) as client:  # a connection of its own: either of the processes takes it
            answer = await client.ask("POST", path, body, key=axyb.key, headers={"Request-Timeout": "20"})
        return answer.status

    seen = Counter(await asyncio.gather(*(once() for _ in range(16))))
    assert seen == {201: 5, 409: 11}
    held = {item["x"] for item in await axyb.client.platform_of(a)}
    assert len(held) == 5


async def test_a_lost_answer_is_found(axyb: Axyb) -> None:
    """A bind that was carried out but not answered is found among the pool's numbers; it was sent once."""
    a = phone()
    await axyb.client.fault("bind", "drop_answer", count=1)
    answer = await axyb.ask(
        "POST", "/v1/bindings", {"a": a, "area_code": "0755", "ttl_s": 600}, headers={"Request-Timeout": "20"}
    )
    assert answer.status in {201, 202}, answer.raw

    async def active() -> Json | None:
        found = (await axyb.ask("GET", f"/v1/bindings/{answer.body['id']}")).body
        return dict(found) if found["state"] == "active" else None

    found = await eventually(active, "adopted")
    assert (await axyb.client.call(phone(), found["x"]))["connected_to"] == a

"""The feed of events as order systems read it: from a cursor, waiting, and as a stream."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from broker.domain.events import event_id
from tests.contract.service import LIMIT_S, Client, Json, Service, Tenant, eventually, rows


async def _latest(client: Client) -> str:
    return str((await client.ask("GET", "/v1/events?after=latest")).body["next_after"])


async def _told(client: Client, after: str, count: int, query: str = "") -> list[Json]:
    """Read on from a cursor until there are so many events."""
    found: list[Json] = []
    async with asyncio.timeout(LIMIT_S):
        while len(found) < count:
            answer = await client.ask("GET", f"/v1/events?after={after}&wait_s=5{query}")
            assert answer.status == 200, answer.raw
            found += answer.body["items"]
            after = answer.body["next_after"]
    return found


async def test_a_binding_is_told_from_begin_to_end(client: Client) -> None:
    """Confirmed and released: CloudEvents, in order, with the order's own words and never a party's phone."""
    after = await _latest(client)
    bound = await client.bind(order_id="order-77", user_data="ring twice", metadata={"floor": 3})
    binding = bound.body["id"]
    await client.ask("DELETE", f"/v1/bindings/{binding}")
    active, released = await _told(client, after, 2, f"&binding_id={binding}")
    assert active["specversion"] == "1.0"
    assert active["id"] < released["id"]
    assert (active["type"], released["type"]) == ("binding.active", "binding.released")
    assert active["source"] == "/apps/demo-axb"
    assert {active["subject"], released["subject"]} == {binding}
    assert active["data"] == {
        "binding_id": binding, "order_id": "order-77", "user_data": "ring twice", "metadata": {"floor": 3},
        "state": "active", "x": bound.body["x"], "expires_at": bound.body["expires_at"],
    }  # fmt: skip
    assert released["data"]["reason"] == "released"


async def test_filters_and_pages(client: Client) -> None:
    """Types by name or kind, a limit, and a cursor that passes over what was filtered out."""
    after = await _latest(client)
    made = [(await client.bind()).body["id"] for _ in range(3)]
    for binding in made:
        await client.ask("DELETE", f"/v1/bindings/{binding}")
    assert [event["subject"] for event in await _told(client, after, 3, "&types=binding.released&limit=1")] == made
    everything = await _told(client, after, 6, "&types=binding.*")
    assert [event["id"] for event in everything] == sorted(event["id"] for event in everything)
    rest = await client.ask("GET", f"/v1/events?after={everything[2]['id']}&types=binding.*")
    assert [event["id"] for event in rest.body["items"]] == [event["id"] for event in everything[3:]]
    none = (await client.ask("GET", f"/v1/events?after={after}&types=cdr.created&binding_id={made[0]}")).body
    assert none["items"] == []
    assert none["next_after"] >= everything[-1]["id"]


async def test_who_waits_is_answered_when_something_happens(client: Client) -> None:
    """A long poll that begins before the event ends with it; one that nothing happens for ends empty."""
    after = await _latest(client)
    waiting = asyncio.create_task(client.ask("GET", f"/v1/events?after={after}&wait_s=30&types=binding.active"))
    binding = (await client.bind()).body["id"]
    answer = await asyncio.wait_for(waiting, LIMIT_S)
    assert [event["subject"] for event in answer.body["items"]] == [binding]
    quiet = await client.ask("GET", f"/v1/events?after={answer.body['next_after']}&wait_s=1&types=audit.drift")
    assert quiet.body["items"] == []


async def test_wrong_questions(client: Client, other: Tenant) -> None:
    """Another app's cursor, one that is yet to come, unknown types and ids: each named by its parameter."""
    for query, pointer in (
        ("after=evt_0", "/after"),
        (f"after={event_id(other.app_id, 1)}", "/after"),
        ("types=binding.gone", "/types"),
        ("types=", "/types"),
        ("binding_id=bnd_x", "/binding_id"),
        ("limit=0", "/limit"),
        ("wait_s=31", "/wait_s"),
        ("wait_s=1.5", "/wait_s"),
    ):
        assert (await client.ask("GET", f"/v1/events?{query}")).pointers() == {pointer}, query
    app_id = int((await rows(client.service, "SELECT id FROM app WHERE name = 'demo-axb'"))[0]["id"])
    assert (await client.ask("GET", f"/v1/events?after={event_id(app_id, 2**62)}")).pointers() == {"/after"}
    assert (await client.ask("GET", "/v1/events", key=other.keys["main"])).body["items"] == []


async def test_a_cursor_that_is_too_old(client: Client, service: Service, other: Tenant) -> None:
    """What is kept no more is a 410, so that nobody takes a gap for silence."""
    await rows(service, "INSERT INTO event_feed (app_id, upto, swept) VALUES ($1, 9, 5)", other.app_id)
    key = other.keys["main"]
    old = await client.ask("GET", f"/v1/events?after={event_id(other.app_id, 4)}", key=key)
    old.problem(410, "cursor_too_old")
    assert (await client.ask("GET", f"/v1/events?after={event_id(other.app_id, 5)}", key=key)).status == 200
    await rows(service, "DELETE FROM event_feed WHERE app_id = $1", other.app_id)


async def _frames(response: aiohttp.ClientResponse) -> AsyncIterator[dict[str, str]]:
    frame: dict[str, str] = {}
    async for line in response.content:
        name, _, value = line.decode().rstrip("\n").partition(": ")
        if name:
            frame[name] = value
        elif frame:
            yield frame
            frame = {}


async def _stream(client: Client, query: str = "", **headers: str) -> aiohttp.ClientResponse:
    sent = {"Accept": "text/event-stream", "Authorization": f"Bearer {client.service.key}", **headers}
    response = await client.http.get(f"{client.service.api}/v1/events{query}", headers=sent)
    assert response.status == 200
    assert response.content_type == "text/event-stream"
    return response


async def _next_event(frames: AsyncIterator[dict[str, str]]) -> Any:
    async with asyncio.timeout(LIMIT_S):
        async for frame in frames:
            if "data" in frame:
                assert orjson.loads(frame["data"])["id"] == frame["id"]
                return orjson.loads(frame["data"])
    raise AssertionError("the stream ended")


async def test_a_stream_goes_on_where_it_broke_off(client: Client) -> None:
    """Server-sent events as they happen; Last-Event-ID brings what happened meanwhile."""
    response = await _stream(client, "?types=binding.active")
    first = (await client.bind()).body["id"]
    seen = await _next_event(_frames(response))
    assert seen["subject"] == first
    response.close()
    second = (await client.bind()).body["id"]
    again = await _stream(client, "?types=binding.active", **{"Last-Event-ID": seen["id"]})
    assert (await _next_event(_frames(again)))["subject"] == second
    again.close()


async def test_a_quiet_stream_shows_that_it_lives(client: Client) -> None:
    """A comment comes while nothing happens."""
    response = await _stream(client, "?types=audit.drift")

    async def beat() -> bool:
        return (await response.content.readline()).startswith(b": evt_")

    assert await eventually(beat, "a heartbeat")
    response.close()


def sockets() -> list[str]:
    """The kernel's view: what it holds stays there until somebody reads, so the reader's own socket shows no end."""
    return Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()


async def test_a_reader_that_takes_nothing_is_cut_off(client: Client, service: Service, other: Tenant) -> None:
    """Once the connection is full and nothing is taken for ten seconds; others are told all the while."""
    emit = "SELECT emit_event($1, 'audit.drift', NULL, NULL, jsonb_build_object('words', repeat('w', 8000)))"
    await rows(service, f"{emit} FROM generate_series(1, 2000)", other.app_id)
    host, _, port = service.api.removeprefix("http://").partition(":")
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect((host, int(port)))
        slow.sendall(
            f"GET /v1/events HTTP/1.1\r\nHost: {host}\r\nAccept: text/event-stream\r\n"
            f"Last-Event-ID: {event_id(other.app_id, 0)}\r\nAuthorization: Bearer {other.keys['main']}\r\n\r\n".encode()
        )
        server, own = f":{int(port):04X} ", f":{slow.getsockname()[1]:04X} 01 "

        async def cut() -> bool:
            return not any(server in line and own in line.split(server, 1)[1] for line in sockets())

        after = await _latest(client)
        binding = (await client.bind()).body["id"]
        assert [event["subject"] for event in await _told(client, after, 1)] == [binding]
        assert not await cut()
        await eventually(cut, "the slow reader is cut off", limit_s=2 * LIMIT_S)

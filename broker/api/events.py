"""``GET /v1/events``: an app's events after a cursor, at once or when there are some, or as a stream."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from uuid import UUID

from aiohttp import web

from broker.api import parse
from broker.api.auth import authorize
from broker.api.context import Heard, Reply, Services
from broker.api.reply import pack
from broker.domain.events import cloud_event, event_id, expand, parse_event_id
from broker.domain.ids import parse_public_id
from broker.errors import FieldError, Invalid, Problem
from broker.flows.feed import Slice
from broker.flows.inwork import aside

_STREAM = "text/event-stream"
_BEAT_S = 10.0
#: A reader that takes nothing for so long is cut off.
_SLOW_S = 10.0
_STREAM_SLICE = 100


@dataclass(frozen=True, slots=True)
class _Wanted:
    after: int
    types: list[str] | None
    binding_id: UUID | None


async def show(request: web.Request, services: Services, heard: Heard) -> Reply | web.StreamResponse:
    """``GET /v1/events``."""
    asked = parse.events_query(request)
    if request.method == "GET" and _STREAM in request.headers.get("Accept", ""):
        return await _stream(request, asked, services, heard)
    wanted = await _wanted(asked, asked.after, services, heard)
    found = await _read(wanted, asked.limit, services, heard)
    if not found.items and asked.wait_s:
        found = await _wait(wanted, found, asked, services, heard)
    heard.notes["items"] = len(found.items)
    app = heard.key.app
    body = {
        "items": [cloud_event(event, app.id, app.name) for event in found.items],
        "next_after": event_id(app.id, found.upto),
        "more": found.more,
    }
    return Reply(200, pack(body))


async def _wait(wanted: _Wanted, found: Slice, asked: parse.EventsQuery, services: Services, heard: Heard) -> Slice:
    feeds, app_id = services.feeds, heard.key.app.id
    loop = asyncio.get_running_loop()
    deadline = loop.time() + asked.wait_s
    async with feeds.waiter(app_id):
        while not found.items:
            with aside():
                news = found.more or await feeds.beyond(app_id, found.upto, deadline - loop.time())
            if not news:
                break
            following = _Wanted(found.upto, wanted.types, wanted.binding_id)
            found = await _read(following, asked.limit, services, heard)
    return found


async def _stream(
    request: web.Request, asked: parse.EventsQuery, services: Services, heard: Heard
) -> web.StreamResponse:
    """Send events as they come until the reader goes, is too slow, or its key is revoked."""
    feeds, app = services.feeds, heard.key.app
    after = request.headers.get("Last-Event-ID") or asked.after or "latest"
    wanted = await _wanted(asked, after, services, heard)
    headers = {"Content-Type": _STREAM, "Cache-Control": "no-store", "X-Request-Id": heard.request_id}
    async with feeds.waiter(app.id):
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        sent, upto = 0, wanted.after
        try:
            await _write(response, b"retry: 2000\n\n")
            while not feeds.closed:
                found = await _read(_Wanted(upto, wanted.types, wanted.binding_id), _STREAM_SLICE, services, heard)
                for event in found.items:
                    told = cloud_event(event, app.id, app.name)
                    text = f"id: {told['id']}\nevent: {event.type}\ndata: ".encode() + pack(told) + b"\n\n"
                    await _write(response, text)
                sent, upto = sent + len(found.items), found.upto
                with aside():
                    news = found.more or await feeds.beyond(app.id, upto, _BEAT_S)
                if not news:
                    authorize(request, services.registry(), "read")
                    await _write(response, f": {event_id(app.id, upto)}\n\n".encode())
        except (Problem, ConnectionError, TimeoutError):
            # The status has been sent; whoever comes back with Last-Event-ID is told what is wrong.
            if request.transport is not None:
                request.transport.abort()
    heard.notes["items"] = sent
    return response


async def _write(response: web.StreamResponse, text: bytes) -> None:
    with aside():
        async with asyncio.timeout(_SLOW_S):
            await response.write(text)


async def _wanted(asked: parse.EventsQuery, after: str | None, services: Services, heard: Heard) -> _Wanted:
    """Check what is asked for.

    Raises:
        Invalid: a cursor of another app, a type or binding that there is not.
        Gone: the cursor is too old.
    """
    app_id = heard.key.app.id
    types = expand(asked.types.split(",")) if asked.types is not None else None
    binding = parse_public_id(asked.binding_id) if asked.binding_id is not None else None
    pos = parse_event_id(after, app_id) if after not in {None, "latest"} else None
    errors = []
    if asked.types is not None and types is None:
        errors.append(FieldError("/types", "names a type that there is not"))
    if asked.binding_id is not None and binding is None:
        errors.append(FieldError("/binding_id", "is not the id of a binding"))
    if after not in {None, "latest"} and pos is None:
        errors.append(FieldError("/after", "is not the id of an event of this app"))
    if errors:
        raise Invalid("Some parameters are wrong; see errors.", errors=tuple(errors))
    begin = await services.feeds.end(app_id) if after == "latest" else await services.feeds.begin(app_id, pos)
    return _Wanted(begin, types, binding[1] if binding is not None else None)


async def _read(wanted: _Wanted, limit: int, services: Services, heard: Heard) -> Slice:
    return await services.feeds.read(
        heard.key.app.id, wanted.after, limit=limit, types=wanted.types, binding_id=wanted.binding_id
    )

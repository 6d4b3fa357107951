"""``/v1/reach``: who is reached through an X, now or at a moment before."""

from __future__ import annotations

from aiohttp import web

from broker.api import parse
from broker.api.context import Heard, Reply, Services
from broker.api.reply import pack
from broker.errors import Forbidden, NotFound
from broker.flows.reach import Question, tell
from broker.flows.route import spot_in
from broker.store.registry import Key


async def show(request: web.Request, services: Services, heard: Heard) -> Reply:
    """``GET /v1/reach``."""
    return await _answer(parse.reach_query(request), services, heard, reveal=False)


async def query(_request: web.Request, services: Services, heard: Heard) -> Reply:
    """``POST /v1/reach:query``."""
    asked = parse.body_as(parse.ReachRequest, heard.body)
    if asked.reveal and "reveal" not in heard.key.scopes:
        raise Forbidden("This key lacks the scope 'reveal'.")
    return await _answer(asked, services, heard, reveal=asked.reveal)


async def _answer(asked: parse.ReachQuery, services: Services, heard: Heard, *, reveal: bool) -> Reply:
    registry = services.registry()
    spot = spot_in(registry, asked.x)
    if spot is None or registry.pools[spot.pool_id].app.id != heard.key.app.id:
        raise NotFound("There is no such X number.", code="number_not_found")
    question = Question(spot, asked.caller, asked.digits, asked.at)
    told = await tell(services.reach, question, reveal_to=who_is(heard.key) if reveal else None)
    heard.notes["why"] = told["why"]
    # A number in clear is never stored, not even as the answer to a repetition.
    return Reply(200, pack(told), keep=not reveal)


def who_is(key: Key) -> str:
    """Return who uses a key, for the record of who saw what."""
    return f"{key.app.name}/{key.caller} \u2026{key.hint}"

"""What every request of an order system goes through: its key, its place in the work, its limits, its handler."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar, cast

from aiohttp import web

from broker.api import parse
from broker.api.admission import admit
from broker.api.auth import authorize
from broker.api.context import Heard, Reply, Services
from broker.api.door import Guarded
from broker.api.idempotent import once
from broker.api.limited import charged
from broker.api.request import Request
from broker.api.routes import Route
from broker.clock import boottime
from broker.domain.admission import Work
from broker.errors import Problem
from broker.flows.inwork import WORK

_CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})

R = TypeVar("R", bound=Request)
#: What a handler answers with: GET may answer with a stream.
A = TypeVar("A", bound=Reply | web.StreamResponse)


async def carry_out(
    request: R,
    services: Services,
    route: Route,
    handler: Callable[[R, Services, Heard], Awaitable[A]],
    read: Callable[[int], Awaitable[bytes]],
) -> A:
    """Have the route's ``handler`` answer; ``read(limit)`` reads the body, of at most so many bytes.

    Raises:
        Problem: it is refused.
    """
    limits = services.limits
    key = authorize(request, services.registry(), route.scope)
    wait_s = parse.deadline_s(request, default=limits.default_deadline_s, longest=limits.longest_deadline_s)
    work = _let_in(request)
    if work is None:
        admit(services.gate, route.kind, wait_s, large=route.batch)
    try:
        await charged(request, services, key)
        deadline = boottime() + wait_s
        body = await read(limits.batch_bytes if route.batch else limits.body_bytes)
        work = work or services.gate.begin(route.kind)
        heard = Heard(request["id"], key, deadline, parse.respond_async(request), body, work)
        request["notes"] = heard.notes
        heard.notes["caller"] = key.caller
        before = WORK.set(work)
        try:
            if route.method in _CHANGING:
                kept = cast("Callable[[R, Services, Heard], Awaitable[Reply]]", handler)
                reply = cast("A", await once(request, services, heard, kept))
            else:
                reply = await handler(request, services, heard)
            if isinstance(reply, Reply):
                work.telling = reply.problem is None
                if reply.problem is not None and not reply.replayed:
                    services.refused(key.app, reply.status, reply.problem)
            return reply
        finally:
            WORK.reset(before)
            work.end()
    except Problem as problem:
        services.refused(key.app, problem.status, problem.code)
        raise


def _let_in(request: Request) -> Work | None:
    """Return what counts the request since it came, if it passed the door."""
    return request.protocol.work if isinstance(request.protocol, Guarded) else None

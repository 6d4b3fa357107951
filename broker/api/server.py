"""The HTTP application: every request gets an id, one log line, and problem+json for whatever goes wrong."""

from __future__ import annotations

import re
import time
from uuid import uuid4

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler as AiohttpHandler

from broker.api import parse, problems
from broker.api.auth import authorize
from broker.api.context import SERVICES, Heard, Reply, Services
from broker.api.health import Conditions, add_health
from broker.api.idempotent import once
from broker.api.reply import problem_reply, to_http
from broker.api.routes import ROUTES, Route
from broker.clock import boottime
from broker.errors import MethodNotAllowed, NotFound, Problem, TooLarge

log = structlog.get_logger()

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_CHANGING = frozenset({"POST", "PATCH", "DELETE"})


def build(services: Services, conditions: Conditions) -> web.Application:
    """Return the application of the `api` listener."""
    app = web.Application(middlewares=[outermost], client_max_size=services.limits.body_bytes)
    app[SERVICES] = services
    for route in ROUTES:
        app.router.add_route(route.method, route.path, _endpoint(route))
    app.router.add_get("/problems", problems.page)
    add_health(app, conditions)
    return app


def _endpoint(route: Route) -> AiohttpHandler:
    async def endpoint(request: web.Request) -> web.StreamResponse:
        services = request.app[SERVICES]
        key = authorize(request, services.registry(), route.scope)
        limits = services.limits
        wait_s = parse.deadline_s(request, default=limits.default_deadline_s, longest=limits.longest_deadline_s)
        heard = Heard(
            request_id=request["id"],
            key=key,
            deadline=boottime() + wait_s,
            respond_async=parse.respond_async(request),
            body=await parse.body_of(request, limits.body_bytes),
        )
        request["notes"] = heard.notes
        heard.notes["caller"] = key.caller
        if route.method in _CHANGING:
            reply = await once(request, services, heard, route.handler)
        else:
            reply = await route.handler(request, services, heard)
        return _sent(request, reply)

    return endpoint


@web.middleware
async def outermost(request: web.Request, handler: AiohttpHandler) -> web.StreamResponse:
    """Name the request, answer every error as a problem, write the one log line."""
    started = time.perf_counter()
    presented = request.headers.get("X-Request-Id", "")
    request["id"] = presented if _REQUEST_ID.fullmatch(presented) else f"req_{uuid4().hex}"
    try:
        response = await handler(request)
    except Problem as problem:
        response = _sent(request, problem_reply(problem, request["id"]))
    except web.HTTPException as raised:
        response = _sent(request, problem_reply(_as_problem(raised), request["id"]))
        if "Allow" in raised.headers:
            response.headers["Allow"] = raised.headers["Allow"]
    except Exception:
        log.exception("request_broken", request_id=request["id"])
        response = _sent(request, problem_reply(Problem("Something went wrong on our side."), request["id"]))
    if "code" in request or "notes" in request or response.status >= 400:  # noqa: PLR2004 - health checks that pass are noise
        log.info(
            "request_done",
            request_id=request["id"],
            traceparent=request.headers.get("traceparent"),
            method=request.method,
            route=_route_of(request),
            status=response.status,
            code=request.get("code"),
            ms=round((time.perf_counter() - started) * 1000, 2),
            **request.get("notes", {}),
        )
    return response


def _sent(request: web.Request, reply: Reply) -> web.Response:
    if reply.problem is not None:
        request["code"] = reply.problem
    return to_http(reply, request["id"])


def _as_problem(raised: web.HTTPException) -> Problem:
    match raised.status:
        case 404:
            return NotFound("There is nothing at this path.")
        case 405:
            return MethodNotAllowed("This path does not take that method.")
        case 413:
            return TooLarge()
        case _:
            problem = Problem(raised.reason)
            problem.status = raised.status  # type: ignore[misc] # one-off status of aiohttp's own
            return problem


def _route_of(request: web.Request) -> str | None:
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else None

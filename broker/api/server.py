"""The HTTP application: every request gets an id, one log line, and problem+json for whatever goes wrong."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler as AiohttpHandler

from broker.api import bindings, docs, parse, problems, whole
from broker.api.admission import Shed
from broker.api.context import SERVICES, Reply, Services
from broker.api.door import Answer, Door, Guarded
from broker.api.endpoint import carry_out
from broker.api.health import Conditions, add_health
from broker.api.limited import told
from broker.api.naming import new_request_id, request_id_of
from broker.api.openapi import Description, document
from broker.api.operations import OPEN
from broker.api.reply import headers_of, problem_reply, to_http
from broker.api.request import Request
from broker.api.routes import ROUTES, Route
from broker.api.whole import Whole
from broker.errors import BadRequest, MethodNotAllowed, NotFound, Problem, TooLarge
from broker.metrics import Metrics

log = structlog.get_logger()

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?=[0-9]*[a-f])[0-9a-f]{32}-(?=[0-9]*[a-f])[0-9a-f]{16}-[0-9a-f]{2}")
#: Where both listeners' applications count.
METRICS: web.AppKey[Metrics] = web.AppKey("metrics", Metrics)


def build(services: Services, conditions: Conditions, metrics: Metrics) -> web.Application:
    """Return the application of the `api` listener."""
    app = web.Application(middlewares=[outermost], client_max_size=services.limits.batch_bytes)
    app[SERVICES] = services
    app[METRICS] = metrics
    for route in ROUTES:
        app.router.add_route(route.method, route.path, _endpoint(route))
        if route.method == "GET":
            app.router.add_route("HEAD", route.path, _endpoint(route))
    app.router.add_get("/problems", problems.page)
    app.router.add_get("/docs", docs.page)
    app.router.add_get("/docs/{file}", docs.asset)
    app.router.add_get("/openapi.json", Description(document(ROUTES, OPEN)).show)
    add_health(app, conditions)
    return app


def _endpoint(route: Route) -> AiohttpHandler:
    async def endpoint(request: web.Request) -> web.StreamResponse:
        read = partial(parse.body_of, request)
        reply = await carry_out(request, request.app[SERVICES], route, route.handler, read)
        return _sent(request, reply) if isinstance(reply, Reply) else reply

    return endpoint


def shortly(services: Services, metrics: Metrics) -> Answer:
    """Return what answers binds that came in one piece (:mod:`broker.api.whole`)."""
    route = next(route for route in ROUTES if (route.method, route.path) == (whole.METHOD, whole.PATH))

    async def answer(request: Whole) -> bytes:
        started = time.perf_counter()
        request_id = request["id"] = request_id_of(request.headers.get("X-Request-Id", ""))
        quiet = False
        try:
            reply = await carry_out(request, services, route, bindings.create, request.read_body)
        except Problem as problem:
            reply = problem_reply(problem, request_id)
            quiet = isinstance(problem, Shed)
        except Exception:
            log.exception("request_broken", request_id=request_id)
            reply = problem_reply(Problem("Something went wrong on our side."), request_id)
        _note(request, reply, metrics)
        headers = headers_of(reply, request_id)
        if "standing" in request:
            headers.update(told(request["standing"]))
        _finish(request, metrics, route.path, reply.status, started, quiet=quiet)
        return whole.write(reply.status, headers, reply.body)

    return answer


@web.middleware
async def outermost(request: web.Request, handler: AiohttpHandler) -> web.StreamResponse:
    """Name the request, answer every error as a problem, write the one log line."""
    started = time.perf_counter()
    request["id"] = request_id_of(request.headers.get("X-Request-Id", ""))
    quiet = False
    try:
        response = await handler(request)
    except Problem as problem:
        response = _sent(request, problem_reply(problem, request["id"]))
        quiet = isinstance(problem, Shed)
    except web.HTTPException as raised:
        response = _sent(request, problem_reply(_as_problem(raised), request["id"]))
        if "Allow" in raised.headers:
            response.headers["Allow"] = raised.headers["Allow"]
    except Exception:
        log.exception("request_broken", request_id=request["id"])
        response = _sent(request, problem_reply(Problem("Something went wrong on our side."), request["id"]))
    response.headers["X-Request-Id"] = request["id"]
    if "standing" in request:
        response.headers.update(told(request["standing"]))
    _finish(request, request.app[METRICS], _route_of(request), response.status, started, quiet=quiet)
    return response


def _finish(request: Request, metrics: Metrics, route: str | None, status: int, started: float, *, quiet: bool) -> None:
    """Count a request and write its line in the log."""
    seconds = time.perf_counter() - started
    metrics.answered(route or "none", request.method, status, seconds)
    if not quiet and ("code" in request or "notes" in request or status >= 400):  # noqa: PLR2004 - health checks that pass are noise
        log.info(
            "request_done",
            request_id=request["id"],
            traceparent=_traceparent(request),
            method=request.method,
            route=route,
            status=status,
            code=request.get("code"),
            ms=round(seconds * 1000, 2),
            **(request.get("notes") or {}),
        )


class Protocol(Guarded):
    """A connection whose unreadable requests are answered as problems."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer as aiohttp does, but with a problem that repeats nothing of what was sent."""
        response = super().handle_error(request, status, exc, message)
        problem = BadRequest("This is not readable as HTTP/1.1.") if status < 500 else Problem()  # noqa: PLR2004
        request_id = new_request_id()
        answer = to_http(problem_reply(problem, request_id), request_id)
        if response.keep_alive is False:
            answer.force_close()
        return answer


class Runner(web.AppRunner):
    """Serves an application and answers as problems, too, what never reaches it: unreadable HTTP, odd expectations."""

    __slots__ = ("_door",)
    protocol: type[Protocol] = Protocol

    def __init__(self, app: web.Application, *, door: Door | None = None, **options: Any) -> None:
        """As AppRunner does; ``door`` turns requests away while there are too many."""
        super().__init__(app, **options)
        self._door = door

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        inner = server.request_handler

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            try:
                return await inner(request)
            except web.HTTPException as raised:
                return to_http(
                    problem_reply(
                        _as_problem(raised), (request_id := request_id_of(request.headers.get("X-Request-Id", "")))
                    ),
                    request_id,
                )

        # A compressed body is refused by its header; unpacking it, or failing to, is nothing to do before that.
        options = {**server._kwargs, "auto_decompress": False, **self.protocol_options()}  # noqa: SLF001 - as AppRunner makes it
        factory = partial(_made, server.request_factory)
        served = _Server(handle, request_factory=factory, loop=server._loop, **options)  # noqa: SLF001
        served.protocol = self.protocol
        return served

    def protocol_options(self) -> dict[str, Any]:
        """Return what a connection of this listener needs beside aiohttp's own."""
        return {"door": self._door}


def _made(make: Callable[..., web.BaseRequest], message: object, *arguments: Any) -> Any:
    """Return a request as the framework makes it; one that came in one piece is one."""
    return message if isinstance(message, Whole) else make(message, *arguments)


class _Server(web.Server):
    protocol = Protocol

    def __call__(self) -> Guarded:
        return self.protocol(self, loop=self._loop, **self._kwargs)


def _traceparent(request: Request) -> str | None:
    presented = request.headers.get("traceparent", "")
    return presented if _TRACEPARENT.fullmatch(presented) else None


def _sent(request: web.Request, reply: Reply) -> web.Response:
    _note(request, reply, request.app[METRICS])
    return to_http(reply, request["id"])


def _note(request: Request, reply: Reply, metrics: Metrics) -> None:
    if reply.problem is not None:
        request["code"] = reply.problem
    if reply.replayed:
        metrics.replays.inc()


def _as_problem(raised: web.HTTPException) -> Problem:
    match raised.status:
        case 404:
            return NotFound("There is nothing at this path.")
        case 405:
            return MethodNotAllowed("This path does not take that method.")
        case 413:
            return TooLarge()
        case _:
            problem = BadRequest(raised.reason) if raised.status < 500 else Problem(raised.reason)  # noqa: PLR2004
            problem.status = raised.status  # type: ignore[misc] # one-off status of aiohttp's own
            return problem


def _route_of(request: web.Request) -> str | None:
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else None

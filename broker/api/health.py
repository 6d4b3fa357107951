"""Health and version, for load balancers and people; no key needed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from broker import __version__
from broker.api.reply import pack

#: Name of a condition → does it hold. `required` ones decide readiness, the others only show in ?verbose.
Conditions = Callable[[], Awaitable[tuple[Mapping[str, bool], Mapping[str, bool]]]]


def add_health(app: web.Application, conditions: Conditions) -> None:
    """Add /livez, /readyz and /version."""

    async def livez(_request: web.Request) -> web.Response:
        return _json(200, {"status": "ok"})

    async def readyz(request: web.Request) -> web.Response:
        required, shown = await conditions()
        ready = all(required.values())
        body: dict[str, object] = {"status": "ok" if ready else "not_ready"}
        if "verbose" in request.query:
            body["required"] = required
            body["shown"] = shown
        return _json(200 if ready else 503, body)

    async def version(_request: web.Request) -> web.Response:
        return _json(200, {"version": __version__})

    app.router.add_get("/livez", livez)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/version", version)


def _json(status: int, body: object) -> web.Response:
    return web.Response(status=status, body=pack(body), content_type="application/json")

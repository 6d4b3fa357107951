"""Operator routes on the admin listener: who may, with which database, and how it is answered."""

from __future__ import annotations

import asyncio

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler

from broker.admin.routes import ROUTES, Route
from broker.admin.use import Asked
from broker.api import problems
from broker.api.parse import body_of
from broker.api.reply import pack
from broker.api.server import METRICS, outermost
from broker.errors import BadRequest, Forbidden, NotFound, Unauthorized
from broker.flows.operate.desk import Desk
from broker.metrics import Metrics
from broker.settings import Settings
from broker.store.crypto import Vault, parse_data_keys, parse_index_key
from broker.store.database import Database
from broker.store.registry import hash_key
from broker.store.statements import statements

#: 100,000 numbers with their details.
BODY_BYTES = 16 * 1024 * 1024
_CONNECTIONS = 2
_SCOPE = "operate"


class _LazyDesk:
    """The parent's own connections: made by the first request; the parent lives without a database."""

    def __init__(self, settings: Settings) -> None:
        self._db = Database(
            settings.database_url,
            connections=_CONNECTIONS,
            timeout_s=settings.db_timeout_s,
            statement_cache=settings.db_statement_cache,
        )
        self._desk = Desk(self._db, Vault(parse_data_keys(settings.data_keys), parse_index_key(settings.index_key)))
        self._opening = asyncio.Lock()
        self._open = False

    async def desk(self) -> Desk:
        """Return the desk, connected at least once.

        Raises:
            DatabaseAway: the server does not answer.
        """
        async with self._opening:
            if not self._open:
                await self._db.open()
                self._open = True
        return self._desk

    async def close(self, _app: web.Application) -> None:
        """Close the connections."""
        await self._db.close()


def admin_app(settings: Settings, metrics: Metrics) -> web.Application:
    """Return the application of the admin listener, without health."""
    app = web.Application(middlewares=[outermost], client_max_size=BODY_BYTES)
    app[METRICS] = metrics
    lazy = _LazyDesk(settings)
    for route in ROUTES:
        app.router.add_route(route.method, route.path, _endpoint(route, lazy))
    app.router.add_get("/problems", problems.page)
    app.on_cleanup.append(lazy.close)
    return app


def _endpoint(route: Route, lazy: _LazyDesk) -> Handler:
    async def endpoint(request: web.Request) -> web.StreamResponse:
        presented = _presented(request)
        if not all(name.isprintable() for name in request.match_info.values()):
            raise NotFound("There is nothing at this path.")
        desk = await lazy.desk()
        caller, who = await _authorize(desk, presented)
        request["notes"] = {"caller": caller}
        body = await body_of(request, route.file or BODY_BYTES)
        if route.file is None:
            asked = Asked(request.match_info, _json(body), request.query, who=who)
        else:
            asked = Asked(request.match_info, {}, request.query, file=body)
        answer = await route.use(desk, asked)
        headers = {"Cache-Control": "no-store"}
        if isinstance(answer, bytes):
            return web.Response(body=answer, content_type="audio/wav", headers=headers)
        if route.named and isinstance(answer, dict):
            headers["Location"] = f"{request.path}/{answer['name']}"
        return web.Response(
            status=201 if route.creates else 200,
            body=pack({"items": answer} if isinstance(answer, list) else answer),
            content_type="application/json",
            headers=headers,
        )

    return endpoint


def _presented(request: web.Request) -> str:
    scheme, _, presented = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not presented.strip():
        raise _unauthorized()
    return presented.strip()


async def _authorize(desk: Desk, presented: str) -> tuple[str, str]:
    row = await desk.db.fetchrow(statements("operate")["key_owner"], hash_key(presented))
    if row is None:
        raise _unauthorized()
    if _SCOPE not in row["scopes"]:
        raise Forbidden(f"This key lacks the scope '{_SCOPE}'.")
    return str(row["caller"]), f"{row['app']}/{row['caller']} …{row['hint']}"


def _unauthorized() -> Unauthorized:
    return Unauthorized("Send a valid API key as 'Authorization: Bearer bbk_...'.")


def _json(body: bytes) -> object:
    if not body:
        return {}
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        raise BadRequest("The body is not valid JSON.", code="malformed_json") from None

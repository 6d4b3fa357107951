"""A service as a good engineer would write it in a day: aiohttp, asyncpg, one transaction a request.

``python -m bench.rivals.service PLAN`` (JSON) says ``ready``. Same bind API as the broker, as far as the load needs it;
``allocate`` is how an X is found: ``transaction`` (``FOR UPDATE SKIP LOCKED``), ``function`` (the same in one PL/pgSQL
call), ``optimistic`` (insert at a random X, try again if it was taken), ``none`` (answer at once: the bare framework).
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import re
import secrets
import sys
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import asyncpg
import orjson
import uvloop
from aiohttp import web
from aiohttp.typedefs import Handler

from broker.platform.huawei.sign import aksk_digest

_PATH = "/rest/caas/relationnumber/partners/v1.0"
_PHONE = re.compile(r"\+[1-9][0-9]{6,14}")
_TIMEOUT_S = 10.0
_TRIES = 20
_STATEMENT = re.compile(r"^-- name: (\w+)\n(.*?);$", re.MULTILINE | re.DOTALL)
SQL = dict(_STATEMENT.findall((Path(__file__).parent / "service.sql").read_text(encoding="utf-8")))


@dataclass(frozen=True, slots=True)
class Config:
    """What a process of the service is told; ``platform`` "" = nobody is called."""

    dsn: str
    port: int
    api_key: str
    allocate: str
    cap: int
    quarantine_s: int
    platform: str = ""
    app_key: str = ""
    app_secret: str = ""
    connections: int = 8


class Taken(Exception):
    """Somebody else was faster."""


class Service:
    """The handlers."""

    def __init__(self, config: Config, db: asyncpg.Pool[Any] | None, http: aiohttp.ClientSession) -> None:
        self._config = config
        self._db = db
        self._http = http
        self._numbers: dict[str, list[tuple[int, str]]] = defaultdict(list)
        self._answers = itertools.count(os.getpid() * 1_000_000)

    async def load(self) -> None:
        """Read the numbers, which do not change."""
        if self._db is not None:
            for row in await self._db.fetch(SQL["numbers"]):
                self._numbers[row["pool"]].append((row["id"], row["number"]))

    async def bind(self, request: web.Request) -> web.Response:
        """``POST /v1/bindings``."""
        self._admit(request)
        order = orjson.loads(await request.read())
        a, b, pool = order["a"], order["b"], order.get("pool", "")
        if not (_PHONE.fullmatch(a) and _PHONE.fullmatch(b)) or a == b:
            raise web.HTTPUnprocessableEntity
        binding = uuid4()
        if self._config.allocate == "none":
            return _reply(201, {"id": f"bnd_{binding.hex}", "x": f"+86{next(self._answers)}"})
        state = "pending" if self._config.platform else "active"
        number = await self._allocate(binding, pool, a, b, order, state)
        if number is None:
            raise web.HTTPConflict
        if self._config.platform:
            subscription = await self._bind_there(number, a, b, order["ttl_s"], binding)
            if subscription is None:
                await self._end(binding, "failed")
                raise web.HTTPBadGateway
            await self._pool.execute(SQL["confirm"], binding, subscription)
        return _reply(201, {"id": f"bnd_{binding.hex}", "x": number, "state": "active"})

    async def release(self, request: web.Request) -> web.Response:
        """``DELETE /v1/bindings/{id}``."""
        self._admit(request)
        binding = UUID(hex=request.match_info["id"].removeprefix("bnd_"))
        held = await self._pool.fetchrow(SQL["held"], binding)
        if held is None:
            raise web.HTTPNotFound
        if held["state"] == "active" and self._config.platform:
            await self._ask("DELETE", f"{_PATH}?subscriptionId={held['subscription_id']}", None)
        await self._end(binding, "released")
        return _reply(200, {"id": request.match_info["id"], "state": "released"})

    @property
    def _pool(self) -> asyncpg.Pool[Any]:
        if self._db is None:
            raise web.HTTPNotFound
        return self._db

    def _admit(self, request: web.Request) -> None:
        given = request.headers.get("Authorization", "")
        if not secrets.compare_digest(given, f"Bearer {self._config.api_key}"):
            raise web.HTTPUnauthorized

    async def _allocate(
        self, binding: UUID, pool: str, a: str, b: str, order: dict[str, Any], state: str
    ) -> str | None:
        rest = (order.get("order_id"), state, order["ttl_s"])
        for _ in range(_TRIES):
            try:
                match self._config.allocate:
                    case "transaction":
                        return await self._in_transaction(binding, pool, a, b, *rest)
                    case "function":
                        order_id, _, ttl_s = rest
                        args = (binding, pool, a, b, order_id, ttl_s, state, self._config.cap)
                        made: str | None = await self._pool.fetchval(SQL["call"], *args)
                        return made
                    case _:
                        x_id, number = random.choice(self._numbers[pool])
                        await self._pool.execute(SQL["guess"], binding, x_id, a, b, *rest)
                        return number
            except (Taken, asyncpg.DivisionByZeroError, asyncpg.SerializationError, asyncpg.DeadlockDetectedError):
                continue
        return None

    async def _in_transaction(
        self, binding: UUID, pool: str, a: str, b: str, order_id: str | None, state: str, ttl_s: int
    ) -> str | None:
        async with self._pool.acquire() as db, db.transaction():
            x = await db.fetchrow(SQL["pick"], pool, a, b, self._config.cap)
            if x is None:
                return None
            if len(await db.fetch(SQL["take"], a, b, x["id"])) != 2:
                raise Taken
            await db.execute(SQL["count"], x["id"], 1)
            await db.execute(SQL["add"], binding, x["id"], a, b, order_id, state, ttl_s)
            return str(x["number"])

    async def _end(self, binding: UUID, state: str) -> None:
        async with self._pool.acquire() as db, db.transaction():
            if await db.fetchval(SQL["end"], binding, state) is None:
                return
            held = await db.fetchrow(SQL["held"], binding)
            if held is not None:
                await db.execute(SQL["rest"], held["x_id"], held["a"], held["b"], self._config.quarantine_s)
                await db.execute(SQL["count"], held["x_id"], -1)

    async def _bind_there(self, x: str, a: str, b: str, ttl_s: int, binding: UUID) -> str | None:
        body = {
            "relationNum": x, "callerNum": a, "calleeNum": b, "callDirection": 0, "duration": ttl_s,
            "userData": binding.hex,
        }  # fmt: skip
        told = await self._ask("POST", _PATH, body)
        return str(told["subscriptionId"]) if told.get("resultcode") == "0" else None

    async def _ask(self, method: str, path: str, body: object) -> dict[str, Any]:
        config, nonce = self._config, secrets.token_hex(16)
        created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        digest = aksk_digest(config.app_secret, nonce, created)
        headers = {
            "Content-Type": "application/json;charset=UTF-8",
            "Authorization": 'AKSK realm="SDP",profile="UsernameToken",type="Appkey"',
            "X-AKSK": f'UsernameToken Username="{config.app_key}",PasswordDigest="{digest}",Nonce="{nonce}",'
            f'Created="{created}"',
        }
        sent = None if body is None else orjson.dumps(body)
        async with self._http.request(method, config.platform + path, data=sent, headers=headers) as answer:
            told: dict[str, Any] = orjson.loads(await answer.read())
        return told


def _reply(status: int, body: object) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(body), content_type="application/json")


@web.middleware
async def apologise(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Say that it did not work, where the database or the platform did not."""
    try:
        return await handler(request)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, aiohttp.ClientError, TimeoutError, OSError):
        raise web.HTTPServiceUnavailable from None


async def serve(config: Config) -> None:
    """Serve until the input ends."""
    db = None
    if config.dsn:
        db = await asyncpg.create_pool(
            config.dsn, min_size=config.connections, max_size=config.connections, command_timeout=_TIMEOUT_S
        )
    async with aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S), connector=aiohttp.TCPConnector(limit=64),
        cookie_jar=aiohttp.DummyCookieJar(),
    ) as http:  # fmt: skip
        service = Service(config, db, http)
        await service.load()
        app = web.Application(middlewares=[apologise])
        app.router.add_post("/v1/bindings", service.bind)
        app.router.add_delete("/v1/bindings/{id}", service.release)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", config.port, reuse_port=True, backlog=1024).start()
        print("ready", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        await runner.cleanup()
    if db is not None:
        db.terminate()


if __name__ == "__main__":
    uvloop.run(serve(Config(**orjson.loads(sys.argv[1]))))

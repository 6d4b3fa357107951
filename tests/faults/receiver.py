"""An order system that receives webhooks: verifies with the `standardwebhooks` package, and misbehaves when told to."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import orjson
from aiohttp import web
from standardwebhooks import Webhook

Json = dict[str, Any]


class Receiver:
    """Keeps what it accepted, by order of arrival; ``mood`` says how it answers."""

    def __init__(self) -> None:
        self.secrets: list[str] = []
        self.mood = "good"
        #: Answered with 500, whatever the mood.
        self.hates: set[str] = set()
        self.accepted: list[Json] = []
        self.asked: Counter[str] = Counter()
        self.unverified: list[str] = []
        self._sock = socket.create_server(("127.0.0.1", 0))
        self._port = int(self._sock.getsockname()[1])
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Where to send."""
        return f"http://127.0.0.1:{self._port}/events"

    async def start(self) -> None:
        """Listen, on the same port as before."""
        if self._runner is None:
            if self._sock.fileno() < 0:
                self._sock = socket.create_server(("127.0.0.1", self._port))
            app = web.Application()
            app.router.add_post("/events", self._receive)
            self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
            await self._runner.setup()
            await web.SockSite(self._runner, self._sock).start()

    async def die(self) -> None:
        """Close the port and all connections."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        self._sock.close()

    async def _receive(self, request: web.Request) -> web.Response:
        body = await request.read()
        event = orjson.loads(body)
        headers = {name.lower(): value for name, value in request.headers.items()}
        try:
            for secret in self.secrets:
                Webhook(secret).verify(body, headers)
        except Exception as error:  # noqa: BLE001 - whatever is wrong is wrong
            self.unverified.append(f"{event['id']}: {error!r}")
        assert event["id"] == headers["webhook-id"]
        self.asked[event["id"]] += 1
        if event["subject"] in self.hates:
            return web.Response(status=500)
        match self.mood:
            case "slow":
                await asyncio.sleep(30)
            case "wrong":
                return web.Response(status=500, text="no")
            case "redirect":
                return web.Response(status=307, headers={"Location": self.url})
            case "busy":
                return web.Response(status=429, headers={"Retry-After": "1"})
            case "gone":
                return web.Response(status=410)
        self.accepted.append(event)
        return web.Response(status=204)

    def once(self) -> list[Json]:
        """What was accepted, each id the first time."""
        seen: dict[str, Json] = {}
        for event in self.accepted:
            seen.setdefault(event["id"], event)
        return list(seen.values())

    def disorder(self) -> list[str]:
        """Bindings whose events came in another order than they happened."""
        last: dict[str, str] = {}
        wrong = []
        for event in self.once():
            if event["subject"] is not None:
                if last.get(event["subject"], "") > event["id"]:
                    wrong.append(event["subject"])
                last[event["subject"]] = event["id"]
        return wrong

    def missing(self, ids: Iterable[str]) -> list[str]:
        """Which of these were not accepted."""
        return sorted(set(ids) - {event["id"] for event in self.accepted})


@asynccontextmanager
async def receiver() -> AsyncIterator[Receiver]:
    """One that listens until the end of the block."""
    made = Receiver()
    await made.start()
    try:
        yield made
    finally:
        await made.die()

"""What the emulator's tests share: a running emulator, a signer, and the two ports as plain calls."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

from broker.emulator.server import serve
from broker.emulator.settings import EmulatorSettings
from broker.platform.huawei.sign import aksk_digest, wsse_digest

PATH = "/rest/caas/relationnumber/partners/v1.0"
KEY, SECRET = "app-one", "secret-one"
X1, X2, X3 = "+8617000000101", "+8617000000102", "+8617000000103"
A, B, C, D = "+8613900000001", "+8613900000002", "+8613900000003", "+8613900000004"

Json = dict[str, Any]


@dataclass(frozen=True)
class Reply:
    """One answer of the wire or the admin port."""

    http: int
    body: Json
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def code(self) -> str:
        """The platform's resultcode."""
        return str(self.body.get("resultcode"))

    @property
    def outcome(self) -> tuple[int, str]:
        """HTTP status and resultcode."""
        return self.http, self.code


def created_at(offset_s: float = 0) -> str:
    """Return a ``Created`` attribute that many seconds from now."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + offset_s))


def signed(
    *, key: str = KEY, secret: str = SECRET, scheme: str = "AKSK", created: str = "", nonce: str = "", gap: str = ","
) -> dict[str, str]:
    """Return the headers of a request signed the documented way."""
    nonce = nonce or secrets.token_hex(16)
    created = created or created_at()
    digest = (aksk_digest if scheme == "AKSK" else wsse_digest)(secret, nonce, created)
    token = (f'Username="{key}"', f'PasswordDigest="{digest}"', f'Nonce="{nonce}"', f'Created="{created}"')
    return {
        "Content-Type": "application/json;charset=UTF-8",
        "Authorization": gap.join((f'{scheme} realm="SDP"', 'profile="UsernameToken"', 'type="Appkey"')),
        f"X-{scheme}": "UsernameToken " + gap.join(token),
    }


@dataclass
class Emulated:
    """A running emulator seen through its two ports."""

    wire: str
    admin: str
    http: aiohttp.ClientSession
    skew_s: float = 0

    async def send(
        self,
        method: str = "POST",
        *,
        body: Json | bytes | None = None,
        query: str = "",
        headers: dict[str, str] | None = None,
        path: str = PATH,
    ) -> Reply:
        """Send a wire request; ``query`` goes out exactly as written."""
        url = URL(f"{self.wire}{path}{'?' + query if query else ''}", encoded=True)
        headers = signed(created=created_at(self.skew_s)) if headers is None else headers
        content = {"data": body} if isinstance(body, bytes) else {"json": body} if body is not None else {}
        async with self.http.request(method, url, headers=headers, **content) as answer:
            raw = await answer.read()
            parsed = await answer.json(content_type=None) if raw else {}
            return Reply(answer.status, parsed, dict(answer.headers))

    async def bind(self, x: str | None = X1, a: str = A, b: str = B, **more: Any) -> Reply:
        """Bind a pair; ``None`` leaves a field out."""
        fields = {"relationNum": x, "callerNum": a, "calleeNum": b, **more}
        return await self.send(body={name: value for name, value in fields.items() if value is not None})

    async def bound(self, x: str = X1, a: str = A, b: str = B, **more: Any) -> str:
        """Bind a pair that must be accepted; returns its subscription id."""
        reply = await self.bind(x, a, b, **more)
        assert reply.outcome == (200, "0"), reply
        return str(reply.body["subscriptionId"])

    async def unbind(self, **fields: str) -> Reply:
        """Unbind by the given parameters."""
        return await self.send("DELETE", query=as_query(fields))

    async def query(self, **fields: str) -> Reply:
        """Query by the given parameters."""
        return await self.send("GET", query=as_query(fields))

    async def modify(self, subscription_id: str, **fields: Any) -> Reply:
        """Modify a binding."""
        return await self.send("PUT", body={"subscriptionId": subscription_id, **fields})

    async def ask(self, method: str, path: str, body: Any = None) -> Reply:
        """Use the admin port."""
        content = {"data": body} if isinstance(body, bytes) else {"json": body} if body is not None else {}
        async with self.http.request(method, f"{self.admin}/emulator/{path}", **content) as answer:
            raw = await answer.read()
            return Reply(answer.status, await answer.json() if raw else {}, dict(answer.headers))

    async def app(self, key: str = KEY, secret: str = SECRET, mode: str = "axb", **more: Any) -> None:
        """Put an application, without flow control unless told."""
        reply = await self.ask("PUT", f"apps/{key}", {"secret": secret, "mode": mode, "rate": None, **more})
        assert reply.http == 200, reply

    async def numbers(self, *numbers: str, key: str = KEY, area: str = "0755") -> Reply:
        """Put an application's numbers, ``number`` or ``number@area``."""
        listed = [n.partition("@") for n in numbers]
        items = [{"number": number, "area_code": own or area} for number, _, own in listed]
        return await self.ask("PUT", f"apps/{key}/numbers", items)

    async def tones(self, *names: str, key: str = KEY) -> None:
        """Approve voice files."""
        for name in names:
            assert (await self.ask("PUT", f"apps/{key}/tones/{name}")).http == 200

    async def call(self, caller: str, to: str, digits: str | None = None) -> tuple[str | None, str | None, int]:
        """Dial; returns who was connected, what was shown, and the release cause."""
        body = (await self.ask("POST", "calls", {"from": caller, "to": to, "digits": digits})).body
        assert body["session_id"]
        return body["connected_to"], body["shown"], body["state_code"]

    async def advance(self, seconds: float) -> None:
        """Move the emulator's clock, and sign later requests by it."""
        assert (await self.ask("POST", "clock", {"advance_s": seconds})).http == 200
        self.skew_s += seconds

    async def ledger(self, after: int = 0) -> list[Json]:
        """Return all ledger rows above ``after``."""
        return list((await self.ask("GET", f"ledger?after={after}&limit=10000")).body["items"])

    async def bindings(self) -> list[Json]:
        """Return all live bindings."""
        return list((await self.ask("GET", "bindings?limit=10000")).body["items"])

    async def fault(self, **fields: Any) -> int:
        """Put a fault in force; returns its id."""
        reply = await self.ask("POST", "faults", fields)
        assert reply.http == 201, reply
        return int(reply.body["id"])


def as_query(fields: dict[str, str]) -> str:
    """Return a query string with ``+`` as ``%2B``."""
    return "&".join(f"{name}={value.replace('+', '%2B')}" for name, value in fields.items())


@contextlib.asynccontextmanager
async def emulator(state_dir: Path, *, app: Json | None = None, **settings: Any) -> AsyncIterator[Emulated]:
    """Run an emulator in this process with one app, of AXB unless ``app`` says otherwise, that owns three numbers."""
    urls: asyncio.Future[tuple[str, str]] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(
        serve(
            EmulatorSettings(state_dir=state_dir, seed=7, **settings),
            ready=lambda wire, admin: urls.set_result((wire, admin)),
            handle_signals=False,
        )
    )
    either: list[asyncio.Future[Any]] = [task, urls]
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        await task
    try:
        async with aiohttp.ClientSession() as http:
            running = Emulated(*urls.result(), http)
            if not (await running.ask("GET", "health")).body["apps"]:
                await running.app(**(app or {}))
                await running.numbers(X1, X2, X3)
            yield running
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

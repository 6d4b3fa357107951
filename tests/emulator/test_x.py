from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web

from bench.ports import free_ports
from broker.platform.huawei.sign import aksk_digest
from tests.emulator.support import KEY, SECRET, X1, X2, A, B, C, Emulated, Json, emulator

LANDLINE = "+861065550001"


class Customer:
    """The app's own server: answers ``callin`` with ``reply`` and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Json] = []
        self.headers: list[dict[str, str]] = []
        self.reply: object = None
        self.status = 200
        self.held: asyncio.Event | None = None
        self.arrived = asyncio.Semaphore(0)
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        """Answer one event."""
        self.asked.append(await request.json())
        self.headers.append(dict(request.headers))
        self.arrived.release()
        if self.held is not None:
            await self.held.wait()
        body = self.reply if isinstance(self.reply, bytes) else orjson.dumps(self.reply)
        elsewhere = {"Location": f"{self.url}/moved"}
        return web.Response(body=body, status=self.status, headers=elsewhere, content_type="application/json")

    async def moved(self, request: web.Request) -> web.Response:
        """Connect whoever was led here."""
        del request
        return web.json_response({"operation": "connect", "connectInfo": {"calleeNum": C}})

    def connect(self, **info: Any) -> None:
        """Connect from now on, with ``connectInfo`` as the object of the table."""
        self.reply = {"operation": "connect", "connectInfo": info}


@pytest.fixture
async def customer() -> AsyncIterator[Customer]:
    """A server of the app on a port of its own."""
    served = Customer()
    app = web.Application()
    app.add_routes([web.post("/status", served.answer), web.post("/status/moved", served.moved)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    served.url = f"http://127.0.0.1:{runner.addresses[0][1]}/status"
    yield served
    await runner.cleanup()


@contextlib.asynccontextmanager
async def asking(state_dir: Path, url: str | None, *, block_reply_s: float = 60) -> AsyncIterator[Emulated]:
    """Run an emulator whose app is in X mode and is asked at ``url``."""
    async with emulator(state_dir, app={"mode": "x", "callin_url": url}, block_reply_s=block_reply_s) as emu:
        yield emu


@pytest.fixture
async def emu(tmp_path: Path, customer: Customer) -> AsyncIterator[Emulated]:
    """An emulator whose app in X mode is asked at the customer's address."""
    async with asking(tmp_path / "state", customer.url) as running:
        yield running


async def calls(emu: Emulated) -> list[Json]:
    """Return the connected calls that are kept."""
    return list((await emu.ask("GET", "calls")).body["items"])


async def test_the_customer_says_who_answers(emu: Emulated, customer: Customer) -> None:
    """A call to X is connected as the reply says; the callee sees X unless the reply says otherwise."""
    customer.connect(calleeNum=B)
    assert await emu.call(A, X1) == (B, X1, 0)
    customer.connect(calleeNum=C, displayCalleeNum=X2)
    assert await emu.call(A, X1) == (C, X2, 0)
    assert len(customer.asked) == 2


async def test_the_question_is_a_signed_event(emu: Emulated, customer: Customer) -> None:
    """``callin`` names caller, X and the session, asks for a reply, and is signed with the app's secret."""
    customer.connect(calleeNum=B)
    answer = (await emu.ask("POST", "calls", {"from": A, "to": X1})).body
    (asked,) = customer.asked
    timestamp = asked["statusInfo"].pop("timestamp")
    assert len(timestamp) == len("2024-01-23 09:16:41")
    assert asked == {
        "eventType": "callin",
        "statusInfo": {"sessionId": answer["session_id"], "caller": A, "called": X1, "notifyMode": "Block"},
    }
    (headers,) = customer.headers
    assert headers["Authorization"] == 'AKSK realm="SDP",profile="UsernameToken",type="Appkey"'
    scheme, _, token = headers["X-AKSK"].partition(" ")
    pieces = {name: value.strip('"') for name, _, value in (piece.partition("=") for piece in token.split(","))}
    assert (scheme, pieces["Username"]) == ("UsernameToken", KEY)
    assert pieces["PasswordDigest"] == aksk_digest(SECRET, pieces["Nonce"], pieces["Created"])
    assert headers["Content-Type"] == "application/json;charset=UTF-8"


@pytest.mark.parametrize("wrap", [lambda info: info, lambda info: [info]])
async def test_both_forms_of_a_reply(emu: Emulated, customer: Customer, wrap: Callable[[Json], object]) -> None:
    """An object and an array of one are the same, for ``connect`` and for ``close``."""
    customer.reply = {"operation": "connect", "connectInfo": wrap({"calleeNum": B})}
    assert await emu.call(A, X1) == (B, X1, 0)
    customer.reply = {"operation": "close", "closeInfo": wrap({"userData": "order-1"})}
    assert await emu.call(A, X1) == (None, None, 8017)


_GOOD: Json = {"calleeNum": B}


@pytest.mark.parametrize(
    "reply",
    [
        None,
        [],
        {},
        b"",
        b"{",
        b"[" + b" " * 70_000 + b"]",
        {"operation": "wait", "connectInfo": _GOOD},
        {"operation": "connect"},
        {"operation": "connect", "connectInfo": []},
        {"operation": "connect", "connectInfo": [_GOOD, _GOOD]},
        {"operation": "connect", "connectInfo": "connect"},
        {"operation": "connect", "connectInfo": {"displayCalleeNum": X1}},
        {"operation": "connect", "connectInfo": {"calleeNum": "13900000002"}},
        {"operation": "connect", "connectInfo": {**_GOOD, "maxDuration": 7_200}},
        {"operation": "connect", "connectInfo": {**_GOOD, "recordFlag": "yes"}},
        {"operation": "connect", "connectInfo": {**_GOOD, "userData": "{}"}},
        {"operation": "connect", "connectInfo": {**_GOOD, "displayCalleeNum": 1}},
        {"operation": "close"},
        {"operation": "close", "closeInfo": {"userData": "{}"}},
    ],
)
async def test_a_wrong_reply_ends_the_call(emu: Emulated, customer: Customer, reply: object) -> None:
    """Whatever breaks a rule of the reply is 8014, and no call is up."""
    customer.reply = reply
    assert await emu.call(A, X1) == (None, None, 8014)
    assert await calls(emu) == []


@pytest.mark.parametrize("status", [201, 204, 302, 307, 401, 500])
async def test_only_a_200_is_a_reply(emu: Emulated, customer: Customer, status: int) -> None:
    """Another status is no reply, whatever it carries or wherever it leads; the question is not asked again."""
    customer.connect(calleeNum=B)
    customer.status = status
    assert await emu.call(A, X1) == (None, None, 8014)
    assert len(customer.asked) == 1


async def test_a_late_reply_is_none(tmp_path: Path, customer: Customer) -> None:
    """A customer that does not answer in time is not waited for."""
    customer.connect(calleeNum=B)
    customer.held = asyncio.Event()
    async with asking(tmp_path, customer.url, block_reply_s=0.3) as emu:
        assert await emu.call(A, X1) == (None, None, 8014)
        customer.held.set()
        assert len(customer.asked) <= 1


async def test_nobody_to_ask(tmp_path: Path) -> None:
    """Without an address, and at one where nobody listens, the call ends with 8014."""
    (port,) = free_ports(1)
    for name, url in (("none", None), ("closed", f"http://127.0.0.1:{port}/status")):
        async with asking(tmp_path / name, url) as emu:
            assert await emu.call(A, X1) == (None, None, 8014)


async def test_a_voice_file_must_be_known(emu: Emulated, customer: Customer) -> None:
    """A reply that names a file nobody approved ends the call with 8006; approved, it is followed."""
    for info in ({"waitVoice": "new.wav"}, {"recordFlag": "true", "recordHintTone": "new.wav"}):
        customer.connect(calleeNum=B, **info)
        assert await emu.call(A, X1) == (None, None, 8006)
    customer.reply = {"operation": "close", "closeInfo": {"closeHintTone": "new.wav"}}
    assert await emu.call(A, X1) == (None, None, 8006)
    await emu.tones("new.wav")
    assert await emu.call(A, X1) == (None, None, 8017)
    customer.connect(calleeNum=B, waitVoice="new.wav")
    assert await emu.call(A, X1) == (B, X1, 0)


async def test_a_landline_cannot_dial_x(emu: Emulated, customer: Customer) -> None:
    """A landline's call ends with 8023 before anybody is asked; a landline can be reached."""
    customer.connect(calleeNum=LANDLINE)
    assert await emu.call(LANDLINE, X1) == (None, None, 8023)
    assert customer.asked == []
    assert await emu.call(A, X1) == (LANDLINE, X1, 0)


async def test_calls_wait_for_their_own_replies(emu: Emulated, customer: Customer) -> None:
    """While one call waits for its reply, the wire and the admin port serve others."""
    customer.connect(calleeNum=B)
    customer.held = asyncio.Event()
    waiting = [asyncio.create_task(emu.call(A, X1)) for _ in range(3)]
    for _ in waiting:
        await customer.arrived.acquire()
    assert (await emu.ask("GET", "health")).http == 200
    assert not any(task.done() for task in waiting)
    customer.held.set()
    assert await asyncio.gather(*waiting) == [(B, X1, 0)] * 3


async def test_the_terms_of_a_reply(emu: Emulated, customer: Customer) -> None:
    """The longest duration, the recording and the user data of the reply are those of the call."""
    customer.connect(calleeNum=B, maxDuration=2, recordFlag=True, userData="order-1")
    await emu.call(A, X1)
    await emu.advance(300)
    (call,) = await calls(emu)
    assert (call["user_data"], call["subscription_id"], call["state_code"]) == ("order-1", None, 8010)
    assert call["recording"]


async def test_there_is_nothing_to_bind(emu: Emulated) -> None:
    """The interfaces of other modes are refused."""
    assert (await emu.bind(X1)).outcome == (403, "1010040")


async def test_the_address_is_restored(tmp_path: Path, customer: Customer) -> None:
    """After a restart the app is asked at the same address."""
    customer.connect(calleeNum=B)
    async with asking(tmp_path, customer.url):
        pass
    async with emulator(tmp_path) as emu:
        assert await emu.call(A, X1) == (B, X1, 0)


@pytest.mark.parametrize("url", ["", "ftp://127.0.0.1/", "127.0.0.1", "http://", "http://" + "a" * 2_100])
async def test_a_bad_address_is_refused(emu: Emulated, url: str) -> None:
    """An address is http or https and of bounded length."""
    body = {"secret": SECRET, "mode": "x", "callin_url": url}
    assert (await emu.ask("PUT", f"apps/{KEY}", body)).http == 422

"""The driver against raw sockets: each outcome of a call as an `Answer`."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Protocol

import orjson
import pytest

from broker.platform.huawei.app import AppAccess
from broker.platform.huawei.axb import HuaweiAxb
from broker.platform.huawei.http import HttpOptions
from broker.platform.huawei.request import Scheme
from broker.platform.protocol import Answer, BindLine, Direction, ModifyLine, Platform, PlatformLine, Verdict
from tests.platform import driven
from tests.platform.driven import NOW, head, said, yes
from tests.platform.raw_platform import RawPlatform, Script, Wire, answer, once, steadily

X, A, B = "+8617000000101", "+8613900000001", "+8613900000002"
BIND = BindLine(X, A, B, Direction.BOTH, 86400, "l1.1")


class Call(Protocol):
    """One of the five calls below."""

    def __call__(
        self, driver: Platform, permit: Callable[[], bool] = ..., timeout_s: float = ...
    ) -> Coroutine[None, None, Answer]:
        """Make the call."""
        ...


def no() -> bool:
    """Withhold."""
    return False


async def bind(driver: Platform, permit: Callable[[], bool] = yes, timeout_s: float = 5.0) -> Answer:
    """Bind the one pair of these tests."""
    return await driver.bind(BIND, permit=permit, timeout_s=timeout_s)


async def modify(driver: Platform, permit: Callable[[], bool] = yes, timeout_s: float = 5.0) -> Answer:
    """Give the one id of these tests another B."""
    return await driver.modify(ModifyLine("s-1", "l1.2", b="+8613900000003"), permit=permit, timeout_s=timeout_s)


async def unbind(driver: Platform, permit: Callable[[], bool] = yes, timeout_s: float = 5.0) -> Answer:
    """Unbind the one id of these tests."""
    return await driver.unbind("s-1", permit=permit, timeout_s=timeout_s)


async def query(driver: Platform, permit: Callable[[], bool] = yes, timeout_s: float = 5.0) -> Answer:
    """Query A on X."""
    return await driver.query(x=X, a=A, permit=permit, timeout_s=timeout_s)


async def lookup(driver: Platform, permit: Callable[[], bool] = yes, timeout_s: float = 5.0) -> Answer:
    """Look the one id up."""
    return await driver.lookup("s-1", permit=permit, timeout_s=timeout_s)


every_call = pytest.mark.parametrize("call", [bind, modify, unbind, query, lookup])


driving = partial(driven.driving, HuaweiAxb)


def test_it_is_an_axb_platform() -> None:
    """The driver has the boundary's shape, and no secret in its repr."""
    access = AppAccess("k", "hush-hush", "http://127.0.0.1:1")
    driver: Platform = HuaweiAxb(access)
    assert driver is not None
    assert "hush" not in repr(access)


async def test_bind() -> None:
    """A bind goes out as one POST under the access address's prefix and comes back as one binding."""
    fields = {
        "resultcode": "0",
        "resultdesc": "Success",
        "subscriptionId": "s-1",
        "relationNum": X,
        "duration": "86400",
        "callDirection": 2,
        "userData": "l1.1",
    }
    async with driving(steadily(said(fields)), prefix="/gw/") as (platform, driver):
        got = await bind(driver)
        made = PlatformLine("s-1", X, token="l1.1", ttl_s=86400, direction=Direction.B_TO_A)
        assert got == Answer(Verdict.DONE, 200, "0", "Success", (made,), total=1)
        (request,) = platform.requests
        assert head(request) == "POST /gw/rest/caas/relationnumber/partners/v1.0 HTTP/1.1"
        assert orjson.loads(request.split(b"\r\n\r\n")[1])["relationNum"] == X


async def test_bind_reports_the_x_that_was_echoed() -> None:
    """Another X in the answer is handed on; an X left out is the one asked for."""
    fields = {"resultcode": 0, "subscriptionId": "s-1", "relationNum": "+8617000000999"}
    async with driving(steadily(said(fields))) as (_, driver):
        assert (await bind(driver)).bindings[0].x == "+8617000000999"
    async with driving(steadily(said({"resultcode": 0, "subscriptionId": "s-1"}))) as (_, driver):
        assert (await bind(driver)).bindings[0].x == X


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b'{"resultcode":"0"}', b'{"resultcode":"0","subscriptionId":""}', b'{"subscriptionId":"s-1"}'],
)
async def test_a_bind_without_a_binding_is_unknown(body: bytes) -> None:
    """200 without JSON, code or id may still have bound."""
    async with driving(steadily(answer(body))) as (_, driver):
        got = await bind(driver)
        assert (got.verdict, got.http, got.bindings) == (Verdict.UNKNOWN, 200, ())
        assert got.detail


async def test_modify() -> None:
    """A modification is one PUT under the access address's prefix; its success has no binding in it."""
    async with driving(steadily(said({"resultcode": "0", "resultdesc": "Success"})), prefix="/gw") as (
        platform,
        driver,
    ):
        assert await modify(driver) == Answer(Verdict.DONE, 200, "0", "Success")
        (request,) = platform.requests
        assert head(request) == "PUT /gw/rest/caas/relationnumber/partners/v1.0 HTTP/1.1"
        assert orjson.loads(request.split(b"\r\n\r\n")[1]) == {
            "subscriptionId": "s-1",
            "calleeNum": "+8613900000003",
            "userData": "l1.2",
        }
        for impossible in (ModifyLine(" ", "t", a=A), ModifyLine("s-1", "t", ttl_s=-1)):
            with pytest.raises(ValueError, match="must"):
                await driver.modify(impossible, permit=yes, timeout_s=5)
        assert len(platform.requests) == 1


async def test_unbind() -> None:
    """An unbind is one DELETE by id; an unknown binding is not found."""
    async with driving(steadily(said({"resultcode": "0", "resultdesc": "Success"}))) as (platform, driver):
        assert (await unbind(driver)).verdict is Verdict.DONE
        (request,) = platform.requests
        assert head(request) == "DELETE /rest/caas/relationnumber/partners/v1.0?subscriptionId=s-1 HTTP/1.1"
        assert b"relationNum=" not in request
        with pytest.raises(ValueError, match="blank"):
            await driver.unbind("", permit=yes, timeout_s=5)
        assert len(platform.requests) == 1
    async with driving(steadily(said({"resultcode": "1012007"}, 403))) as (_, driver):
        assert (await unbind(driver)).verdict is Verdict.NOT_FOUND


async def test_query_and_lookup() -> None:
    """Both list what matches, as the platform reports it, with the count of all matches."""
    element = {
        "subscriptionId": "s-1",
        "relationNum": X,
        "callerNum": A,
        "calleeNum": B,
        "duration": 60,
        "userData": "l1.1",
    }
    fields = {"resultcode": "0", "totalCount": "3", "relationNumList": [element]}
    async with driving(steadily(said(fields))) as (platform, driver):
        for call in (query, lookup):
            got = await call(driver)
            assert (got.verdict, got.total) == (Verdict.DONE, 3)
            assert got.bindings == (PlatformLine("s-1", X, A, B, "l1.1", 60),)
        await driver.query(x=X, a=A, b=B, page=2, permit=yes, timeout_s=5)
        paths = [head(request).split("?")[1].split(" ")[0] for request in platform.requests]
        assert paths == [
            "relationNum=%2B8617000000101&callerNum=%2B8613900000001&pageIndex=1&pageSize=100",
            "subscriptionId=s-1",
            "relationNum=%2B8617000000101&callerNum=%2B8613900000001&calleeNum=%2B8613900000002&pageIndex=2&pageSize=100",
        ]


@pytest.mark.parametrize(
    ("fields", "verdict"),
    [
        ({"totalCount": 0, "relationNumList": []}, Verdict.NOT_FOUND),
        ({"relationNumList": []}, Verdict.NOT_FOUND),
        ({"totalCount": 0}, Verdict.UNKNOWN),
        ({"totalCount": 2, "relationNumList": []}, Verdict.UNKNOWN),
        ({"totalCount": 1, "relationNumList": [{"relationNum": X}]}, Verdict.UNKNOWN),
    ],
)
async def test_a_query_claims_absence_only_when_it_was_said(fields: dict[str, object], verdict: Verdict) -> None:
    """An explicit empty list is nothing found; a list that is missing or cannot be read is no proof."""
    async with driving(steadily(said({"resultcode": "0", **fields}))) as (_, driver):
        for call in (query, lookup):
            got = await call(driver)
            assert (got.verdict, got.bindings) == (verdict, ())


async def test_a_page_behind_the_last_is_empty_and_done() -> None:
    """Past the end there is nothing on the page, but something on X."""
    async with driving(steadily(said({"resultcode": "0", "totalCount": 100, "relationNumList": []}))) as (_, driver):
        got = await driver.query(x=X, page=2, permit=yes, timeout_s=5)
        assert (got.verdict, got.bindings, got.total) == (Verdict.DONE, (), 100)


@every_call
async def test_withheld(call: Call) -> None:
    """A permit that says no: nothing arrives, and the connection serves the next call."""
    async with driving(steadily(said({"resultcode": "1012007"}, 403))) as (platform, driver):
        got = await call(driver, permit=no)
        assert got.verdict is Verdict.WITHHELD
        await query(driver)
        assert (platform.connections, len(platform.requests)) == (1, 1)


@every_call
async def test_not_sent(call: Call) -> None:
    """Nobody listens, or the driver is closed: certainly nothing left."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    driver = HuaweiAxb(AppAccess("k", "s", f"http://127.0.0.1:{port}"))
    refused = await call(driver)
    assert (refused.verdict, refused.http) == (Verdict.NOT_SENT, None)
    await driver.close()
    closed = await call(driver)
    assert closed.verdict is Verdict.NOT_SENT


@every_call
@pytest.mark.parametrize(
    "script",
    [
        pytest.param(once(then="close"), id="closed"),
        pytest.param(once(then="reset"), id="reset"),
        pytest.param(once(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", then="close"), id="half an answer"),
        pytest.param(once(b"HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n" + b"x" * 1_100_000), id="huge"),
        pytest.param(once(b"no http\r\n\r\n"), id="garbage"),
        pytest.param(once(answer(b"", 502)), id="502"),
    ],
)
async def test_unknown(call: Call, script: Script) -> None:
    """The request arrived once and no usable answer came back."""
    async with driving(script) as (platform, driver):
        got = await call(driver)
        assert got.verdict is Verdict.UNKNOWN
        assert len(platform.requests) == 1


@every_call
async def test_time_out(call: Call) -> None:
    """A platform that says nothing costs the time-out and leaves the outcome unknown."""
    async with driving(once()) as (platform, driver):
        got = await call(driver, timeout_s=0.05)
        assert (got.verdict, got.http) == (Verdict.UNKNOWN, None)
        assert len(platform.requests) == 1


@every_call
async def test_cancellation_reaches_the_caller(call: Call) -> None:
    """A cancelled call raises, and its connection is closed."""
    arrived = asyncio.Event()

    async def script(wire: Wire) -> None:
        await wire.request()
        arrived.set()
        await wire.gone()

    async with driving(script) as (platform, driver):
        task = asyncio.create_task(call(driver))
        await arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(platform.scripts_end(), 5)


async def test_redirects_are_not_followed() -> None:
    """A redirect is a wrong access address."""
    async with driving(steadily(answer(b"", 302, "Location: http://127.0.0.1:1/\r\n"))) as (platform, driver):
        assert (await bind(driver)).verdict is Verdict.CONFIGURATION
        assert len(platform.requests) == 1


async def test_details_hold_no_numbers() -> None:
    """What the platform says goes into records without the numbers in it."""
    fields = {"resultcode": "1010002", "resultdesc": f"Invalid request: calleeNum {B} of 13900000001"}
    async with driving(steadily(said(fields, 403))) as (_, driver):
        got = await bind(driver)
        assert (got.verdict, got.code) == (Verdict.BAD_REQUEST, "1010002")
        assert got.detail == "Invalid request: calleeNum +… of …"


async def test_clock_skew_and_offset() -> None:
    """A skewed `Created` reports the platform's clock minus ours; the offset moves `Created` from the next call on."""
    late = said({"resultcode": "1010013"}, 401, "Date: Tue, 01 Jan 2030 00:10:00 GMT\r\n")
    async with driving(steadily(late)) as (platform, driver):
        for offset_s in (0.0, 600.0):
            driver.set_clock_offset(offset_s)
            got = await bind(driver)
            assert (got.verdict, got.date_skew_s) == (Verdict.CLOCK_SKEW, 600.0)
        assert b'Created="2030-01-01T00:00:00Z"' in platform.requests[0]
        assert b'Created="2030-01-01T00:10:00Z"' in platform.requests[1]


@pytest.mark.parametrize("header", ["", "Date:\r\n", "Date: yesterday\r\n", "Date: Tue, 99 Jan 2030 00:00:00 GMT\r\n"])
async def test_clock_skew_without_a_date(header: str) -> None:
    """A missing or broken `Date` leaves the skew open."""
    async with driving(steadily(said({"resultcode": "1010013"}, 401, header))) as (_, driver):
        got = await bind(driver)
        assert (got.verdict, got.date_skew_s) == (Verdict.CLOCK_SKEW, None)


async def test_signed_when_the_connection_is_there() -> None:
    """A call that queued signs when its turn comes: `Created` is then, not when it was asked for."""
    clock = [NOW]
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def script(wire: Wire) -> None:
        while await wire.request() is not None:
            arrived.set()
            await go_on.wait()
            wire.send(said({"resultcode": "1012007"}, 403))

    async with RawPlatform(script) as platform:
        access = AppAccess("k", "s", platform.base_url)
        driver = HuaweiAxb(access, HttpOptions(max_connections=1), now=lambda: clock[0])
        first = asyncio.create_task(lookup(driver))
        await arrived.wait()
        second = asyncio.create_task(lookup(driver))
        await asyncio.sleep(0)
        clock[0] += 60
        go_on.set()
        await asyncio.gather(first, second)
        assert b'Created="2030-01-01T00:00:00Z"' in platform.requests[0]
        assert b'Created="2030-01-01T00:01:00Z"' in platform.requests[1]
        await asyncio.wait_for(driver.close(), 5)


async def test_the_older_scheme() -> None:
    """With X-WSSE the older headers are sent and no newer one."""
    async with driving(steadily(said({"resultcode": "1012007"}, 403)), scheme=Scheme.WSSE) as (platform, driver):
        await bind(driver)
        assert b"\r\nAuthorization: WSSE " in platform.requests[0]
        assert b"\r\nX-WSSE: UsernameToken " in platform.requests[0]
        assert b"AKSK" not in platform.requests[0]


async def test_flow_control_and_bad_digest_share_a_code() -> None:
    """1010010 is told apart by its status."""
    async with driving(steadily(said({"resultcode": "1010010"}, 401))) as (_, driver):
        assert (await query(driver)).verdict is Verdict.BAD_DIGEST
    async with driving(steadily(said({"resultcode": "1010010"}, 403))) as (_, driver):
        assert (await query(driver)).verdict is Verdict.FLOW_CONTROL

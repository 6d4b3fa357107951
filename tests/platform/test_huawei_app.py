"""What the drivers of all modes share: interfaces of calls, outcomes of every call, and the choice by mode."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine

import pytest

from broker.platform.huawei import access
from broker.platform.huawei.app import AppAccess
from broker.platform.huawei.ax import HuaweiAx
from broker.platform.huawei.axb import HuaweiAxb
from broker.platform.huawei.axe import HuaweiAxe
from broker.platform.huawei.axyb import HuaweiAxyb
from broker.platform.protocol import Answer, BindLine, BindPeer, ModifyLine, Permit, Platform, Verdict
from tests.platform.driven import body, driving, head, saying, yes
from tests.platform.raw_platform import answer, once, steadily

X, A, B = "+8617000000101", "+8613900000001", "+8613900000002"
LINE = BindLine(X, A, B, ttl_s=3600, token="t", extension="1", area_code="0755")
KINDS: dict[str, type[HuaweiAxb | HuaweiAx | HuaweiAxe | HuaweiAxyb]] = {
    "axb": HuaweiAxb,
    "ax": HuaweiAx,
    "axe": HuaweiAxe,
    "axyb": HuaweiAxyb,
}
every_mode = pytest.mark.parametrize("mode", list(KINDS))

Call = Callable[[Platform, Permit], Coroutine[None, None, Answer]]
EVERYWHERE: dict[str, Call] = {
    "bind": lambda driver, permit: driver.bind(LINE, permit=permit, timeout_s=5),
    "unbind": lambda driver, permit: driver.unbind("s-1", permit=permit, timeout_s=5),
    "query": lambda driver, permit: driver.query(x=X, a=A, extension="1", permit=permit, timeout_s=5),
    "lookup": lambda driver, permit: driver.lookup("s-1", permit=permit, timeout_s=5),
    "stop_call": lambda driver, permit: driver.stop_call("c-1", permit=permit, timeout_s=5),
    "recording": lambda driver, permit: driver.recording("f.wav", "ostor", permit=permit, timeout_s=5),
}
MODIFY: dict[str, Call] = {
    "modify": lambda driver, permit: driver.modify(ModifyLine("s-1", "t"), permit=permit, timeout_s=5),
}
CALLEE: dict[str, Call] = {
    "set_callee": lambda driver, permit: driver.set_callee(
        "s-1", callee=B, ttl_s=60, token="t", permit=permit, timeout_s=5
    ),
}
PEERS: dict[str, Call] = {
    "bind_peer": lambda driver, permit: driver.bind_peer(BindPeer("s-1", B, 60, "t"), permit=permit, timeout_s=5),
    "unbind_peer": lambda driver, permit: driver.unbind_peer("s-1", y=X, permit=permit, timeout_s=5),
}
OF_MODE = {
    "axb": EVERYWHERE | MODIFY,
    "ax": EVERYWHERE | MODIFY | CALLEE,
    "axe": EVERYWHERE | MODIFY,
    "axyb": EVERYWHERE | PEERS,
}
every_call = pytest.mark.parametrize(
    ("kind", "call"),
    [
        pytest.param(KINDS[mode], call, id=f"{mode}-{name}")
        for mode, calls in OF_MODE.items()
        for name, call in calls.items()
    ],
)


def no() -> bool:
    """Withhold."""
    return False


@every_call
async def test_withheld(kind: type[HuaweiAxb], call: Call) -> None:
    """A permit that says no: nothing arrives."""
    async with driving(kind, saying({})) as (platform, driver):
        assert (await call(driver, no)).verdict is Verdict.WITHHELD
        assert not platform.requests


@every_call
async def test_not_sent(kind: type[HuaweiAxb], call: Call) -> None:
    """Nobody listens: certainly nothing left."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    driver = kind(AppAccess("k", "s", f"http://127.0.0.1:{port}"))
    assert (await call(driver, yes)).verdict is Verdict.NOT_SENT
    await asyncio.wait_for(driver.close(), 5)


@every_call
async def test_unknown(kind: type[HuaweiAxb], call: Call) -> None:
    """The request arrived once, and what came back says nothing."""
    for script in (once(then="close"), once(answer(b"<html>", 502)), saying({"resultcode": "1023002"}, 500)):
        async with driving(kind, script) as (platform, driver):
            assert (await call(driver, yes)).verdict is Verdict.UNKNOWN
            assert len(platform.requests) == 1


@every_call
async def test_refused_for_what_we_are(kind: type[HuaweiAxb], call: Call) -> None:
    """Another mode's interface, and flow control, are told of every call alike."""
    async with driving(kind, saying({"resultcode": "1010040"}, 403)) as (_, driver):
        assert (await call(driver, yes)).verdict is Verdict.CONFIGURATION
    async with driving(kind, saying({"resultcode": "1010010"}, 403)) as (_, driver):
        assert (await call(driver, yes)).verdict is Verdict.FLOW_CONTROL


@every_mode
async def test_stop_call(mode: str) -> None:
    """A call is hung up by its session, whose name the platform wants in lower case; one that is over is not found."""
    async with driving(KINDS[mode], saying({}), prefix="/gw") as (platform, driver):
        assert await driver.stop_call("c-1", permit=yes, timeout_s=5) == Answer(Verdict.DONE, 200, "0", "Success")
        (request,) = platform.requests
        assert head(request) == "POST /gw/rest/httpsessions/callStop/v2.0 HTTP/1.1"
        assert body(request) == {"sessionid": "c-1", "signal": "call_stop"}
        with pytest.raises(ValueError, match="session_id"):
            await driver.stop_call(" ", permit=yes, timeout_s=5)
        assert len(platform.requests) == 1
    for status in (403, 500):
        async with driving(KINDS[mode], saying({"resultcode": "1020152"}, status)) as (_, driver):
            assert (await driver.stop_call("c-1", permit=yes, timeout_s=5)).verdict is Verdict.NOT_FOUND


@every_mode
async def test_recording(mode: str) -> None:
    """A recording's address is the answer's `Location`, handed on and not followed."""
    address = "https://obs.example/f%201.wav?sign=a%2Bb"
    async with driving(KINDS[mode], steadily(answer(b"", 301, f"Location: {address}\r\n"))) as (platform, driver):
        got = await driver.recording("f 1.wav", "ostor&x", permit=yes, timeout_s=5)
        assert (got.verdict, got.http, got.location) == (Verdict.DONE, 301, address)
        assert [head(request) for request in platform.requests] == [
            "GET /rest/provision/voice/record/v1.0?fileName=f%201.wav&recordDomain=ostor%26x HTTP/1.1"
        ]
        for file_name, domain in (("", "ostor"), ("f.wav", " ")):
            with pytest.raises(ValueError, match="blank"):
                await driver.recording(file_name, domain, permit=yes, timeout_s=5)
    async with driving(KINDS[mode], saying({"resultcode": "1012007"}, 403)) as (_, driver):
        got = await driver.recording("f.wav", "ostor", permit=yes, timeout_s=5)
        assert (got.verdict, got.location) == (Verdict.NOT_FOUND, "")


@pytest.mark.parametrize(
    "answered",
    [
        answer(b"", 301),
        answer(b"", 301, "Location:\r\n"),
        answer(b"", 301, "Location: /relative\r\n"),
        answer(b"", 301, "Location: javascript:alert(1)\r\n"),
        answer(b"", 301, "Location: https://[broken\r\n"),
        answer(b"", 301, f"Location: https://h/{'x' * 5000}\r\n"),
        answer(),
    ],
)
async def test_a_recording_without_an_address(answered: bytes) -> None:
    """What is no address to fetch from is not handed on."""
    async with driving(HuaweiAxb, steadily(answered)) as (_, driver):
        got = await driver.recording("f.wav", "ostor", permit=yes, timeout_s=5)
        assert (got.verdict, got.location) == (Verdict.UNKNOWN, "")


async def test_another_redirect_is_no_recording() -> None:
    """302 is a wrong access address, as for every other call."""
    async with driving(HuaweiAxb, steadily(answer(b"", 302, "Location: https://h/f.wav\r\n"))) as (_, driver):
        got = await driver.recording("f.wav", "ostor", permit=yes, timeout_s=5)
        assert (got.verdict, got.location) == (Verdict.CONFIGURATION, "")


@every_mode
async def test_an_unbind_names_one_binding_and_nothing_else(mode: str) -> None:
    """Whatever an id holds, no other parameter slips into a DELETE, and without an id there is none."""
    async with driving(KINDS[mode], saying({})) as (platform, driver):
        for subscription_id in ("s&relationNum=+86", "s=1#x", "a b", "é"):
            assert (await driver.unbind(subscription_id, permit=yes, timeout_s=5)).verdict is Verdict.DONE
            target = head(platform.requests[-1]).split(" ")[1]
            names = [part.partition("=")[0] for part in target.partition("?")[2].split("&")]
            assert names == (["app_key", "subscriptionId"] if mode == "axyb" else ["subscriptionId"])
        for blank in ("", " ", "\t\n"):
            with pytest.raises(ValueError, match="blank"):
                await driver.unbind(blank, permit=yes, timeout_s=5)


class _Record:
    """An app's record, as far as a driver is concerned."""

    app_key, secret, base_url, auth_scheme = "k", "s", "http://127.0.0.1:1", "aksk"

    def __init__(self, mode: str) -> None:
        self.mode = mode


@every_mode
async def test_the_mode_chooses_the_driver(mode: str) -> None:
    """An app's mode says which driver it has."""
    for driver in (access.driver_of(_Record(mode)), access.of_app(_Record(mode))):
        assert type(driver) is KINDS[mode]
        await driver.close()


def test_mode_x_has_no_driver() -> None:
    """The platform keeps no bindings in mode X: there is nothing to call."""
    with pytest.raises(ValueError, match="mode x"):
        access.driver_of(_Record("x"))

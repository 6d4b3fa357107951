"""What may come back of a request and what it means, as one table: written from the contract, walked through by tests.

Every interface of every mode; every way in which a request or its answer can be lost. The rows of contract section 7
are those of :mod:`tests.platform.test_huawei_codes`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import orjson

from broker.platform.huawei.app import HuaweiApp
from broker.platform.huawei.ax import HuaweiAx
from broker.platform.huawei.axb import HuaweiAxb
from broker.platform.huawei.axe import HuaweiAxe
from broker.platform.huawei.axyb import HuaweiAxyb
from broker.platform.huawei.codes import Operation
from broker.platform.protocol import Answer, BindLine, BindPeer, Direction, ModifyLine, Permit, Platform, Verdict
from tests.platform.raw_platform import Script, answer, once

X, Y, A, B, C = "+8617000000101", "+8617000000102", "+8613900000001", "+8613900000002", "+8613900000003"
LOCATION = "https://ostor.example.com/r.wav"

Asking = Callable[[Platform, Permit, float], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Interface:
    """One thing that can be asked; ``good`` is an answer's content that has all it needs, beside the result code.

    ``bare``: what a success without any content means.
    """

    mode: str
    name: str
    driver: type[HuaweiApp]
    operation: Operation
    ask: Asking
    good: dict[str, Any]
    bare: Verdict

    def __str__(self) -> str:
        """Name it in the report of a test."""
        return f"{self.mode}-{self.name}"


def _bind(line: BindLine) -> Asking:
    return lambda one, permit, timeout_s: one.bind(line, permit=permit, timeout_s=timeout_s)


def _modify(**change: Any) -> Asking:
    request = ModifyLine("s-1", "l.2", **change)
    return lambda one, permit, timeout_s: one.modify(request, permit=permit, timeout_s=timeout_s)


def _unbind(one: Platform, permit: Permit, timeout_s: float) -> Awaitable[Answer]:
    return one.unbind("s-1", permit=permit, timeout_s=timeout_s)


def _query(extension: str = "") -> Asking:
    return lambda one, permit, timeout_s: one.query(x=X, a=A, extension=extension, permit=permit, timeout_s=timeout_s)


def _lookup(one: Platform, permit: Permit, timeout_s: float) -> Awaitable[Answer]:
    return one.lookup("s-1", permit=permit, timeout_s=timeout_s)


def _callee(one: Platform, permit: Permit, timeout_s: float) -> Awaitable[Answer]:
    return one.set_callee("s-1", callee=B, ttl_s=60, token="l.2", permit=permit, timeout_s=timeout_s)


def _bind_peer(one: Platform, permit: Permit, timeout_s: float) -> Awaitable[Answer]:
    return one.bind_peer(BindPeer("s-1", B, 600, "l.3"), permit=permit, timeout_s=timeout_s)


def _unbind_peer(one: Platform, permit: Permit, timeout_s: float) -> Awaitable[Answer]:
    return one.unbind_peer("s-1", y=Y, permit=permit, timeout_s=timeout_s)


def _stop(one: Platform, permit: Permit, timeout_s: float) -> Awaitable[Answer]:
    return one.stop_call("1200_366_0", permit=permit, timeout_s=timeout_s)


def _recording(one: Platform, permit: Permit, timeout_s: float) -> Awaitable[Answer]:
    return one.recording("r.wav", "ostor.example", permit=permit, timeout_s=timeout_s)


_ID = {"subscriptionId": "s-1"}
_AXB = {**_ID, "relationNum": X, "callerNum": A, "calleeNum": B, "callDirection": 0, "duration": 3600}
_AX = {**_ID, "origNum": A, "privateNum": X}
_AXE = {**_ID, "virtualNum": X, "extendNum": "0001", "bindNum": A}
_AXYB = {"bindId": "s-1", "numA": A, "numX": X, "duration": "3600"}
_AXB_LIST = {"totalCount": 1, "relationNumList": [_AXB]}
_AX_LIST = {"privateNumList": [_AX]}
_AXYB_LIST = {"xyRelationNumList": [_AXYB]}
_PICKED = {**_ID, "relationNumber": X}
_OP, _DONE, _DOUBT = Operation, Verdict.DONE, Verdict.UNKNOWN
_AXB_BIND = BindLine(X, A, B, Direction.BOTH, 3600, "l.1")
_PLACE = BindLine(X, A, ttl_s=3600, token="l.1", extension="0001")
_UNPICKED = BindLine("", A, ttl_s=3600, token="l.1", area_code="0755")

_OWN = [
    Interface("axb", "bind", HuaweiAxb, _OP.BIND, _bind(_AXB_BIND), _AXB, _DOUBT),
    Interface("axb", "modify", HuaweiAxb, _OP.MODIFY, _modify(b=C), {}, _DONE),
    Interface("axb", "unbind", HuaweiAxb, _OP.UNBIND, _unbind, {}, _DONE),
    Interface("axb", "query", HuaweiAxb, _OP.QUERY, _query(), _AXB_LIST, _DOUBT),
    Interface("axb", "lookup", HuaweiAxb, _OP.QUERY, _lookup, _AXB_LIST, _DOUBT),
    Interface("ax", "bind", HuaweiAx, _OP.BIND, _bind(BindLine(X, A, token="l.1")), _AX, _DOUBT),
    Interface("ax", "modify", HuaweiAx, _OP.MODIFY, _modify(a=C), {}, _DONE),
    Interface("ax", "unbind", HuaweiAx, _OP.UNBIND, _unbind, {}, _DONE),
    Interface("ax", "query", HuaweiAx, _OP.QUERY, _query(), _AX_LIST, _DOUBT),
    Interface("ax", "lookup", HuaweiAx, _OP.QUERY, _lookup, _AX_LIST, _DOUBT),
    Interface("ax", "callee", HuaweiAx, _OP.CALLEE, _callee, {}, _DONE),
    Interface("axe", "bind", HuaweiAxe, _OP.BIND, _bind(_PLACE), _AXE, _DOUBT),
    Interface("axe", "modify", HuaweiAxe, _OP.MODIFY, _modify(ttl_s=7200), {}, _DONE),
    Interface("axe", "unbind", HuaweiAxe, _OP.UNBIND, _unbind, {}, _DONE),
    Interface("axe", "query", HuaweiAxe, _OP.QUERY, _query(extension="0001"), _AXE, _DOUBT),
    Interface("axe", "lookup", HuaweiAxe, _OP.QUERY, _lookup, _AXE, _DOUBT),
    Interface("axyb", "bind", HuaweiAxyb, _OP.BIND, _bind(_UNPICKED), _PICKED, _DOUBT),
    Interface("axyb", "unbind", HuaweiAxyb, _OP.UNBIND, _unbind, {}, _DONE),
    Interface("axyb", "query", HuaweiAxyb, _OP.QUERY, _query(), _AXYB_LIST, _DOUBT),
    Interface("axyb", "lookup", HuaweiAxyb, _OP.QUERY, _lookup, _AXYB_LIST, _DOUBT),
    Interface("axyb", "bind_peer", HuaweiAxyb, _OP.BIND_PEER, _bind_peer, {**_ID, "relationNumber": Y}, _DOUBT),
    Interface("axyb", "unbind_peer", HuaweiAxyb, _OP.UNBIND_PEER, _unbind_peer, {}, _DONE),
]
_DRIVERS = {"axb": HuaweiAxb, "ax": HuaweiAx, "axe": HuaweiAxe, "axyb": HuaweiAxyb}
#: Every interface of every mode of which the platform keeps bindings; in mode x it is asked nothing.
INTERFACES = [
    *_OWN,
    *(Interface(mode, "stop", driver, _OP.STOP, _stop, {}, _DONE) for mode, driver in _DRIVERS.items()),
    *(Interface(mode, "recording", driver, _OP.RECORDING, _recording, {}, _DOUBT) for mode, driver in _DRIVERS.items()),
]

_SUCCESS = orjson.dumps({"resultcode": "0", "resultdesc": "Success", **_AXB})
_CONFIGURATION, _FLOW = Verdict.CONFIGURATION, Verdict.FLOW_CONTROL
#: What arrives after the whole request has, and means the same to every interface.
LOST: dict[str, tuple[Script, Verdict]] = {
    "reset": (once(then="reset"), _DOUBT),
    "closed without an answer": (once(then="close"), _DOUBT),
    "no answer in time": (once(), _DOUBT),
    "a head and no more": (once(b"HTTP/1.1 200 OK\r\nContent-Le"), _DOUBT),
    "closed amid the body": (once(answer(_SUCCESS)[:-5], then="close"), _DOUBT),
    "reset amid the body": (once(answer(_SUCCESS)[:-5], then="reset"), _DOUBT),
    "silent amid the body": (once(answer(_SUCCESS)[:-5]), _DOUBT),
    "closed amid a chunk": (
        once(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n{", then="close"),
        _DOUBT,
    ),
    "half an object": (once(answer(_SUCCESS[:-5])), _DOUBT),
    "no JSON": (once(answer(b"<html>welcome</html>")), _DOUBT),
    "no object": (once(answer(b'["0"]')), _DOUBT),
    "no text": (once(answer(b"\xff\xfe\x00")), _DOUBT),
    "an empty success": (once(answer(b"")), _DOUBT),
    "204": (once(answer(b"", 204)), _DOUBT),
    "not HTTP": (once(b"SSH-2.0-OpenSSH_9.2\r\n", then="close"), _DOUBT),
    "two lengths": (once(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}}"), _DOUBT),
    "a body too large": (once(answer(b" " * 70_000)), _DOUBT),
    "a head too large": (once(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 40_000), _DOUBT),
    "302": (once(answer(b"", 302, f"Location: {LOCATION}\r\n")), _CONFIGURATION),
    "307": (once(answer(b"", 307, f"Location: {LOCATION}\r\n")), _CONFIGURATION),
    "308 with a success": (once(answer(_SUCCESS, 308)), _CONFIGURATION),
    **{str(status): (once(answer(b"", status)), _CONFIGURATION) for status in (400, 401, 403, 404, 405, 413, 421)},
    **{str(status): (once(answer(b"", status)), _DOUBT) for status in (408, 500, 502, 503, 504)},
    "429": (once(answer(b"", 429)), _FLOW),
    "502 of a gateway": (once(answer(b"<html>Bad Gateway</html>", 502)), _DOUBT),
    "500 with a success": (once(answer(_SUCCESS, 500)), _DOUBT),
    "403 of an unlisted code": (once(answer(b'{"resultcode":"1999999"}', 403)), _CONFIGURATION),
    "500 of an unlisted code": (once(answer(b'{"resultcode":"1999999"}', 500)), _DOUBT),
    "200 of an unlisted code": (once(answer(b'{"resultcode":"1999999"}')), _DOUBT),
}

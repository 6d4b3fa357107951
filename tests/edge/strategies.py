"""What a platform may send, and what it may not: bodies by the contract's tables, signatures, and bytes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from hypothesis import strategies as st
from multidict import CIMultiDict

from broker.domain.notice import PUSH_KINDS
from tests.edge.rig import headers, stamp
from tests.store.pairs import A, B, C

Json = dict[str, Any]
Request = tuple[str, CIMultiDict[str], bytes]

_X = "+8610000100000"
_SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False), st.text(max_size=40),
    st.sampled_from([
        "", " ", "\x00", "0", "1", "true", "Block", "Notify", "callin", "disconnect", "fee", "numStatus", "10", A, B,
        "2026-11-22 10:00:00", "2026-11-22T10:00:00.000Z", "0001-01-01 00:00:00", "9999-12-31 23:59:59+14:00",
        "f" * 32 + ".1", "+86" + "9" * 60, "1200_1_0_20261399999999@n", "\ud7ff\U0010ffff",
    ]),
)  # fmt: skip
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_PHONES = st.sampled_from([A, B, C, _X, "13900000001", "+86", "anonymous"])
_TIMES = st.integers(-7200, 7200).map(lambda s: stamp(datetime.now(UTC) + timedelta(seconds=s)))
_ISO = st.just(0).map(lambda _: datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z"))
_SESSIONS = st.integers(1, 30).map(lambda n: f"1200_{n}_0_20261122091514@node1") | st.just(f"{A}_{B}_4_627e_963_1_0")
_MARKS = st.sampled_from(["0" * 32 + ".1", "f" * 32, "theirs"])
_IDS = st.sampled_from(["5d0c0b9e-7a51-4d6f-9d3e-3d1f3a9b0c11", "sub", ""])
#: Integers come as texts at times.
_CODES = st.one_of(st.integers(0, 9000), st.integers(0, 9000).map(str))

_EVENT = {
    "sessionId": _SESSIONS, "timestamp": _TIMES, "caller": _PHONES, "called": _PHONES, "subscriptionId": _IDS,
    "userData": _MARKS, "stateCode": _CODES, "stateDesc": st.text(max_size=20), "callRelDirection": _CODES,
    "digitInfo": st.sampled_from(["1234", "#"]), "extendNum": st.just("1234"),
    "notifyMode": st.sampled_from(["Block", "Notify"]),
}  # fmt: skip
_FEE = {
    "direction": _CODES, "spId": st.just("customer01"), "appKey": st.just("key"),
    "icid": st.integers(0, 99).map(lambda n: f"c08dd883.{n}"), "bindNum": _PHONES, "sessionId": _SESSIONS,
    "subscriptionId": _IDS, "callerNum": _PHONES, "calleeNum": _PHONES, "fwdDisplayNum": _PHONES, "fwdDstNum": _PHONES,
    "callInTime": _TIMES, "fwdStartTime": _TIMES, "fwdAlertingTime": _TIMES, "fwdAnswerTime": _TIMES,
    "callEndTime": _TIMES, "fwdUnaswRsn": _CODES, "failTime": _TIMES, "ulFailReason": _CODES, "sipStatusCode": _CODES,
    "callOutUnaswRsn": _CODES, "recordFlag": st.sampled_from([0, 1, "1"]), "recordStartTime": _TIMES,
    "recordObjectName": st.just("1.wav"), "recordBucketName": st.just("b"), "recordDomain": st.just("d.example"),
    "recordFileDownloadUrl": st.just("https://d.example/1"), "mptyId": _IDS, "serviceType": st.just("004"),
    "hostName": st.just("node1"), "extendNum": st.just("1234"), "userData": _MARKS, "notifyMode": st.just("Block"),
    "callRelDirection": _CODES,
}  # fmt: skip
_PARAS = st.lists(
    st.fixed_dictionaries({"key": st.sampled_from(["splitNum", "direction"]), "value": _CODES}), max_size=3
)
_SMS = {
    "smsIdentifier": st.integers(1, 99).map(lambda n: f"sms-{n}"), "calling": _PHONES, "called": _PHONES,
    "notificationMode": st.sampled_from(["Notify", "Block"]), "virtualNumber": st.just(_X) | _PHONES,
    "event": st.sampled_from(["Text SMS", "Text SMS ", "TextSMS"]), "timeStamp": _ISO, "subscriptionId": _IDS,
    "smsContent": st.text(max_size=80), "sendResult": _CODES, "areaCode": st.just("0755"), "userData": _MARKS,
    "extInfo": _PARAS.map(lambda paras: {"extParas": paras}) | _PARAS,
}  # fmt: skip
_STATUS = {
    "number": st.just(_X) | _PHONES, "status": st.sampled_from(["5", "9", "10", "11", 10]),
    "cause": st.sampled_from(["1", "2", "3", "5", "6", "7", "8"]),
}  # fmt: skip


@st.composite
def _record(draw: st.DrawFn, table: Mapping[str, st.SearchStrategy[Any]], *, whole: bool = False) -> Json:
    """An object with fields of a table: most as they are meant, some missing, some anything."""
    said: Json = {}
    for name, meant in table.items():
        how = 0 if whole else draw(st.integers(0, 11))
        if how == 1:
            said[name] = draw(_VALUES)
        elif how != 2:
            said[name] = draw(meant)
    return said


def _wrapped(one: st.SearchStrategy[Json], most: int) -> st.SearchStrategy[Any]:
    """An array, or one object in its place; at times longer than it may be."""
    return one | st.lists(one, max_size=3) | one.map(lambda same: [same] * (most + 2))


_TYPES = st.sampled_from(["callin", "collectInfo", "callout", "alerting", "answer", "disconnect"])
_EVENTS = st.fixed_dictionaries({"eventType": _TYPES, "statusInfo": _record(_EVENT)})
_QUESTIONS = st.fixed_dictionaries({
    "eventType": st.just("callin"),
    "statusInfo": _record({**_EVENT, "called": st.just(_X), "notifyMode": st.just("Block")}, whole=True),
})  # fmt: skip
_FEES = st.fixed_dictionaries({"eventType": st.just("fee"), "feeLst": _wrapped(_record(_FEE), 50)})
_MESSAGES = st.fixed_dictionaries({"appKey": st.just("key"), "smsEvent": _record(_SMS)})
_BLOCK = {"virtualNumber": st.just(_X), "notificationMode": st.just("Block")}
_ASKED = st.fixed_dictionaries({
    "appKey": st.just("key"),
    "smsEvent": _record({**_SMS, **_BLOCK, "calling": st.sampled_from([A, C])}, whole=True),
})  # fmt: skip
_NUMBERS = st.fixed_dictionaries({"eventType": st.just("numStatus"), "numInfo": _wrapped(_record(_STATUS), 100)})


#: Where each is pushed, and what it is.
TOLD: Mapping[str, tuple[str, st.SearchStrategy[Json]]] = {
    "event": ("events", _EVENTS), "question": ("events", _QUESTIONS), "record": ("cdr", _FEES),
    "message": ("sms", _MESSAGES), "message asked about": ("sms-control", _ASKED),
    "status": ("number-status", _NUMBERS),
}  # fmt: skip


@st.composite
def bodies(draw: st.DrawFn, what: str | None = None) -> tuple[str, Any]:
    """A path with a body of the contract's: mostly where it belongs, some of its members anything."""
    path, strategy = TOLD[what or draw(st.sampled_from(list(TOLD)))]
    body = draw(strategy)
    if draw(st.integers(0, 7)) == 0:
        body[draw(st.sampled_from(["eventType", "statusInfo", "feeLst", "smsEvent", "numInfo", "appKey"]))] = draw(
            _VALUES
        )
    return (draw(st.sampled_from(PUSH_KINDS)) if draw(st.integers(0, 9)) == 0 else path), body


@st.composite
def mangled(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> bytes:
    """Bytes of something, with some of them replaced, cut out or put in."""
    body = bytearray(draw(whole))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(body)))
        body[at : at + draw(st.integers(0, 4))] = draw(st.binary(max_size=4))
    return bytes(body)


_TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=200)


@st.composite
def signatures(draw: st.DrawFn, *, sound: bool = False) -> CIMultiDict[str]:
    """Headers of a push: in either scheme; at times old, wrong, of others, garbled, missing or said twice."""
    scheme = draw(st.sampled_from(["aksk", "wsse"]))
    if sound or draw(st.integers(0, 3)):
        made = CIMultiDict(headers(scheme=scheme))
        if draw(st.booleans()):
            # Contract 6.2 has an example with two of these.
            made.add("Content-Type", "application/json")
        if draw(st.integers(0, 7)) == 0:
            name = draw(st.sampled_from(["Authorization", f"X-{scheme.upper()}"]))
            made.add(name, made[name])
        return made
    age_s = draw(st.sampled_from([0, 59, 61, 5 * 3600, 7 * 3600, -200, -400, 10**9]))
    secret, key = draw(st.sampled_from(["secret", "other"])), draw(st.sampled_from(["key", "other", ""]))
    made = CIMultiDict(headers(scheme=scheme, at=datetime.now(UTC) - timedelta(seconds=age_s), secret=secret, key=key))
    what = draw(st.integers(0, 4))
    if what == 0:
        made[f"X-{scheme.upper()}"] = draw(_TEXT)
    elif what == 1:
        made.pop(draw(st.sampled_from(list(made))))
    elif what == 2:
        made["Content-Encoding"] = draw(st.sampled_from(["gzip", "identity", "br"]))
    elif what == 3:
        made.add(f"X-{draw(st.sampled_from(['AKSK', 'WSSE']))}", draw(_TEXT))
    return made


def as_bytes(kind: str, signed: CIMultiDict[str], body: bytes) -> bytes:
    """A push as it goes over the wire."""
    lines = [f"POST /n/shop/{kind} HTTP/1.1", "Host: edge", *(f"{name}: {value}" for name, value in signed.items())]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "\r\n"]).encode("latin-1", "replace") + body


@st.composite
def wires(draw: st.DrawFn) -> bytes:
    """Bytes of a whole request, head and body."""
    kind, body = draw(bodies())
    return as_bytes(kind, draw(signatures(sound=True)), orjson.dumps(body))

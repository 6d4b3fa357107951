"""Whatever is sent to the listener is answered by one of a few statuses, and what is signed and not too long is kept.

``TEST_FUZZ_S`` (10) seconds for each of the two kinds: bodies made of the contract's fields, and bytes of any kind.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.domain.notice import PUSH_KINDS
from tests.edge.rig import Edge, event, fee, fees, headers, message
from tests.store.pairs import A, B

#: The service's own dice are thrown in another thread while hypothesis draws.
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")
FUZZ_S = float(os.environ.get("TEST_FUZZ_S", "10"))

_SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False), st.text(max_size=40),
    st.sampled_from([
        "", " ", "\x00", "0", "1", "true", "Block", "Notify", "callin", "disconnect", "fee", "numStatus", "10", A, B,
        "2026-11-22 10:00:00", "2026-11-22T10:00:00.000Z", "0001-01-01 00:00:00", "9999-12-31 23:59:59+14:00",
        "f" * 32 + ".1", "+86" + "9" * 60, "1200_1_0_20261399999999@n",
    ]),
)  # fmt: skip
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_FIELDS = st.dictionaries(
    st.sampled_from([
        "sessionId", "timestamp", "caller", "called", "stateCode", "userData", "subscriptionId", "notifyMode",
        "digitInfo", "icid", "bindNum", "callInTime", "callEndTime", "fwdAnswerTime", "ulFailReason", "fwdUnaswRsn",
        "recordFlag", "recordObjectName", "direction", "extendNum", "smsIdentifier", "notificationMode", "calling",
        "virtualNumber", "timeStamp", "smsContent", "sendResult", "extInfo", "number", "status", "cause", "callerNum",
        "fwdDstNum",
    ]),
    _VALUES,
    max_size=8,
)  # fmt: skip
_BASES = st.sampled_from([
    event("callin", "s", caller=A, called=B), event("disconnect", "s", stateCode=0), fees(fee("s"), fee("t")),
    message("+8610000100000", A), message("+8610000100000", A, mode="Block"),
    {"eventType": "numStatus", "numInfo": [{"number": "+8610000100000", "status": "5", "cause": "1"}]},
])  # fmt: skip


@st.composite
def _told(draw: st.DrawFn) -> Any:
    """A body of the contract's, some fields of it replaced."""
    body = orjson.loads(orjson.dumps(draw(_BASES)))
    for name in ("statusInfo", "smsEvent"):
        if name in body:
            body[name] |= draw(_FIELDS)
    for name in ("feeLst", "numInfo"):
        if name in body:
            body[name][0] |= draw(_FIELDS)
    if draw(st.integers(0, 3)) == 0:
        body[draw(st.sampled_from(["eventType", "statusInfo", "feeLst", "smsEvent", "numInfo", "appKey"]))] = draw(
            _VALUES
        )
    return body


@st.composite
def _mangled(draw: st.DrawFn) -> bytes:
    """Bytes: of a body, with some of them replaced, cut out or put in."""
    body = bytearray(orjson.dumps(draw(_BASES)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(body)))
        body[at : at + draw(st.integers(0, 4))] = draw(st.binary(max_size=4))
    return bytes(body)


_SIGNED = st.one_of(
    st.none(),
    st.fixed_dictionaries({}, optional={
        "X-AKSK": st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=200),
        "X-WSSE": st.sampled_from(["", 'UsernameToken Username="key"', headers(scheme="wsse")["X-WSSE"]]),
        "Content-Encoding": st.sampled_from(["gzip", "identity", "br"]),
    }),
)  # fmt: skip


async def _fuzzed(edge: Edge, bodies: st.SearchStrategy[Any]) -> None:
    """Send such bodies for so long, and see that nothing is lost of what is answered 200."""
    loop, ends, taken = asyncio.get_running_loop(), time.monotonic() + FUZZ_S, 0

    @settings(
        max_examples=1_000_000, deadline=None, database=None, suppress_health_check=list(HealthCheck), derandomize=True
    )
    @given(bodies, st.sampled_from(PUSH_KINDS), _SIGNED)
    def send(body: Any, kind: str, signed: dict[str, str] | None) -> None:
        nonlocal taken
        if time.monotonic() > ends:
            raise _Enough
        sent = body if isinstance(body, bytes) else orjson.dumps(body)
        status, _ = asyncio.run_coroutine_threadsafe(edge.push(kind, sent, signed=signed), loop).result(30)
        assert status in {200, 400, 401, 413, 415}, status
        taken += signed is None and status == 200

    with contextlib.suppress(_Enough):
        await asyncio.to_thread(send)
    await edge.settled()
    assert taken > 50
    assert not [outcome for _, outcome in edge.counts.pushes if outcome in {"broken", "not_kept"}]
    assert await edge.shop.value("SELECT count(*) FROM inbox WHERE state NOT IN ('done', 'unreadable')") == 0


class _Enough(BaseException):
    """The time is over."""


async def test_bodies_of_the_contract(edge: Edge) -> None:
    """Fields of any value in the places of the contract's."""
    await edge.configure("UPDATE app SET mode = 'x'")
    await edge.pairs.active()
    await _fuzzed(edge, _told())


async def test_bytes(edge: Edge) -> None:
    """Bodies mangled byte by byte, and none at all."""
    await _fuzzed(edge, _mangled() | st.binary(max_size=60))

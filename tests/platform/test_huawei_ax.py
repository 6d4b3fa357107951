"""AX on the wire: bodies, query strings, and what is read of the answers."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from broker.domain.options import DEFAULT, CallOptions
from broker.platform.huawei import ax
from broker.platform.huawei.ax import HuaweiAx
from broker.platform.protocol import (
    Answer,
    BindLine,
    BindPeer,
    Direction,
    ModifyLine,
    NotOffered,
    PlatformLine,
    Verdict,
)
from tests.platform.driven import body, driving, head, saying, yes
from tests.platform.raw_platform import Script

X, A, C = "+8617000000201", "+8613900000001", "+8613900000003"
BIND = BindLine(X, A, direction=Direction.B_TO_A, ttl_s=3600, token="l1.1")
PATH = "/rest/provision/caas/privatenumber/v1.0"
ELEMENT = {
    "origNum": A,
    "privateNum": X,
    "privateNumType": "mobile-virtual",
    "subscriptionId": "s-1",
    "subscribeTime": "2024-01-20 14:55:00",
    "calleeNumDisplay": "0",
    "callDirection": "2",
    "maxDuration": 60,
    "userData": "l1.1",
}
LINE = PlatformLine("s-1", X, A, token="l1.1", direction=Direction.B_TO_A)


@pytest.mark.parametrize(("direction", "wire"), [(Direction.BOTH, 0), (Direction.A_TO_B, 1), (Direction.B_TO_A, 2)])
def test_bind_body(direction: Direction, wire: int) -> None:
    """A bind names X, A, who may call, what A is shown, and our token; the platform knows no lifetime."""
    assert orjson.loads(ax.bind_body(BindLine(X, A, direction=direction, ttl_s=3600, token="l1.1"))) == {
        "privateNum": X,
        "origNum": A,
        "callDirection": wire,
        "calleeNumDisplay": "0",
        "userData": "l1.1",
    }
    with pytest.raises(ValueError, match="x must not be blank"):
        ax.bind_body(BindLine("", A))


EVERY = CallOptions(
    recording=True,
    hint_tone="hint.wav",
    max_call_minutes=30,
    last_minute_tone="last.wav",
    sms=False,
    caller_tone="a.wav",
    callee_tone="b.wav",
    display="caller",
)


def test_options_of_a_bind() -> None:
    """Options that were asked for go out under the platform's names, the others are left out; A is shown X."""
    plain = orjson.loads(ax.bind_body(BindLine(X, A)))
    assert plain == {"privateNum": X, "origNum": A, "callDirection": 0, "calleeNumDisplay": "0"}
    assert orjson.loads(ax.bind_body(BindLine(X, A, options=EVERY))) == plain | {
        "recordFlag": "true",
        "recordHintTone": "hint.wav",
        "maxDuration": 30,
        "lastMinVoice": "last.wav",
        "privateSms": "false",
        "preVoice": {"callerHintTone": "a.wav", "calleeHintTone": "b.wav"},
        "calleeNumDisplay": "1",
    }
    assert orjson.loads(ax.bind_body(BindLine(X, A, options=CallOptions(display="x")))) == plain


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        ({}, {}),
        ({"a": C}, {"origNum": C}),
        ({"direction": Direction.BOTH}, {"callDirection": 0}),
        ({"ttl_s": 60}, {}),
        ({"was": EVERY}, {}),
        ({"was": EVERY, "options": EVERY}, {}),
        ({"options": CallOptions(display="caller")}, {"calleeNumDisplay": "1"}),
        ({"was": CallOptions(display="caller"), "options": DEFAULT}, {"calleeNumDisplay": "0"}),
        ({"options": CallOptions(recording=True, hint_tone="h")}, {"recordFlag": "true", "recordHintTone": "h"}),
        (
            {"was": CallOptions(recording=True, hint_tone="h"), "options": CallOptions(recording=True, hint_tone="i")},
            {"recordHintTone": "i"},
        ),
        (
            {"was": EVERY, "options": DEFAULT},
            {
                "recordFlag": "false",
                "recordHintTone": "",
                "maxDuration": 0,
                "lastMinVoice": "",
                "privateSms": "true",
                "preVoice": {"callerHintTone": "", "calleeHintTone": ""},
                "calleeNumDisplay": "0",
            },
        ),
    ],
)
def test_modify_body(change: dict[str, Any], fields: dict[str, object]) -> None:
    """A modification names the binding, its new token and what differs, the hint tone too; never a lifetime."""
    wanted = {"subscriptionId": "s-1", "userData": "l1.2", **fields}
    assert orjson.loads(ax.modify_body(ModifyLine("s-1", "l1.2", **change))) == wanted


def test_callee_body() -> None:
    """A temporary callee is set by the binding's id, for 1 second to 3 days."""
    fields = {"subscriptionId": "s-1", "calleeNum": "4008000000", "duration": 60, "userData": "c.1"}
    assert orjson.loads(ax.callee_body("s-1", "4008000000", 60, "c.1")) == fields
    assert "userData" not in orjson.loads(ax.callee_body("s-1", C, 259_200, ""))
    for ttl_s in (0, -1, 259_201):
        with pytest.raises(ValueError, match="1 to 259200"):
            ax.callee_body("s-1", C, ttl_s, "")
    for named in (("", C), ("s-1", " ")):
        with pytest.raises(ValueError, match="blank"):
            ax.callee_body(*named, 60, "")


async def test_bind() -> None:
    """A bind is one POST; its answer's X is handed on, and stands for the one asked for when left out."""
    fields = {"subscriptionId": "s-1", "origNum": A, "privateNum": X}
    async with driving(HuaweiAx, saying(fields), prefix="/gw") as (platform, driver):
        got = await driver.bind(BIND, permit=yes, timeout_s=5)
        assert got == Answer(Verdict.DONE, 200, "0", "Success", (PlatformLine("s-1", X, A),), total=1)
        (request,) = platform.requests
        assert head(request) == f"POST /gw{PATH} HTTP/1.1"
        assert body(request)["privateNum"] == X
    async with driving(HuaweiAx, saying({"subscriptionId": 7})) as (_, driver):
        assert (await driver.bind(BIND, permit=yes, timeout_s=5)).bindings == (PlatformLine("7", X),)
    async with driving(HuaweiAx, saying({"privateNum": X})) as (_, driver):
        got = await driver.bind(BIND, permit=yes, timeout_s=5)
        assert (got.verdict, got.bindings) == (Verdict.UNKNOWN, ())


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        ("1011001", Verdict.NUMBER_REFUSED),
        ("1011003", Verdict.PARTY_LIMIT),
        ("1011004", Verdict.NUMBER_REFUSED),
        ("1011005", Verdict.CONFLICT),
        ("1016002", Verdict.CONFLICT),
    ],
)
async def test_refused_binds(code: str, verdict: Verdict) -> None:
    """A foreign X, a sixth X of one A, another A's X and the same pair again (contract 3.6)."""
    async with driving(HuaweiAx, saying({"resultcode": code}, 403)) as (_, driver):
        assert (await driver.bind(BIND, permit=yes, timeout_s=5)).verdict is verdict


async def test_modify_unbind_and_callee() -> None:
    """Each is one call with the binding's id; an unbind by X is not made."""
    async with driving(HuaweiAx, saying({"userData": "c.1"})) as (platform, driver):
        done = Answer(Verdict.DONE, 200, "0", "Success")
        assert await driver.modify(ModifyLine("s-1", "l1.2", a=C), permit=yes, timeout_s=5) == done
        assert await driver.unbind("s-1", permit=yes, timeout_s=5) == done
        set_callee = driver.set_callee("s-1", callee=C, ttl_s=60, token="c.1", permit=yes, timeout_s=5)
        assert await set_callee == done
        assert [head(request) for request in platform.requests] == [
            f"PUT {PATH} HTTP/1.1",
            f"DELETE {PATH}?subscriptionId=s-1 HTTP/1.1",
            "PUT /rest/caas/privatenumber/calleenumber/v1.0 HTTP/1.1",
        ]
        assert body(platform.requests[2])["calleeNum"] == C


@pytest.mark.parametrize("code", ["1011004", "1016001"])
async def test_not_found(code: str) -> None:
    """Both codes say that nothing is bound there (contract 3.4)."""
    async with driving(HuaweiAx, saying({"resultcode": code}, 403)) as (_, driver):
        asked = [
            driver.query(x=X, permit=yes, timeout_s=5),
            driver.lookup("s-1", permit=yes, timeout_s=5),
            driver.unbind("s-1", permit=yes, timeout_s=5),
            driver.modify(ModifyLine("s-1", "t", a=C), permit=yes, timeout_s=5),
            driver.set_callee("s-1", callee=C, ttl_s=60, token="", permit=yes, timeout_s=5),
        ]
        assert [(await one).verdict for one in asked] == [Verdict.NOT_FOUND] * 5


async def test_query_and_lookup() -> None:
    """A query asks by X alone, or else by A, a look-up by the id; all list bindings as the platform has them."""
    async with driving(HuaweiAx, saying({"privateNumList": [ELEMENT]})) as (platform, driver):
        for got in (
            await driver.query(x=X, a=C, permit=yes, timeout_s=5),
            await driver.query(x="", a=A, permit=yes, timeout_s=5),
            await driver.lookup("s-1", permit=yes, timeout_s=5),
        ):
            assert (got.verdict, got.bindings, got.total) == (Verdict.DONE, (LINE,), 1)
        assert [head(request) for request in platform.requests] == [
            f"GET {PATH}?privateNum=%2B8617000000201 HTTP/1.1",
            f"GET {PATH}?origNum={A.replace('+', '%2B')} HTTP/1.1",
            f"GET {PATH}?subscriptionId=s-1 HTTP/1.1",
        ]
        with pytest.raises(ValueError, match="a must not be blank"):
            await driver.query(x="", permit=yes, timeout_s=5)


@pytest.mark.parametrize(
    ("script", "verdict"),
    [
        (saying({"privateNumList": []}), Verdict.NOT_FOUND),
        (saying({}), Verdict.UNKNOWN),
        (saying({"privateNumList": ELEMENT}), Verdict.UNKNOWN),
        (saying({"privateNumList": [ELEMENT, {"privateNum": X}]}), Verdict.UNKNOWN),
    ],
)
async def test_absence_must_have_been_said(script: Script, verdict: Verdict) -> None:
    """An explicit empty list is nothing found; one that is missing or cannot be read is no proof."""
    async with driving(HuaweiAx, script) as (_, driver):
        got = await driver.query(x=X, permit=yes, timeout_s=5)
        assert (got.verdict, got.bindings) == (verdict, ())


async def test_no_peers() -> None:
    """AX gives nobody a Y."""
    async with driving(HuaweiAx, saying({})) as (platform, driver):
        with pytest.raises(NotOffered):
            await driver.bind_peer(BindPeer("s-1", C, 0, "t"), permit=yes, timeout_s=5)
        assert not platform.requests

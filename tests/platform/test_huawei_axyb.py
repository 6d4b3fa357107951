"""AXYB on the wire: bodies, query strings, and what is read of the answers."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.domain.options import CallOptions
from broker.platform.huawei import axyb
from broker.platform.huawei.axyb import HuaweiAxyb
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

X, Y, A, B = "+8617000000501", "+8617000000502", "+8613900000001", "+8613900000002"
BIND = BindLine("", A, direction=Direction.A_TO_B, ttl_s=7200, token="l1.1", area_code="0755")
PEER = BindPeer("s-1", B, 600, "p1.1")
PATH = "/rest/omp/xyrelationnumber/v1.0?app_key=ABCD1234"
AX = {
    "bindId": "s-1",
    "numA": A,
    "numX": X,
    "recordFlag": "false",
    "subscribeTime": "2024-01-20 14:55:00",
    "callDirection": 1,
    "duration": "7200",
    "ybDuration": "0",
    "userData": "l1.1",
}
RELATION = {**AX, "numY": Y, "numB": B, "ybDuration": "600", "userData": "p1.1"}
LINE = PlatformLine("s-1", X, A, token="l1.1", ttl_s=7200, direction=Direction.A_TO_B)
PEER_LINE = PlatformLine("s-1", X, A, B, "p1.1", 600, Direction.A_TO_B, y=Y)


@pytest.mark.parametrize(
    ("asked", "fields"),
    [
        ({}, {}),
        ({"direction": Direction.B_TO_A}, {"callDirection": 2}),
        ({"ttl_s": 0}, {"duration": 0}),
        ({"relaxed": True}, {"areaMatchMode": "1"}),
        ({"token": "l1.1"}, {"userData": "l1.1"}),
        ({"options": CallOptions(callee_tone="x.wav")}, {"preVoiceX": "x.wav"}),
        ({"options": CallOptions(recording=False)}, {"recordFlag": "false"}),
        (
            {"options": CallOptions(recording=True, hint_tone="h.wav")},
            {"recordFlag": "true", "recordHintTone": "h.wav"},
        ),
        ({"options": CallOptions(peer_ttl_s=600)}, {"ybDuration": 600}),
        ({"options": CallOptions(peer_ttl_s=7201)}, {"ybDuration": 7200}),
        ({"options": CallOptions(peer_ttl_s=0)}, {"ybDuration": 0}),
        ({"options": CallOptions(peer_ttl_s=600), "ttl_s": 0}, {"duration": 0, "ybDuration": 600}),
    ],
)
def test_bind_body(asked: dict[str, Any], fields: dict[str, object]) -> None:
    """A bind names A, the city, who may call and the lifetime; no number, and no Y that outlives its X."""
    plain = {"origNum": A, "areaCode": "0755", "callDirection": 0, "duration": 7200}
    given_ = {"ttl_s": 7200, **asked}
    assert orjson.loads(axyb.bind_body(BindLine("", A, area_code="0755", **given_))) == plain | fields


def test_binds_that_cannot_be_asked_for() -> None:
    """Without a city there is no X to be had, and no lifetime counts backwards."""
    with pytest.raises(ValueError, match="area_code"):
        axyb.bind_body(BindLine("", A, ttl_s=60))
    with pytest.raises(ValueError, match="ttl_s"):
        axyb.bind_body(BindLine("", A, ttl_s=-1, area_code="0755"))
    with pytest.raises(ValueError, match="ttl_s"):
        axyb.peer_body(BindPeer("s-1", B, -1, "t"))
    with pytest.raises(ValueError, match="subscription_id"):
        axyb.peer_body(BindPeer(" ", B, 60, "t"))


def test_peer_body() -> None:
    """A peer's bind names the AX, B and the lifetime always: 0 is as long as the AX, whatever that says of its Y."""
    plain = {"subscriptionId": "s-1", "origNum": B, "ybDuration": 600, "userData": "p1.1"}
    assert orjson.loads(axyb.peer_body(PEER)) == plain
    assert orjson.loads(axyb.peer_body(BindPeer("s-1", B, 0, "", relaxed=True))) == {
        "subscriptionId": "s-1",
        "origNum": B,
        "ybDuration": 0,
    }
    every = BindPeer("s-1", B, 600, "p1.1", area_code="0755", relaxed=True, tone="y.wav")
    more = {"areaCode": "0755", "areaMatchMode": "1", "preVoiceY": "y.wav"}
    assert orjson.loads(axyb.peer_body(every)) == plain | more


async def test_bind_and_bind_peer() -> None:
    """Both are a POST that names the app in its query string; X and Y are what the platform picked."""
    async with driving(HuaweiAxyb, saying({"subscriptionId": "s-1", "relationNumber": X}), prefix="/gw") as (
        platform,
        driver,
    ):
        got = await driver.bind(BIND, permit=yes, timeout_s=5)
        assert got == Answer(Verdict.DONE, 200, "0", "Success", (PlatformLine("s-1", X),), total=1)
        (request,) = platform.requests
        assert head(request) == f"POST /gw{PATH} HTTP/1.1"
        assert "subscriptionId" not in body(request)
    for answered in ({"subscriptionId": "s-1", "relationNumber": Y}, {"relationNumber": Y}):
        async with driving(HuaweiAxyb, saying(answered)) as (platform, driver):
            got = await driver.bind_peer(PEER, permit=yes, timeout_s=5)
            assert (got.verdict, got.bindings) == (Verdict.DONE, (PlatformLine("s-1", "", b=B, y=Y),))
            assert head(platform.requests[0]) == f"POST {PATH} HTTP/1.1"


@pytest.mark.parametrize("fields", [{}, {"subscriptionId": "s-1"}, {"relationNumber": " ", "subscriptionId": "s-1"}])
async def test_a_success_without_the_number_is_unknown(fields: dict[str, object]) -> None:
    """What was picked is the point of the answer."""
    async with driving(HuaweiAxyb, saying(fields)) as (_, driver):
        for got in (
            await driver.bind(BIND, permit=yes, timeout_s=5),
            await driver.bind_peer(PEER, permit=yes, timeout_s=5),
        ):
            assert (got.verdict, got.bindings) == (Verdict.UNKNOWN, ())


async def test_unbind_and_unbind_peer() -> None:
    """The AX goes by its id alone, a relation by its Y, too: a blank Y would end the AX with all of them."""
    async with driving(HuaweiAxyb, saying({})) as (platform, driver):
        assert (await driver.unbind("s-1", permit=yes, timeout_s=5)).verdict is Verdict.DONE
        assert (await driver.unbind_peer("s-1", y=Y, permit=yes, timeout_s=5)).verdict is Verdict.DONE
        assert [head(request) for request in platform.requests] == [
            f"DELETE {PATH}&subscriptionId=s-1 HTTP/1.1",
            f"DELETE {PATH}&subscriptionId=s-1&yNum=%2B8617000000502 HTTP/1.1",
        ]
        for blank in ("", " "):
            with pytest.raises(ValueError, match="y must not be blank"):
                await driver.unbind_peer("s-1", y=blank, permit=yes, timeout_s=5)
        assert len(platform.requests) == 2


@given(st.text(min_size=1).filter(str.strip), st.text(min_size=1).filter(str.strip))
def test_a_peers_unbind_always_names_its_y(subscription_id: str, y: str) -> None:
    """Whatever the two hold, the query string has both parameters and no third."""
    try:
        query = axyb.one_peer(subscription_id, y)
    except UnicodeEncodeError:
        return  # a lone surrogate: no request can be made of it
    names = [part.partition("=")[0] for part in query.split("&")]
    assert names == ["subscriptionId", "yNum"]
    assert all(part.partition("=")[2] for part in query.split("&"))


async def test_query_and_lookup() -> None:
    """A query asks by X, a look-up by the AX's id."""
    async with driving(HuaweiAxyb, saying({"xyRelationNumList": [AX]})) as (platform, driver):
        for got in (
            await driver.query(x=X, a=A, permit=yes, timeout_s=5),
            await driver.lookup("s-1", permit=yes, timeout_s=5),
        ):
            assert (got.verdict, got.bindings, got.total) == (Verdict.DONE, (LINE,), 1)
        assert [head(request) for request in platform.requests] == [
            f"GET {PATH}&relationNum=%2B8617000000501 HTTP/1.1",
            f"GET {PATH}&subscriptionId=s-1 HTTP/1.1",
        ]


@pytest.mark.parametrize(
    ("elements", "lines"),
    [
        ([AX, RELATION], (LINE, PEER_LINE)),
        ([RELATION, AX], (PEER_LINE, LINE)),
        ([RELATION], (PlatformLine("s-1", X, A, ttl_s=7200, direction=Direction.A_TO_B), PEER_LINE)),
    ],
)
def test_an_ax_with_relations(elements: list[dict[str, Any]], lines: tuple[PlatformLine, ...]) -> None:
    """The AX is listed also when the platform shows only its relations; then nobody knows its token."""
    assert axyb.read_lines({"xyRelationNumList": elements}) == lines


@pytest.mark.parametrize(
    ("script", "verdict"),
    [
        (saying({"xyRelationNumList": []}), Verdict.NOT_FOUND),
        (saying({"resultcode": "1016001"}, 403), Verdict.NOT_FOUND),
        (saying({}), Verdict.UNKNOWN),
        (saying({"xyRelationNumList": AX}), Verdict.UNKNOWN),
        (saying({"xyRelationNumList": [AX, {"numX": X}]}), Verdict.UNKNOWN),
    ],
)
async def test_absence_must_have_been_said(script: Script, verdict: Verdict) -> None:
    """An explicit empty list is nothing found; one that is missing or cannot be read is no proof."""
    async with driving(HuaweiAxyb, script) as (_, driver):
        got = await driver.lookup("s-1", permit=yes, timeout_s=5)
        assert (got.verdict, got.bindings) == (verdict, ())


async def test_a_peer_of_an_ax_that_is_gone() -> None:
    """What is not found in answer to a peer's bind is the AX."""
    async with driving(HuaweiAxyb, saying({"resultcode": "1016001"}, 403)) as (_, driver):
        assert (await driver.bind_peer(PEER, permit=yes, timeout_s=5)).verdict is Verdict.NOT_FOUND


async def test_no_modification() -> None:
    """The wire has none."""
    async with driving(HuaweiAxyb, saying({})) as (platform, driver):
        with pytest.raises(NotOffered):
            await driver.modify(ModifyLine("s-1", "t", ttl_s=60), permit=yes, timeout_s=5)
        assert not platform.requests

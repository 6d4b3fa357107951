"""AXE on the wire: bodies, query strings, lifetimes, and what is read of the answers."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.domain.options import DEFAULT, CallOptions
from broker.platform.huawei import axe
from broker.platform.huawei.axe import HuaweiAxe
from broker.platform.protocol import Answer, BindLine, ModifyLine, NotOffered, PlatformLine, Verdict
from tests.platform.driven import body, driving, head, saying, yes

X, A, C = "+8617000000301", "+8613900000001", "+8613900000003"
BIND = BindLine(X, A, ttl_s=3600, token="l1.1", extension="0042")
PATH = "/rest/caas/extendnumber/v1.0"
SHOWN = {
    "subscriptionId": "s-1",
    "virtualNum": X,
    "extendNum": "0042",
    "bindNum": A,
    "displayNumMode": 0,
    "timeUnit": 1,
    "bindExpiredTime": "60",
    "callbackExpiredTime": 60,
    "userData": "l1.1",
}
LINE = PlatformLine("s-1", X, A, token="l1.1", ttl_s=3600, extension="0042")


def bound(**asked: Any) -> dict[str, Any]:
    """Return the body of a bind."""
    fields = orjson.loads(axe.bind_body(BindLine(X, A, extension="0042", **asked)))
    assert isinstance(fields, dict)
    return fields


def test_bind_body() -> None:
    """A bind names X, the extension, A, what A is shown, both lifetimes in minutes, and our token."""
    assert orjson.loads(axe.bind_body(BIND)) == {
        "virtualNum": X,
        "extendNum": "0042",
        "bindNum": A,
        "displayNumMode": "0",
        "timeUnit": "1",
        "bindExpiredTime": 60,
        "callbackExpiredTime": 60,
        "userData": "l1.1",
    }
    for x, extension in (("", "0042"), (X, "")):
        with pytest.raises(ValueError, match="blank"):
            axe.bind_body(BindLine(x, A, extension=extension))


@pytest.mark.parametrize(
    ("asked", "fields"),
    [
        ({"options": CallOptions(display="caller")}, {"displayNumMode": "1"}),
        ({"options": CallOptions(recording=False)}, {"recordFlag": "false"}),
        (
            {"options": CallOptions(recording=True, hint_tone="h.wav")},
            {"recordFlag": "true", "recordHintTone": "h.wav"},
        ),
        ({"options": CallOptions(callback_tone="c.wav")}, {"callbackTone": "c.wav"}),
        ({"callback": C}, {"callbackNum": C}),
    ],
)
def test_options_of_a_bind(asked: dict[str, Any], fields: dict[str, object]) -> None:
    """Options that were asked for go out under the platform's names; the others are left out."""
    assert bound(**asked) == bound() | fields


def test_a_callback_is_one_thing() -> None:
    """The platform refuses number and tone together: no request is made of them."""
    with pytest.raises(ValueError, match="number or a tone"):
        bound(callback=C, options=CallOptions(callback_tone="c.wav"))
    with pytest.raises(ValueError, match="number or a tone"):
        axe.modify_body(ModifyLine("s-1", "t", callback=C, options=CallOptions(callback_tone="c.wav")))


@pytest.mark.parametrize(
    ("ttl_s", "callback_ttl_s", "minutes", "callback_minutes"),
    [
        (0, None, 0, 1440),
        (60, None, 1, 1),
        (86_340, None, 1439, 1439),
        (2_592_000, None, 43_200, 1440),
        (2_592_000, 86_401, 43_200, 1441),
        (3600, 90, 60, 2),
        (3600, 7200, 60, 60),
        (3600, 1, 60, 1),
        (3600, 0, 60, 1),
        (0, 9_999_999, 0, 43_200),
    ],
)
def test_lifetimes(ttl_s: int, callback_ttl_s: int | None, minutes: int, callback_minutes: int) -> None:
    """Minutes always; who called last is remembered for a day or as asked, never longer than the binding lives."""
    wanted = {"timeUnit": "1", "bindExpiredTime": minutes, "callbackExpiredTime": callback_minutes}
    options = CallOptions(callback_ttl_s=callback_ttl_s)
    assert bound(ttl_s=ttl_s, options=options).items() >= wanted.items()
    renewed = ModifyLine("s-1", "t", ttl_s=ttl_s, was=options)
    assert orjson.loads(axe.modify_body(renewed)) == {"subscriptionId": "s-1", "userData": "t", **wanted}


@given(st.integers(0, 43_200), st.none() | st.integers(0, 5_000_000))
def test_callers_are_forgotten_with_the_binding(minutes: int, callback_ttl_s: int | None) -> None:
    """Whatever is asked for, the platform's rule between the two lifetimes holds and neither is out of its range."""
    fields = bound(ttl_s=minutes * 60, options=CallOptions(callback_ttl_s=callback_ttl_s))
    assert fields["bindExpiredTime"] == minutes
    assert 1 <= fields["callbackExpiredTime"] <= (minutes or 43_200)


@pytest.mark.parametrize("ttl_s", [-60, 1, 61, 3599, 2_592_060])
def test_lifetimes_that_cannot_be_said(ttl_s: int) -> None:
    """A lifetime that minutes cannot say is not rounded here: never to 0, which means for ever."""
    with pytest.raises(ValueError, match="whole minutes"):
        bound(ttl_s=ttl_s)
    with pytest.raises(ValueError, match="whole minutes"):
        axe.modify_body(ModifyLine("s-1", "t", ttl_s=ttl_s))


RECORDED = CallOptions(recording=True, hint_tone="h")
TONE = CallOptions(callback_tone="c")


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        ({}, {}),
        ({"was": RECORDED, "options": RECORDED}, {}),
        ({"options": RECORDED}, {"recordFlag": "true", "recordHintTone": "h"}),
        ({"was": RECORDED, "options": CallOptions(recording=True, hint_tone="i")}, {"recordHintTone": "i"}),
        ({"was": RECORDED, "options": DEFAULT}, {"recordFlag": "false"}),
        ({"options": CallOptions(display="caller")}, {"displayNumMode": "1"}),
        ({"was": CallOptions(display="caller"), "options": DEFAULT}, {"displayNumMode": "0"}),
        ({"callback": C}, {"callbackNum": C}),
        ({"callback": C, "was": TONE, "options": DEFAULT}, {"callbackNum": C}),
        ({"callback": "", "options": TONE}, {"callbackTone": "c"}),
        ({"was": TONE, "options": CallOptions(callback_tone="d")}, {"callbackTone": "d"}),
        ({"was": TONE}, {}),
        ({"options": CallOptions(callback_ttl_s=90)}, {"timeUnit": "1", "callbackExpiredTime": 2}),
        ({"was": CallOptions(callback_ttl_s=90), "options": DEFAULT}, {"timeUnit": "1", "callbackExpiredTime": 1440}),
    ],
)
def test_modify_body(change: dict[str, Any], fields: dict[str, object]) -> None:
    """A modification names the binding, its new token and what differs; nothing else."""
    wanted = {"subscriptionId": "s-1", "userData": "l1.2", **fields}
    assert orjson.loads(axe.modify_body(ModifyLine("s-1", "l1.2", **change))) == wanted


@pytest.mark.parametrize(
    "change",
    [
        {"callback": ""},
        {"was": TONE, "options": DEFAULT},
        {"was": RECORDED, "options": CallOptions(recording=True)},
    ],
)
async def test_what_a_modification_cannot_say(change: dict[str, Any]) -> None:
    """Taking away what has no empty form is refused without asking the platform."""
    async with driving(HuaweiAxe, saying({})) as (platform, driver):
        got = await driver.modify(ModifyLine("s-1", "t", **change), permit=yes, timeout_s=5)
        assert (got.verdict, got.http) == (Verdict.BAD_REQUEST, None)
        assert "only replaced" in got.detail
        assert not platform.requests


def test_modifications_that_are_none() -> None:
    """Another A is a binding anew, and a blank id is no binding."""
    with pytest.raises(ValueError, match="A cannot be changed"):
        axe.modify_body(ModifyLine("s-1", "t", a=C))
    with pytest.raises(ValueError, match="blank"):
        axe.modify_body(ModifyLine(" ", "t"))


async def test_bind() -> None:
    """A bind is one POST; X and extension are handed on as echoed, or as asked for when left out."""
    fields = {"subscriptionId": "s-1", "virtualNum": X, "extendNum": "0043"}
    async with driving(HuaweiAxe, saying(fields), prefix="/gw") as (platform, driver):
        got = await driver.bind(BIND, permit=yes, timeout_s=5)
        made = PlatformLine("s-1", X, extension="0043")
        assert got == Answer(Verdict.DONE, 200, "0", "Success", (made,), total=1)
        (request,) = platform.requests
        assert head(request) == f"POST /gw{PATH} HTTP/1.1"
        assert body(request)["extendNum"] == "0042"
    async with driving(HuaweiAxe, saying({"subscriptionId": "s-1"})) as (_, driver):
        made = PlatformLine("s-1", X, extension="0042")
        assert (await driver.bind(BIND, permit=yes, timeout_s=5)).bindings == (made,)
    async with driving(HuaweiAxe, saying({"virtualNum": X})) as (_, driver):
        assert (await driver.bind(BIND, permit=yes, timeout_s=5)).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize("code", ["1013102", "1020167"])
async def test_a_taken_extension(code: str) -> None:
    """Both codes mean: another extension, or another X (contract 4.5)."""
    async with driving(HuaweiAxe, saying({"resultcode": code}, 403)) as (_, driver):
        assert (await driver.bind(BIND, permit=yes, timeout_s=5)).verdict is Verdict.CONFLICT


async def test_query_and_lookup() -> None:
    """A query asks by X and extension, a look-up by the id; both show the one binding."""
    async with driving(HuaweiAxe, saying(SHOWN)) as (platform, driver):
        for got in (
            await driver.query(x=X, a=C, extension="0042", permit=yes, timeout_s=5),
            await driver.lookup("s-1", permit=yes, timeout_s=5),
        ):
            assert (got.verdict, got.bindings, got.total) == (Verdict.DONE, (LINE,), 1)
        assert [head(request) for request in platform.requests] == [
            f"GET {PATH}?virtualNum=%2B8617000000301&extendNum=0042 HTTP/1.1",
            f"GET {PATH}?subscriptionId=s-1 HTTP/1.1",
        ]
        for x, extension in ((X, ""), ("", "0042")):
            with pytest.raises(ValueError, match="blank"):
                await driver.query(x=x, extension=extension, permit=yes, timeout_s=5)
    async with driving(HuaweiAxe, saying({})) as (_, driver):
        assert (await driver.lookup("s-1", permit=yes, timeout_s=5)).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("fields", "ttl_s"),
    [
        ({"timeUnit": "0", "bindExpiredTime": 24}, 86_400),
        ({"timeUnit": 0, "bindExpiredTime": "24"}, 86_400),
        ({"bindExpiredTime": 24}, 86_400),
        ({"timeUnit": "1", "bindExpiredTime": 24}, 1440),
        ({"timeUnit": 1, "bindExpiredTime": 0}, 0),
        ({"timeUnit": "1"}, 0),
    ],
)
def test_reading_a_lifetime(fields: dict[str, object], ttl_s: int) -> None:
    """A lifetime comes in hours unless the unit says minutes, as number or text."""
    line = axe.read_line({"subscriptionId": "s-1", **fields})
    assert line is not None
    assert line.ttl_s == ttl_s


async def test_modify_unbind_and_not_found() -> None:
    """Each is one call with the binding's id; an unbind by X and extension is not made."""
    async with driving(HuaweiAxe, saying({})) as (platform, driver):
        done = Answer(Verdict.DONE, 200, "0", "Success")
        assert await driver.modify(ModifyLine("s-1", "l1.2", ttl_s=60), permit=yes, timeout_s=5) == done
        assert await driver.unbind("s-1", permit=yes, timeout_s=5) == done
        assert [head(request) for request in platform.requests] == [
            f"PUT {PATH} HTTP/1.1",
            f"DELETE {PATH}?subscriptionId=s-1 HTTP/1.1",
        ]
        assert body(platform.requests[0])["bindExpiredTime"] == 1
        with pytest.raises(NotOffered):
            await driver.set_callee("s-1", callee=C, ttl_s=60, token="", permit=yes, timeout_s=5)
    async with driving(HuaweiAxe, saying({"resultcode": "1016001"}, 403)) as (_, driver):
        asked = [
            driver.query(x=X, extension="0042", permit=yes, timeout_s=5),
            driver.lookup("s-1", permit=yes, timeout_s=5),
            driver.unbind("s-1", permit=yes, timeout_s=5),
            driver.modify(ModifyLine("s-1", "t", ttl_s=60), permit=yes, timeout_s=5),
        ]
        assert [(await one).verdict for one in asked] == [Verdict.NOT_FOUND] * 4

"""What goes on the wire, what comes off it, and the signatures over it."""

from __future__ import annotations

import re
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.domain.options import DEFAULT, CallOptions
from broker.platform.huawei import axb, reading, writing
from broker.platform.huawei.request import RequestWriter, Scheme
from broker.platform.huawei.sign import aksk_digest, wsse_digest
from broker.platform.protocol import BindLine, Direction, ModifyLine, PlatformLine

X, A, B = "+8617000000101", "+8613900000001", "+8613900000002"


def writer(scheme: Scheme = Scheme.AKSK, *, keep_alive: bool = True, app_key: str = "ABCD1234") -> RequestWriter:
    """Return a writer whose clock stands at 2018-02-12T15:30:20Z."""
    return RequestWriter(
        host="h.example",
        prefix="/gw",
        app_key=app_key,
        secret="bb-secret-01",
        scheme=scheme,
        keep_alive=keep_alive,
        now=lambda: 1518449420.9,
    )


def test_digests() -> None:
    """Both formulas against constants that `openssl dgst` made (HMAC keyed with the secret; secret last)."""
    nonce, created = "0123456789abcdef0123456789abcdef", "2018-02-12T15:30:20Z"
    assert aksk_digest("bb-secret-01", nonce, created) == "1tEZ2VXOOXQU28GZU97/+PDqvpZR8Di2iQVj68/u+CE="
    assert wsse_digest("bb-secret-01", nonce, created) == "Lds8weFYCuFItW9IXwU5wz6RI6psalxnQjoVyjTtHqU="
    assert wsse_digest("密钥+/=é", "abc", "2024-12-31T23:59:59Z") == "d6HLQbAk/FEq5MGAIUIcWBmzt7RtcnuncYtj2F9uvcw="


@pytest.mark.parametrize(
    ("scheme", "name", "digest"), [(Scheme.AKSK, "AKSK", aksk_digest), (Scheme.WSSE, "WSSE", wsse_digest)]
)
def test_signed_request(scheme: Scheme, name: str, digest: object) -> None:
    """A request is laid out byte for byte as contract 1.2 and 1.3 have it, with `Created` in UTC seconds."""
    head, body = writer(scheme).post(axb.PATH, b'{"a":1}').split(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[:5] == [
        "POST /gw/rest/caas/relationnumber/partners/v1.0 HTTP/1.1",
        "Host: h.example",
        "Content-Type: application/json;charset=UTF-8",
        "Accept: application/json",
        f'Authorization: {name} realm="SDP",profile="UsernameToken",type="Appkey"',
    ]
    token = re.fullmatch(
        rf'X-{name}: UsernameToken Username="ABCD1234",PasswordDigest="(.{{44}})",Nonce="([0-9a-f]{{32}})",'
        r'Created="2018-02-12T15:30:20Z"',
        lines[5],
    )
    assert token is not None
    assert callable(digest)
    assert token[1] == digest("bb-secret-01", token[2], "2018-02-12T15:30:20Z")
    assert lines[6:] == ["Content-Length: 7"]
    assert body == b'{"a":1}'


def test_each_request_has_its_own_nonce() -> None:
    """Two requests in the same second differ in nonce and digest."""
    assert writer().get(axb.PATH, "q=1") != writer().get(axb.PATH, "q=1")


def test_requests_without_a_body() -> None:
    """GET and DELETE carry their query and no length; without keep-alive the server is asked to close."""
    assert (
        writer().get(axb.PATH, "a=1").startswith(b"GET /gw/rest/caas/relationnumber/partners/v1.0?a=1 HTTP/1.1\r\nHost")
    )
    get, delete = writer().get(axb.PATH, "a=1"), writer().delete(axb.PATH, "a=1")
    assert get.startswith(b"GET /gw/rest/caas/relationnumber/partners/v1.0?a=1 HTTP/1.1\r\nHost")
    assert delete.startswith(b"DELETE /gw/rest/caas/relationnumber/partners/v1.0?a=1 HTTP/1.1\r\n")
    assert get.endswith(b'Z"\r\n\r\n')
    assert b"Content-Length" not in get
    assert b"Connection" not in get
    assert b"\r\nConnection: close\r\n" in writer(keep_alive=False).get(axb.PATH, "a=1")


@pytest.mark.parametrize("app_key", ["", 'a"b', "a\r\nX: y", "é", "a\\"])
def test_an_app_key_that_would_break_the_header_is_refused(app_key: str) -> None:
    """The key stands inside quotes in a header."""
    with pytest.raises(ValueError, match="app_key"):
        writer(app_key=app_key)


@pytest.mark.parametrize(("direction", "wire"), [(Direction.BOTH, 0), (Direction.A_TO_B, 1), (Direction.B_TO_A, 2)])
def test_bind_body(direction: Direction, wire: int) -> None:
    """A bind names X, A, B, the direction as a number, the lifetime in seconds, and our token."""
    assert orjson.loads(axb.bind_body(BindLine(X, A, B, direction, 86400, "l1.1"))) == {
        "relationNum": X,
        "callerNum": A,
        "calleeNum": B,
        "callDirection": wire,
        "duration": 86400,
        "userData": "l1.1",
    }


def test_duration_is_zero_only_for_no_expiry() -> None:
    """0 means never expires: only a lifetime of 0 is sent as 0, and a negative one is not sent at all."""
    assert orjson.loads(axb.bind_body(BindLine(X, A, B, Direction.BOTH, 0, "t")))["duration"] == 0
    assert orjson.loads(axb.bind_body(BindLine(X, A, B, Direction.BOTH, 1, "t")))["duration"] == 1
    with pytest.raises(ValueError, match="ttl_s"):
        axb.bind_body(BindLine(X, A, B, Direction.BOTH, -1, "t"))


def test_options_of_a_bind() -> None:
    """Options that were asked for go out under the platform's names, flags as text; the others are left out."""
    every = CallOptions(
        recording=True,
        hint_tone="hint.wav",
        max_call_minutes=30,
        last_minute_tone="last.wav",
        sms=False,
        caller_tone="a.wav",
        callee_tone="b.wav",
    )
    for options, fields in {
        every: {
            "recordFlag": "true",
            "recordHintTone": "hint.wav",
            "maxDuration": 30,
            "lastMinVoice": "last.wav",
            "privateSms": "false",
            "preVoice": {"callerHintTone": "a.wav", "calleeHintTone": "b.wav"},
        },
        CallOptions(recording=False, max_call_minutes=0): {"recordFlag": "false", "maxDuration": 0},
        CallOptions(callee_tone="b.wav"): {"preVoice": {"calleeHintTone": "b.wav"}},
        DEFAULT: {},
    }.items():
        plain = orjson.loads(axb.bind_body(BindLine(X, A, B, Direction.BOTH, 60, "t")))
        assert orjson.loads(axb.bind_body(BindLine(X, A, B, Direction.BOTH, 60, "t", options))) == plain | fields


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        ({}, {}),
        ({"a": A}, {"callerNum": A}),
        ({"b": B}, {"calleeNum": B}),
        ({"direction": Direction.BOTH}, {"callDirection": 0}),
        ({"direction": Direction.B_TO_A}, {"callDirection": 2}),
        ({"ttl_s": 0}, {"duration": 0}),
        ({"ttl_s": 60}, {"duration": 60}),
    ],
)
def test_modify_body(change: dict[str, Any], fields: dict[str, object]) -> None:
    """A modification names the binding, its new token and what changes, a 0 too; nothing else."""
    body = orjson.loads(axb.modify_body(ModifyLine("s-1", "l1.2", **change)))
    assert body == {"subscriptionId": "s-1", "userData": "l1.2", **fields}


TONES = CallOptions(caller_tone="a.wav", callee_tone="b.wav")


@pytest.mark.parametrize(
    ("was", "wanted", "fields"),
    [
        (DEFAULT, DEFAULT, {}),
        (TONES, TONES, {}),
        (DEFAULT, CallOptions(recording=True), {"recordFlag": "true"}),
        (CallOptions(recording=True), DEFAULT, {"recordFlag": "false"}),
        (CallOptions(recording=False), DEFAULT, {}),
        (CallOptions(recording=True, hint_tone="h.wav"), CallOptions(recording=False), {"recordFlag": "false"}),
        (CallOptions(max_call_minutes=5), CallOptions(max_call_minutes=6), {"maxDuration": 6}),
        (
            CallOptions(max_call_minutes=5, last_minute_tone="l.wav", sms=True),
            CallOptions(sms=True),
            {"maxDuration": 0, "lastMinVoice": ""},
        ),
        (CallOptions(last_minute_tone="l.wav"), CallOptions(last_minute_tone="m.wav"), {"lastMinVoice": "m.wav"}),
        (CallOptions(sms=True), CallOptions(sms=False), {"privateSms": "false"}),
        (CallOptions(sms=False), DEFAULT, {"privateSms": "true"}),
        (CallOptions(sms=True), DEFAULT, {}),
        (DEFAULT, TONES, {"preVoice": {"callerHintTone": "a.wav", "calleeHintTone": "b.wav"}}),
        (TONES, CallOptions(caller_tone="a.wav"), {"preVoice": {"callerHintTone": "a.wav", "calleeHintTone": ""}}),
        (TONES, DEFAULT, {"preVoice": {"callerHintTone": "", "calleeHintTone": ""}}),
    ],
)
def test_options_of_a_modification(was: CallOptions, wanted: CallOptions, fields: dict[str, object]) -> None:
    """What differs goes out; what nobody asks for any more goes out as the platform's default, unless it is that."""
    body = orjson.loads(axb.modify_body(ModifyLine("s-1", "t", options=wanted, was=was)))
    assert body == {"subscriptionId": "s-1", "userData": "t", **fields}


def test_options_left_alone() -> None:
    """Without a new set of options none is sent, whatever the line has."""
    assert orjson.loads(axb.modify_body(ModifyLine("s-1", "", was=TONES))) == {"subscriptionId": "s-1"}


def test_a_modification_cannot_change_the_hint_tone() -> None:
    """The platform takes the tone with a bind only: a request for another one is refused where it is made."""
    was = CallOptions(recording=True, hint_tone="h.wav")
    with pytest.raises(ValueError, match="hint tone"):
        axb.modify_body(ModifyLine("s-1", "t", options=CallOptions(recording=True, hint_tone="other.wav"), was=was))
    assert axb.modify_body(ModifyLine("s-1", "t", options=CallOptions(recording=False, hint_tone="h.wav"), was=was))


@pytest.mark.parametrize(
    ("value", "direction"),
    [
        (0, Direction.BOTH),
        ("1", Direction.A_TO_B),
        (2, Direction.B_TO_A),
        (3, None),
        (-1, None),
        (True, None),
        ("both", None),
        (None, None),
    ],
)
def test_reading_a_direction(value: object, direction: Direction | None) -> None:
    """A direction comes as a number or as text; what is none is not taken for the default."""
    assert reading.read_direction({"callDirection": value}) is direction


def test_query_strings_quote_the_plus() -> None:
    """`+` goes as `%2B`; a page always asks for 100."""
    assert axb.bindings_on(X, "", "", 1) == "relationNum=%2B8617000000101&pageIndex=1&pageSize=100"
    assert axb.bindings_on(X, A, B, 3) == (
        "relationNum=%2B8617000000101&callerNum=%2B8613900000001&calleeNum=%2B8613900000002&pageIndex=3&pageSize=100"
    )
    assert axb.bindings_on(X, "", B, 1).count("callerNum") == 0
    for x, page in (("", 1), (X, 0)):
        with pytest.raises(ValueError, match="page"):
            axb.bindings_on(x, A, B, page)


@pytest.mark.parametrize("blank", ["", " ", "\t\n"])
def test_no_unbind_without_an_id(blank: str) -> None:
    """A blank id never becomes a request."""
    with pytest.raises(ValueError, match="blank"):
        writing.one_binding(blank)


@given(st.text(min_size=1).filter(str.strip))
def test_an_unbind_names_one_binding_and_nothing_else(subscription_id: str) -> None:
    """Whatever the id holds, the query string has the one parameter `subscriptionId`: no `relationNum` slips in."""
    try:
        query = writing.one_binding(subscription_id)
    except UnicodeEncodeError:
        return  # a lone surrogate: no request can be made of it
    assert query.startswith("subscriptionId=")
    assert not set("&=+# \r\n;") & set(query.removeprefix("subscriptionId="))


@pytest.mark.parametrize(
    "body",
    [
        b'{"resultcode":"0"}',
        b'\xef\xbb\xbf{"resultcode":"0"}',
        b'\r\n\x00 {"resultcode":"0"}\x00\x00\n',
        b'\xef\xbb\xbf\xef\xbb\xbf  {"resultcode":"0"}',
        b'while(1);{"resultcode":"0"};',
        b'{"resultcode":0}',
        b'{"resultcode":" 0 ","resultdesc":"\xc4\xe3\xba\xc3"}',
    ],
)
def test_lenient_reading(body: bytes) -> None:
    """A BOM, padding, text around the object, a number for a code and foreign bytes in texts are read through."""
    fields = reading.read_object(body)
    assert fields is not None
    assert reading.read_code(fields) == "0"


@pytest.mark.parametrize("body", [b"", b"{}x{", b"[]", b"null", b'"0"', b"<html>", b"{", b'{"a":', b"}{", b"\xff\xfe"])
def test_no_object(body: bytes) -> None:
    """What is no JSON object is none; an empty one has no code."""
    assert not reading.read_object(body)


@pytest.mark.parametrize("value", [None, True, 1.5, [], {}, "", "x" * 33, "a b", "0\n1"])
def test_no_code(value: object) -> None:
    """A code is a short word or a whole number."""
    assert reading.read_code({"resultcode": value}) is None


@given(st.binary())
def test_reading_any_bytes_never_raises(body: bytes) -> None:
    """Bytes of any kind become fields or none."""
    reading.read_object(body)


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists)
NAMES = [
    "resultcode",
    "resultdesc",
    "subscriptionId",
    "relationNum",
    "callerNum",
    "userData",
    "duration",
    "callDirection",
]


@given(st.dictionaries(st.sampled_from([*NAMES, "totalCount", "relationNumList"]), JSON))
def test_reading_any_fields_never_raises(fields: dict[str, object]) -> None:
    """Fields of any type are read or absent, and never become an unprintable id."""
    reading.read_code(fields)
    reading.read_detail(fields)
    reading.read_list(fields.get("relationNumList"), axb.read_line)
    reading.read_count(fields, "totalCount")
    binding = axb.read_line(fields)
    assert binding is None or (binding.subscription_id and binding.subscription_id.isprintable())


def test_binding_with_numbers_as_text_and_text_as_numbers() -> None:
    """Types are forgiven both ways; what is missing stays empty."""
    assert axb.read_line(
        {"subscriptionId": 4711, "relationNum": X, "callerNum": A, "calleeNum": B, "duration": "60", "userData": 7}
    ) == PlatformLine("4711", X, A, B, "7", 60)
    assert axb.read_line({"subscriptionId": "s", "duration": None}, x=X) == PlatformLine("s", X)
    for broken in (None, "", " ", "a\x00b", True, ["s"]):
        assert axb.read_line({"subscriptionId": broken}) is None


def test_a_list_with_a_bad_element_is_no_list() -> None:
    """A binding that cannot be read must not look absent."""
    good = {"subscriptionId": "s", "relationNum": X}
    assert reading.read_list([good], axb.read_line) == (PlatformLine("s", X),)
    assert reading.read_list([], axb.read_line) == ()
    for broken in list[object]([None, "", {}, [good, None], [good, {}], [[good]]]):
        assert reading.read_list(broken, axb.read_line) is None


@pytest.mark.parametrize(
    ("value", "count"),
    [
        (0, 0),
        ("7", 7),
        (" 7 ", 7),
        (-1, None),
        ("1.5", None),
        (True, None),
        ("9" * 5000, None),
        ("७", None),
        (None, None),
    ],
)
def test_counts(value: object, count: int | None) -> None:
    """Counts come as numbers or as text; what is no count is none."""
    assert reading.read_count({"n": value}, "n") == count


@given(st.text(), st.from_regex(r"\+?[0-9]{7,20}", fullmatch=True), st.text())
def test_no_phone_number_survives_the_scrub(before: str, number: str, after: str) -> None:
    """A run of 7 digits or more never reaches a record, wherever the text is cut."""
    line = reading.scrub(before + number + after)
    assert not re.search(r"\d{7}", line)
    assert len(line) <= 200
    assert line.isprintable()


def test_scrub_keeps_the_words() -> None:
    """What is left tells an operator what the platform said."""
    said = reading.read_detail({"resultdesc": f"Invalid request: callerNum {A}\r\nis 12 long"})
    assert said == "Invalid request: callerNum +…  is 12 long"

"""Every refusal of the contract: its status, its code, where it points, and what it does not say."""

from __future__ import annotations

import gzip
from typing import Any

import orjson
import pytest

from tests.contract.service import Client, Service, add_app, client_of, phone, raw_request, settled_config

_A, _B = "+8613800000001", "+8613800000002"


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"{",
        b"not json",
        b'{"a":1,}',
        b"\xff\xfe",
        b'{"a":"\\ud800"}',
        b'{"metadata":{"n":NaN}}',
        b'{"metadata":{"n":-Infinity}}',
        b"\xef\xbb\xbf{}",
        b'{"a":"x"} trailing',
        b"[" * 100_0 + b"]" * 100_0,
    ],
)
@pytest.mark.parametrize("key", [None, "malformed"])
async def test_malformed_json_is_400(client: Client, sent: bytes, key: str | None) -> None:
    """What is no JSON answers 400 malformed_json, with and without an Idempotency-Key."""
    headers = {"Idempotency-Key": phone()} if key else {}
    answer = await client.ask("POST", "/v1/bindings", data=sent, headers=headers)
    answer.problem(400, "malformed_json")


@pytest.mark.parametrize(
    "number",
    [
        "+8613900000001\n",
        " +8613900000001",
        "+86139000000\u0661\u0662",  # Arabic-Indic digits
        "+861390000000\uff11",  # a full-width digit
        "13900000001",
        "013900000001",
        "008613900000001",
        "8613900000001",
        "+86 139 0000 0001",
        "+86-139-0000-0001",
        "+0613900000001",
        "+861390",
        "+8613900000001234",
        "+86139000\x0000001",
        "",
        "+",
        13900000001,
        None,
        True,
        ["+8613900000001"],
        {"number": "+8613900000001"},
    ],
)
@pytest.mark.parametrize("field", ["a", "b"])
async def test_bad_numbers_are_422(client: Client, field: str, number: object) -> None:
    """Anything but plain E.164 is refused with a message that shows the right form, and never the number."""
    answer = await client.ask("POST", "/v1/bindings", {"a": _A, "b": _B, field: number})
    assert answer.pointers() == {f"/{field}"}
    (error,) = answer.body["errors"]
    assert "+8613900000001" in error["detail"]
    assert not isinstance(number, str) or len(number) < 9 or orjson.dumps(number)[1:-1] not in _without_form(answer.raw)


def _without_form(raw: bytes) -> bytes:
    return raw.replace(b"as +8613900000001", b"")


@pytest.mark.parametrize(
    ("change", "pointers"),
    [
        ({"b": _A}, {"/b"}),
        ({"pool": "nowhere"}, {"/pool"}),
        ({"pool": ""}, {"/pool"}),
        ({"pool": "p" * 64}, {"/pool"}),
        ({"area_code": "0999"}, {"/area_code"}),
        ({"area_code": "01"}, {"/area_code"}),
        ({"areas": []}, {"/areas"}),
        ({"areas": ["0755", "0999", "010", "0998"]}, {"/areas/1", "/areas/3"}),
        ({"areas": ["0755"] * 51}, {"/areas"}),
        ({"areas": "0755"}, {"/areas"}),
        ({"pool": "shenzhen", "area_code": "0755"}, {"/pool", "/area_code"}),
        ({"pool": "shenzhen", "areas": ["0755"]}, {"/pool", "/areas"}),
        ({"ttl_s": 59}, {"/ttl_s"}),
        ({"ttl_s": 31_536_001}, {"/ttl_s"}),
        ({"ttl_s": -1}, {"/ttl_s"}),
        ({"ttl_s": 60.0}, {"/ttl_s"}),
        ({"ttl_s": "60"}, {"/ttl_s"}),
        ({"ttl_s": True}, {"/ttl_s"}),
        ({"direction": "sideways"}, {"/direction"}),
        ({"direction": None}, {"/direction"}),
        ({"policy": "best"}, {"/policy"}),
        ({"order_id": ""}, {"/order_id"}),
        ({"order_id": "o" * 129}, {"/order_id"}),
        ({"order_id": "a\x00b"}, {"/order_id"}),
        ({"order_id": 7}, {"/order_id"}),
        ({"user_data": "u" * 1025}, {"/user_data"}),
        ({"user_data": "\x00"}, {"/user_data"}),
        ({"metadata": {"k": "v" * 2041}}, {"/metadata"}),
        ({"metadata": {"k": "\x00"}}, {"/metadata"}),
        ({"metadata": {"\x00": 1}}, {"/metadata"}),
        ({"metadata": [1]}, {"/metadata"}),
        ({"metadata": "text"}, {"/metadata"}),
        ({"share": 1}, {"/share"}),
        ({"colour": "red"}, {"/colour"}),
        ({"A": _A, "x/y~z": 1}, {"/A", "/x~1y~0z"}),
    ],
)
async def test_wrong_fields_are_422(client: Client, change: dict[str, Any], pointers: set[str]) -> None:
    """Out of range, of the wrong kind, unknown: each bad field is named by its JSON Pointer."""
    assert (await client.ask("POST", "/v1/bindings", {"a": _A, "b": _B, **change})).pointers() == pointers


async def test_missing_parties_are_named(client: Client) -> None:
    """An object without a and b points to both; what is no object points to the root."""
    assert (await client.ask("POST", "/v1/bindings", {})).pointers() == {"/a", "/b"}
    for body in (list[int](), 1, "text", True):
        assert (await client.ask("POST", "/v1/bindings", body)).pointers() == {""}
    assert (await client.ask("POST", "/v1/bindings", data=b"null")).pointers() == {""}


async def test_every_bad_field_is_named_at_once(client: Client) -> None:
    """Mistakes of all kinds come back together: form, range, unknown, equal parties, unknown places."""
    body = {"a": _A, "b": _A, "pool": "nowhere", "ttl_s": 5, "direction": "up", "extra": 1, "order_id": ""}
    answer = await client.ask("POST", "/v1/bindings", body)
    assert answer.pointers() == {"/b", "/pool", "/ttl_s", "/direction", "/extra", "/order_id"}
    x = (await client.bind()).body["x"]
    body = {"a": x, "b": "nonsense", "areas": ["0755", "0999"], "policy": 1}
    assert (await client.ask("POST", "/v1/bindings", body)).pointers() == {"/a", "/b", "/areas/1", "/policy"}
    body = {"a": _A, "ttl_s": 5, "recording": {"enabled": False, "hint_tone": "no.wav"}, "tones": {"caller": "no.wav"}}
    answer = await client.ask("POST", "/v1/bindings", body)
    assert answer.pointers() == {"/b", "/ttl_s", "/recording/hint_tone", "/tones/caller"}


async def test_huge_integers_are_422(client: Client) -> None:
    """Numbers beyond 64 bits are refused where they stand, never rounded."""
    for number in (b"1" * 19, b"9" * 40, b"-" + b"9" * 400):
        sent = b'{"a":"%s","b":"%s","ttl_s":%s}' % (_A.encode(), _B.encode(), number)
        assert (await client.ask("POST", "/v1/bindings", data=sent)).pointers() == {"/ttl_s"}
    for number in (b"9" * 40, b"1e999"):
        sent = b'{"a":"%s","b":"%s","metadata":{"n":[%s]}}' % (_A.encode(), _B.encode(), number)
        for headers in ({}, {"Idempotency-Key": "huge-" + number[:4].decode()}):
            answer = await client.ask("POST", "/v1/bindings", data=sent, headers=headers)
            assert answer.pointers() == {"/metadata"}


async def test_of_duplicate_keys_the_last_one_counts(client: Client) -> None:
    """A repeated member is read as every usual parser reads it; it is no way around a check."""
    sent = b'{"a":"bad","a":"%s","b":"%s","ttl_s":60,"ttl_s":5}' % (phone().encode(), phone().encode())
    assert (await client.ask("POST", "/v1/bindings", data=sent)).pointers() == {"/ttl_s"}


async def test_a_party_that_is_our_x_is_422(client: Client) -> None:
    """One of our X numbers is no party, neither an app's own nor another app's."""
    x = (await client.bind()).body["x"]
    assert (await client.bind(a=x)).pointers() == {"/a"}
    assert (await client.bind(b=x)).pointers() == {"/b"}
    assert (await client.bind(a=x, b="+8617010000003")).pointers() == {"/a", "/b"}


@pytest.mark.parametrize("value", ["0", "0.05", "30.1", "31", "-1", "x", "", "1e1", "\u0663", "NaN", "1.", "1 2"])
async def test_a_bad_request_timeout_is_422(client: Client, value: str) -> None:
    """Request-Timeout is seconds from 0.1 to 30, or the header is named."""
    answer = await client.bind(headers={"Request-Timeout": value})
    assert answer.pointers() == {"header:Request-Timeout"}


@pytest.mark.parametrize("value", ["0.1", "30", "3", "1.5", "29.999", "2.3746582228687754"])
async def test_good_request_timeouts(client: Client, value: str) -> None:
    """Any time from 0.1 to 30 s is taken; whether it sufficed decides between 201 and 202."""
    assert (await client.bind(headers={"Request-Timeout": value})).status in {201, 202}


@pytest.mark.parametrize("value", ["", '""', "k" * 256, '"' + "k" * 256 + '"', "with space", '"open', "a,b"])
async def test_a_bad_idempotency_key_is_422(client: Client, value: str) -> None:
    """A key is 1 to 255 printable ASCII characters, quoted or bare."""
    answer = await client.bind(headers={"Idempotency-Key": value})
    assert answer.pointers() == {"header:Idempotency-Key"}


async def test_bodies_over_64_kib_are_413(client: Client) -> None:
    """Too large is refused by its announced length and, when chunked, by what arrives."""

    async def chunks() -> Any:
        for _ in range(9):
            yield b" " * 8192

    for data in (b" " * 65_537, b" " * 1_000_000, chunks()):
        answer = await client.ask("POST", "/v1/bindings", data=data, headers={"Idempotency-Key": "too-large"})
        answer.problem(413, "body_too_large")
    assert (await client.bind()).status == 201


async def test_a_chunked_body_is_read(client: Client) -> None:
    """Chunked transfer of a small body is as good as any."""

    async def chunks() -> Any:
        body = orjson.dumps({"a": phone(), "b": phone()})
        for place in range(0, len(body), 7):
            yield body[place : place + 7]

    assert (await client.ask("POST", "/v1/bindings", data=chunks())).status == 201


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "GZIP", "identity, gzip", "nonsense"])
async def test_compressed_bodies_are_415(client: Client, encoding: str) -> None:
    """Any Content-Encoding but identity is refused, whether or not the body is what it says."""
    plain = orjson.dumps({"a": phone(), "b": phone()})
    for sent in (plain, gzip.compress(plain)):
        answer = await client.ask("POST", "/v1/bindings", data=sent, headers={"Content-Encoding": encoding})
        answer.problem(415, "compressed_body")


async def test_identity_is_no_compression(client: Client) -> None:
    """Content-Encoding: identity says nothing."""
    assert (await client.bind(headers={"Content-Encoding": "identity"})).status == 201


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "application/x-www-form-urlencoded", "nonsense", ""])
async def test_the_content_type_does_not_matter(client: Client, kind: str) -> None:
    """A JSON body is read whatever its label: curl -d sends the form's."""
    assert (await client.bind(headers={"Content-Type": kind})).status == 201


@pytest.mark.parametrize(
    "binding_id",
    ["bnd_none", "bnd_" + "0" * 32, "bnd_" + "v" * 32, "1", "%00", "%ff%fe", "%zz", "%", "BND_" + "0" * 32, "x" * 4000],
)
async def test_unknown_ids_are_404(client: Client, binding_id: str) -> None:
    """No such binding, in whatever way it is none."""
    for method in ("GET", "DELETE"):
        status, headers, body = await raw_request(
            client.service,
            f"{method} /v1/bindings/{binding_id} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {client.service.key}\r\n"
            f"Idempotency-Key: {phone()}\r\n\r\n".encode(),
        )
        assert (status, headers["content-type"]) == (404, "application/problem+json"), body
        assert orjson.loads(body)["code"] == "binding_not_found"


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/bindings/", "/v2/bindings", "/v1/bindings/a/b", "/test/clock"])
async def test_unknown_paths_are_404(client: Client, path: str) -> None:
    """Nothing there, and a problem says so."""
    for method in ("GET", "POST", "DELETE"):
        (await client.ask(method, path)).problem(404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PATCH", "/v1/bindings", {"GET", "HEAD", "POST"}),
        ("PUT", "/v1/bindings", {"GET", "HEAD", "POST"}),
        ("OPTIONS", "/v1/bindings", {"GET", "HEAD", "POST"}),
        ("DELETE", "/v1/bindings", {"GET", "HEAD", "POST"}),
        ("POST", "/v1/bindings/bnd_x", {"GET", "HEAD", "PATCH", "DELETE"}),
        ("PUT", "/v1/bindings/bnd_x", {"GET", "HEAD", "PATCH", "DELETE"}),
        ("OPTIONS", "/v1/bindings/bnd_x", {"GET", "HEAD", "PATCH", "DELETE"}),
        ("POST", "/livez", {"GET", "HEAD"}),
        ("POST", "/problems", {"GET", "HEAD"}),
        ("PROPFIND", "/v1/bindings", {"GET", "HEAD", "POST"}),
    ],
)
async def test_other_methods_are_405_with_allow(client: Client, method: str, path: str, allowed: set[str]) -> None:
    """A known path answers a method it does not take with 405 and what it takes."""
    answer = await client.ask(method, path)
    answer.problem(405, "method_not_allowed")
    assert {one.strip() for one in answer.headers["Allow"].split(",")} == allowed


async def test_head_is_get_without_a_body(client: Client) -> None:
    """HEAD of a binding answers as GET does, length included, and no body; errors likewise."""
    binding_id = (await client.bind()).body["id"]
    shown = await client.ask("GET", f"/v1/bindings/{binding_id}")
    head = await client.ask("HEAD", f"/v1/bindings/{binding_id}")
    assert (head.status, head.raw) == (200, b"")
    assert head.headers["Content-Length"] == shown.headers["Content-Length"]
    assert (await client.ask("HEAD", "/v1/bindings/bnd_none")).status == 404
    assert (await client.ask("HEAD", f"/v1/bindings/{binding_id}", key=None)).status == 401
    assert (await client.ask("HEAD", "/v1/bindings:batch")).status == 405


async def test_a_suspended_app_is_503(service: Service) -> None:
    """A suspended app answers 503 app_suspended with Retry-After, and nothing is made."""
    tenant = await add_app(service, "suspended", state="suspended")
    async with client_of(service) as client:
        await settled_config(service, client, tenant.keys["main"])
        answer = await client.bind(key=tenant.keys["main"])
        answer.problem(503, "app_suspended")
        assert int(answer.headers["Retry-After"]) > 0


async def test_request_ids_are_echoed(client: Client) -> None:
    """A usable X-Request-Id comes back on every answer, an unusable one, or what may be a phone, is replaced."""
    for path, method in (("/livez", "GET"), ("/v1/bindings/bnd_none", "GET"), ("/nowhere", "GET"), ("/livez", "PUT")):
        answer = await client.ask(method, path, headers={"X-Request-Id": "my-id.7"})
        assert answer.headers["X-Request-Id"] == "my-id.7"
        assert answer.status == 200 or answer.body["instance"] == "my-id.7"
    for random in ("12345678-1234-4321-8765-1234567890ab", "0af7651916cd43dd8448eb2112345678"):
        assert (await client.ask("GET", "/livez", headers={"X-Request-Id": random})).headers["X-Request-Id"] == random
    phones = ("8613912345678", "order-13912345678.1", "1234567", "12345678-1234-4321-8765-123456789012")
    for unusable in ("with space", "x" * 65, "a\tb", "ü", *phones):
        answer = await client.bind(headers={"X-Request-Id": unusable})
        assert answer.headers["X-Request-Id"].startswith("req_")
    assert (await client.bind()).headers["X-Request-Id"].startswith("req_")

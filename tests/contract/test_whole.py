"""A bind in one piece, which is read without the framework, is answered as one that the framework has read."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import orjson
import pytest

from tests.contract.service import LIMIT_S, Client, Tenant, phone, raw_request

#: A field without a blank is left to the framework.
_FRAMEWORK = b"X-Odd:yes"


def _request(key: str, body: bytes, *headers: bytes, authorization: bytes = b"") -> bytes:
    authorization = authorization or b"Authorization: Bearer " + key.encode()
    length = b"Content-Length: %d" % len(body)
    return b"\r\n".join([b"POST /v1/bindings HTTP/1.1", b"Host: x", authorization, *headers, length, b"", body])


async def _both(
    client: Client, body: bytes, *headers: bytes, authorization: bytes = b"", keyed: bool = False
) -> list[tuple[int, object]]:
    """Return status, names of headers and members of the body, as both ways have it."""
    answers: list[tuple[int, object]] = []
    for more in ((), (_FRAMEWORK,)):
        key = [b"Idempotency-Key: " + phone().encode()] if keyed else []
        request = _request(client.service.key, body, *headers, *key, *more, authorization=authorization)
        status, fields, said = await raw_request(client.service, request)
        # Only the framework names itself: that tells the ways apart.
        assert ("server" in fields) is bool(more), fields
        told = orjson.loads(said)
        shown = {name: told[name] for name in told if name in {"code", "status", "state", "title", "detail", "errors"}}
        kept = sorted(set(fields) - {"server"}), fields["content-type"], sorted(told), shown
        answers.append((status, kept))
    return answers


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (None, [], 201),
        (None, [b"Prefer: respond-async"], 202),
        (None, [b"Request-Timeout: 20", b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"], 201),
        (None, [b"Request-Timeout: soon"], 422),
        (None, [b'Idempotency-Key: a"b'], 422),
        (b"", [], 400),
        (b"{", [], 400),
        (b"[]", [], 422),
        (b'{"a":"+8613900000001","b":1,"c":2}', [], 422),
        (b'{"a":"+8613900000001","b":"+8613900000001"}', [], 422),
        (b'{"a":"+8613900000001","b":"+8613900000002","pool":"none"}', [], 422),
    ],
)  # fmt: skip
async def test_both_ways_answer_alike(client: Client, body: bytes | None, headers: list[bytes], status: int) -> None:
    """Good and bad binds: the same status, headers, members and words."""
    pair = orjson.dumps({"a": phone(), "b": phone(), "share": False}) if body is None else body
    short, long = await _both(client, pair, *headers)
    assert short == long
    assert short[0] == status


_PAIR = b'"a":"+8613900000001","b":"+8613900000002"'


#: What is no JSON, or hardly, and what is said to it.
_ODD_BODIES = [
    (b"null", 422),
    (b"7", 422),
    (b'"' + b"x" * 20 + b'"', 422),
    (b" \r\n{}\t", 422),
    (b"\xef\xbb\xbf{}", 400),
    (b"{} {}", 400),
    (b"{" + _PAIR + b",}", 400),
    (b"{'a':1}", 400),
    (b"// a\n{}", 400),
    (b"{" + _PAIR + b',"ttl_s":NaN}', 400),
    (b"{" + _PAIR + b',"ttl_s":-Infinity}', 400),
    (b"{" + _PAIR + b',"ttl_s":1e999}', 422),
    (b"{" + _PAIR + b',"ttl_s":060}', 400),
    (b"{" + _PAIR + b',"ttl_s":3600.0}', 422),
    (b"{" + _PAIR + b',"ttl_s":true}', 422),
    (b"{" + _PAIR + b',"ttl_s":' + b"9" * 40 + b"}", 422),
    (b"{" + _PAIR + b',"ttl_s":' + b"9" * 6_000 + b"}", 400),
    (b"{" + _PAIR + b',"user_data":"\xff"}', 400),
    (b"{" + _PAIR + b',"user_data":"\xed\xa0\x80"}', 400),
    (b"{" + _PAIR + b',"user_data":"\\ud800"}', 400),
    (b"{" + _PAIR + b',"user_data":"\\u0000"}', 422),
    (b"{" + _PAIR + b',"user_data":"a\x00b"}', 400),
    (b"{" + _PAIR + b',"metadata":{"n":' + b"9" * 40 + b"}}", 422),
    (b"{" + _PAIR + b',"metadata":{"n":1e999}}', 422),
    (b"{" + _PAIR + b',"metadata":' + b'{"n":' * 300 + b"1" + b"}" * 301, 400),
    (b"[" * 30_000, 400),
    (b'{"a":' * 4_000, 400),
    (b'{"a":"+8613900000001","a":"+8613900000002","b":"+8613900000002"}', 422),
    (b'{"+8613900000001":1,"":2,"a/b~c":3}', 422),
    (b"{" + b",".join(b'"f%d":1' % number for number in range(2_000)) + b"}", 422),
    (b"\x00" * 10, 400),
]


@pytest.mark.parametrize("keyed", [False, True])
async def test_both_ways_read_bodies_alike(client: Client, *, keyed: bool) -> None:
    """With a key, too, for which the body is hashed before anything else looks at it."""
    for body, status in _ODD_BODIES:
        short, long = await _both(client, body, keyed=keyed)
        assert short == long, body[:80]
        assert short[0] == status, (body[:80], short)


@pytest.mark.parametrize(
    ("scheme", "whose", "status"),
    [
        ("Bearer {}", "main", 409),
        ("bearer {}", "binder", 409),
        ("BEARER   {}", "binder", 409),
        ("Bearer {}", "reader", 403),
        ("Bearer {}", "nothing", 403),
        ("Bearer {}x", "main", 401),
        ("Bearer {} x", "main", 401),
        ("Basic {}", "main", 401),
        ("Bearer", "main", 401),
        ("{}", "main", 401),
        ("Bearer bbk_unknown", "main", 401),
    ],
)
async def test_both_ways_let_the_same_in(client: Client, other: Tenant, scheme: str, whose: str, status: int) -> None:
    """Who may bind, in the caller's own app, which has no pool."""
    authorization = b"Authorization: " + scheme.format(other.keys[whose]).encode()
    short, long = await _both(client, orjson.dumps({"a": phone(), "b": phone()}), authorization=authorization)
    assert short == long
    assert short[0] == status


async def test_a_key_holds_across_both_ways(client: Client) -> None:
    """What was bound in one piece is not bound again through the framework."""
    body = orjson.dumps({"a": phone(), "b": phone()})
    key = b"Idempotency-Key: " + phone().encode()
    first, fields, made = await raw_request(client.service, _request(client.service.key, body, key))
    again, replayed, same = await raw_request(client.service, _request(client.service.key, body, key, _FRAMEWORK))
    assert (first, again, made) == (201, 201, same)
    assert "idempotency-replayed" not in fields
    assert replayed["idempotency-replayed"] == "true"


async def test_a_request_id_is_given_back(client: Client) -> None:
    """One that may hold a phone is replaced."""
    for sent, given in ((b"order-7", True), (b"+8613900000001", False)):
        request = _request(client.service.key, b"{}", b"X-Request-Id: " + sent)
        _, fields, _ = await raw_request(client.service, request)
        assert (fields["x-request-id"] == sent.decode()) is given


async def test_both_kinds_follow_each_other_on_a_connection(client: Client) -> None:
    """In any order, one after another and pipelined: an answer each, in their order."""
    address = urlsplit(client.service.api)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)

    async def answer() -> int:
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), LIMIT_S)
        length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
        await reader.readexactly(int(length.partition(b":")[2]))
        return int(head.split()[1])

    def bind(*headers: bytes) -> bytes:
        return _request(client.service.key, orjson.dumps({"a": phone(), "b": phone()}), *headers)

    bad = _request(client.service.key, b"{}")
    try:
        for request in (bind(), bind(_FRAMEWORK), bind(), bind()):
            writer.write(request)
            assert await answer() == 201
        writer.write(bind())
        await writer.drain()
        await asyncio.sleep(0)
        writer.write(bad)
        writer.write(bind(_FRAMEWORK) + bad)
        assert [await answer() for _ in range(4)] == [201, 422, 201, 422]
        # Parts are the framework's from then on.
        request = bind()
        writer.write(request[:20])
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(request[20:])
        assert await answer() == 201
        writer.write(bind())
        assert await answer() == 201
    finally:
        writer.close()

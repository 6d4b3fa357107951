"""A bind in one piece, which is read without the framework, is answered as one that the framework has read."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import orjson
import pytest

from tests.contract.service import LIMIT_S, Client, phone, raw_request

#: A field without a blank is left to the framework.
_FRAMEWORK = b"X-Odd:yes"


def _request(key: str, body: bytes, *headers: bytes) -> bytes:
    authorization = b"Authorization: Bearer " + key.encode()
    length = b"Content-Length: %d" % len(body)
    return b"\r\n".join([b"POST /v1/bindings HTTP/1.1", b"Host: x", authorization, *headers, length, b"", body])


async def _both(client: Client, body: bytes, *headers: bytes, key: str | None = None) -> list[tuple[int, object]]:
    """Return status, names of headers and members of the body, as both ways have it."""
    answers: list[tuple[int, object]] = []
    for more in ((), (_FRAMEWORK,)):
        request = _request(client.service.key if key is None else key, body, *headers, *more)
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


async def test_who_has_no_key_is_told_so_alike(client: Client) -> None:
    """An unknown key, with the challenge."""
    short, long = await _both(client, b"{}", key="bbk_unknown")
    assert short == long
    assert short[0] == 401


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

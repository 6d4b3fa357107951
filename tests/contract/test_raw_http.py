"""What no client library sends: the answer is still a problem, and the service still stands."""

from __future__ import annotations

import orjson
import pytest

from tests.contract.service import Client, Service, phone, raw_request

_CANARY = "+8613712345678"


def _request(client: Client, line: bytes, *headers: bytes, body: bytes = b"") -> bytes:
    authorization = b"Authorization: Bearer " + client.service.key.encode()
    length = b"Content-Length: %d" % len(body)
    return b"\r\n".join([line, b"Host: x", authorization, *headers, length, b"", body])


def _good() -> bytes:
    return orjson.dumps({"a": phone(), "b": phone()})


@pytest.mark.parametrize(
    "payload",
    [
        b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Long: " + b"9" * 20_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\nBad Name: " + _CANARY.encode() + b"\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\nX: a\x00" + _CANARY.encode() + b"\r\n\r\n",
        b"GET /livez HTTP/9.9\r\nHost: x\r\n\r\n",
        b"G@T /livez HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /v1/bindings HTTP/1.1\r\nHost: x\r\nContent-Length: " + _CANARY.encode() + b"\r\n\r\n",
        b"POST /v1/bindings HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"POST /v1/bindings HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/bindings HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: " + _CANARY.encode() + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + _CANARY.encode() + b"\r\n\r\n",
        b"nonsense " + _CANARY.encode() + b"\r\n\r\n",
    ],
)
async def test_unreadable_http_is_400(client: Client, payload: bytes) -> None:
    """What is no HTTP gets 400 as a problem that repeats nothing of it."""
    status, headers, body = await raw_request(client.service, payload)
    assert (status, headers["content-type"]) == (400, "application/problem+json"), (status, headers, body)
    assert orjson.loads(body)["code"] == "bad_request"
    assert headers["x-request-id"] == orjson.loads(body)["instance"]
    assert _CANARY.encode() not in body
    assert b"Traceback" not in body


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (b"Expect: miracles", 417),
        (b"Expect: 100-continue", 100),
        (b"traceparent: \xff\xfe" + _CANARY.encode(), 201),
        (b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", 201),
        (b"X-Request-Id: \xff\xff", 201),
        (b"Idempotency-Key: \xff\xff", 422),
        (b"Request-Timeout: \xff", 422),
        (b"Prefer: \xff\xff,,;;=", 201),
        (b"Content-Type: \xff", 201),
        (b"Content-Type: text/plain; charset=\xff", 201),
        (b"Accept: \xff", 201),
        (b"Cookie: \xff=\xff;;;", 201),
        (b"Host: another", 400),
        (b"X-Forwarded-For: " + b"1" * 7_000, 201),
        (b"Authorization: Bearer \xff\xff", 201),
        (b"Content-Encoding: \xff", 415),
    ],
)
async def test_odd_headers(client: Client, header: bytes, status: int) -> None:
    """Bytes outside ASCII in a header never break a request: they are ignored or refused by name."""
    body = _good()
    answered, headers, said = await raw_request(
        client.service, _request(client, b"POST /v1/bindings HTTP/1.1", header, body=body)
    )
    assert answered == status, said
    if status >= 400:
        assert headers["content-type"] == "application/problem+json"
        assert orjson.loads(said)["status"] == status


@pytest.mark.parametrize(
    "target", [b"/v1/bindings/\xff\xfe", b"/v1/bindings/%ff", b"/v1/bindings/%C0%80", b"/v1/bindings/%ED%A0%80"]
)
@pytest.mark.parametrize("method", [b"GET", b"DELETE"])
async def test_odd_paths(client: Client, method: bytes, target: bytes) -> None:
    """Bytes and percent-encodings that are no UTF-8 name no binding, also where the path is hashed for a key."""
    status, headers, body = await raw_request(
        client.service, _request(client, method + b" " + target + b" HTTP/1.1", b"Idempotency-Key: " + phone().encode())
    )
    assert status in {400, 404}, body
    assert headers["content-type"] == "application/problem+json"


async def test_an_unfinished_body_harms_nobody(client: Client) -> None:
    """A chunk that is none, after good headers, is the sender's own problem."""
    payload = _request(client, b"POST /v1/bindings HTTP/1.1").replace(
        b"Content-Length: 0", b"Transfer-Encoding: chunked"
    )
    status, headers, _ = await raw_request(client.service, payload + b"zz\r\nabc\r\n")
    assert (status, headers["content-type"]) == (400, "application/problem+json")
    assert (await client.bind()).status == 201


async def test_a_pipelined_second_request_is_answered(client: Client) -> None:
    """Two requests in one packet get two answers; the first one is read here."""
    one = _request(client, b"POST /v1/bindings HTTP/1.1", body=_good())
    status, _, _ = await raw_request(client.service, one + one)
    assert status == 201


async def test_the_log_keeps_nothing_of_it(client: Client) -> None:
    """Whatever was sent in odd places is not in the log."""
    assert _CANARY.lstrip("+").encode() not in client.service.log.read_bytes()


async def test_half_a_body_is_not_waited_for_without_end(service: Service) -> None:
    """A body that stops in the middle is answered 408 after its time, and nothing is done."""
    head = f"POST /v1/bindings HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {service.key}\r\nContent-Length: 90\r\n\r\n"
    status, headers, body = await raw_request(service, head.encode() + b'{"a":')
    assert (status, headers["content-type"]) == (408, "application/problem+json")
    assert b"request_timeout" in body

"""Which binds are read without the framework, and how their answers look on the wire."""

from __future__ import annotations

import pytest

from broker.api import whole

_HEAD = b"POST /v1/bindings HTTP/1.1\r\nHost: h\r\n"
_END = b"Content-Length: 2\r\n\r\n{}"


def _read(data: bytes) -> whole.Whole | None:
    return whole.read(data, None, body_bytes=64)


def test_a_plain_bind_is_read() -> None:
    """Names in any case, values as they are, the body."""
    found = _read(
        _HEAD
        + b"Connection: Keep-Alive\r\nauthorization: Bearer k\r\nPrefer: respond-async, wait=3\r\nX: a:b: c\r\n"
        + _END
    )
    assert found is not None
    assert (found.method, found.raw_path, found.body) == ("POST", "/v1/bindings", b"{}")
    assert found.headers["Authorization"] == "Bearer k"
    assert found.headers.getall("prefer") == ["respond-async, wait=3"]
    assert found.headers["x"] == "a:b: c"


@pytest.mark.parametrize(
    "other",
    [
        b"",
        _HEAD,
        (_HEAD + _END)[:-1],
        _HEAD + _END + _HEAD + _END,
        _HEAD + b"Connection: close\r\n" + _END,
        _HEAD + b"Transfer-Encoding: chunked\r\n" + _END,
        _HEAD + b"Expect: 100-continue\r\n" + _END,
        _HEAD + b"upgrade: h2c\r\n" + _END,
        _HEAD + b"content-encoding: identity\r\n" + _END,
        _HEAD + b"X: " + b"x" * 9_000 + b"\r\n" + _END,
        b"POST /v1/bindings HTTP/1.1\r\n" + _END,
        b"POST /v1/bindings?x=1 HTTP/1.1\r\nHost: h\r\n" + _END,
        b"POST /v1/bindings:batch HTTP/1.1\r\nHost: h\r\n" + _END,
        b"post /v1/bindings HTTP/1.1\r\nHost: h\r\n" + _END,
        b"GET /v1/bindings HTTP/1.1\r\nHost: h\r\n\r\n",
        _HEAD + b"host: h\r\n" + _END,
        _HEAD + b"Prefer: a\r\nprefer: b\r\n" + _END,
        _HEAD + b"X:a\r\n" + _END,
        _HEAD + b"X:  a\r\n" + _END,
        _HEAD + b"X: a \r\n" + _END,
        _HEAD + b"X: \r\n" + _END,
        _HEAD + b"X : a\r\n" + _END,
        _HEAD + b"X: a\tb\r\n" + _END,
        _HEAD + b"X: a\x00b\r\n" + _END,
        _HEAD + b"X: a\x7fb\r\n" + _END,
        _HEAD + b"X: \xffb\r\n" + _END,
        _HEAD + b"X: a\nY: b\r\n" + _END,
        _HEAD + b"X: a\r\n folded\r\n" + _END,
        _HEAD + b"X(: a\r\n" + _END,
        _HEAD + b"Proxy-Connection: close\r\n" + _END,
        _HEAD + b"Content-Length: +2\r\n\r\n",
        _HEAD + b"Content-Length: 02\r\n\r\n{}",
        _HEAD + b"X: a\r\n\r\n",
        _HEAD + b"".join(b"X-%d: a\r\n" % number for number in range(100)) + _END,
        _HEAD + b"Content-Length: 65\r\n\r\n" + b" " * 65,
    ],
)
def test_whatever_is_less_plain_is_the_frameworks(other: bytes) -> None:
    """Another line, names twice, odd bytes, odd blanks, many fields, a large body."""
    assert _read(other) is None


def test_an_answer_is_written_in_full() -> None:
    """Status, headers, length and date, then the body."""
    head, _, body = whole.write(201, {"X-Request-Id": "r"}, b"{}").partition(b"\r\n\r\n")
    first, *fields = head.decode("ascii").split("\r\n")
    assert first == "HTTP/1.1 201 Created"
    assert fields[:2] == ["X-Request-Id: r", "Content-Length: 2"]
    assert fields[2].startswith("Date: ")
    assert body == b"{}"

"""Hostile input: never a 5xx, always a problem, nothing of it repeated, nothing slow."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterator
from typing import Any

import aiohttp
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.contract.service import Answer, Client, Service

_CANARY = "+8613612345678"
_FUZZ = settings(
    max_examples=120, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)

_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20) | st.sampled_from([_CANARY, "\x00", "+", "0755", "\u0661" * 12]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
_fields = st.sampled_from(
    [
        "a",
        "b",
        "pool",
        "area_code",
        "areas",
        "ttl_s",
        "direction",
        "policy",
        "order_id",
        "user_data",
        "metadata",
        "share",
    ]
)
_body = st.dictionaries(_fields | st.text(max_size=8) | st.just(_CANARY), _json, max_size=8)
_latin = st.text(st.characters(min_codepoint=33, max_codepoint=255, blacklist_characters="\x7f"), max_size=40)
_headers = st.dictionaries(
    st.sampled_from(
        ["Idempotency-Key", "Request-Timeout", "Prefer", "X-Request-Id", "traceparent", "Content-Type", "Accept"]
    ),
    _latin,
    max_size=5,
)


class _Loop:
    """One event loop and session for all examples of a test: hypothesis calls a plain function."""

    def __init__(self, service: Service) -> None:
        self._runner = asyncio.Runner()
        self._service = service
        self._http = self._runner.run(self._open())

    async def _open(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30))

    @property
    def client(self) -> Client:
        """Requests of this loop."""
        return Client(self._service, self._http)

    def run(self, asked: Coroutine[Any, Any, Answer]) -> Answer:
        """Send one request."""
        return self._runner.run(asked)

    def close(self) -> None:
        """End."""
        self._runner.run(self._http.close())
        self._runner.close()


@pytest.fixture
def loop(service: Service) -> Iterator[_Loop]:
    """Requests from plain functions."""
    made = _Loop(service)
    yield made
    made.close()


def _check(answer: Answer) -> None:
    assert answer.status < 500, answer.raw
    assert b"Traceback" not in answer.raw
    assert _CANARY.lstrip("+").encode() not in answer.raw
    if answer.status >= 400:
        assert answer.headers["Content-Type"].startswith("application/problem+json"), answer.raw
        assert {"type", "title", "status", "detail", "instance", "code"} <= set(answer.body)
        assert answer.body["status"] == answer.status


def test_any_json_object(loop: _Loop) -> None:
    """Objects of known and unknown fields with values of all kinds."""

    @_FUZZ
    @given(_body)
    def fuzz(body: dict[str, Any]) -> None:
        # Its own words may come back to the one who sent them; what we make of them may not hold the number.
        body = {name: value for name, value in body.items() if name not in {"order_id", "user_data", "metadata"}}
        sent = orjson.dumps(body, default=str, option=orjson.OPT_PASSTHROUGH_SUBCLASS) if _fits(body) else b"{}"
        _check(loop.run(loop.client.ask("POST", "/v1/bindings", data=sent)))

    fuzz()


def _fits(value: object) -> bool:
    try:
        orjson.dumps(value)
    except TypeError:
        return False
    return True


def test_good_parties_and_anything_else(loop: _Loop) -> None:
    """With a and b in order every other field is looked at; whatever is accepted can be read back."""

    @_FUZZ
    @given(st.dictionaries(_fields.filter(lambda name: name not in "ab"), _json, max_size=3), st.integers(0, 10**7))
    def fuzz(extra: dict[str, Any], number: int) -> None:
        if not _fits(extra):
            return
        body = {"a": f"+86135{number:08d}", "b": f"+86134{number:08d}", **extra}
        answer = loop.run(loop.client.ask("POST", "/v1/bindings", body))
        assert answer.status < 500, answer.raw
        if answer.status in {201, 202}:
            shown = loop.run(loop.client.ask("GET", answer.headers["Location"]))
            assert shown.status == 200
            assert {name: shown.body[name] for name in extra if name in shown.body and extra[name] is not None} == {
                name: value for name, value in extra.items() if name in shown.body and value is not None
            }

    fuzz()


def test_any_bytes(loop: _Loop) -> None:
    """Bodies that are no JSON at all, or nearly."""

    @_FUZZ
    @given(
        st.binary(max_size=300) | st.text(alphabet='{}[]",:0123456789.eE+-\\u nultrefas', max_size=80).map(str.encode)
    )
    def fuzz(sent: bytes) -> None:
        _check(loop.run(loop.client.ask("POST", "/v1/bindings", data=sent)))

    fuzz()


def test_any_headers(loop: _Loop) -> None:
    """Headers that we read, with anything in them that HTTP lets through."""

    @_FUZZ
    @given(_headers, st.sampled_from(["POST", "GET", "DELETE", "PUT", "HEAD"]))
    def fuzz(headers: dict[str, str], method: str) -> None:
        path = "/v1/bindings" if method == "POST" else "/v1/bindings/bnd_x"
        answer = loop.run(loop.client.ask(method, path, {"a": _CANARY, "b": "x"}, headers=headers))
        if method == "HEAD":
            assert answer.status < 500
        else:
            _check(answer)

    fuzz()


def test_any_path(loop: _Loop) -> None:
    """Paths and queries, encoded in every way."""

    @_FUZZ
    @given(
        st.text(alphabet="abz09_%/.;~:?&=+2fFe\u00fc\u6f22", max_size=60), st.sampled_from(["GET", "DELETE", "POST"])
    )
    def fuzz(tail: str, method: str) -> None:
        _check(loop.run(loop.client.ask(method, f"/v1/bindings/{tail}", headers={"Idempotency-Key": "p"})))

    fuzz()


@pytest.mark.parametrize(
    "sent",
    [
        b"[" * 60_000,
        b'{"metadata":' * 5_000,
        b'{"metadata":' + b'{"a":' * 240 + b"1" + b"}" * 241,
        b'{"a":' + b"9" * 65_000 + b"}",
        b'{"a":"' + b"\\u0000" * 10_000 + b'"}',
        b'{"x":1,' * 1 + b",".join(b'"k%d":1' % n for n in range(5_000)) + b"}",
        b'{"areas":[' + b",".join([b'"0755"'] * 8_000) + b"]}",
        b'{"a":"+' + b"1" * 60_000 + b'"}',
        b" " * 65_000,
    ],
)
async def test_costly_bodies_are_cheap(client: Client, sent: bytes) -> None:
    """Nesting, length and number of fields make no request slow: P14's bound is 50 ms on an idle machine."""
    took = []
    for _ in range(3):
        before = time.perf_counter()
        answer = await client.ask("POST", "/v1/bindings", data=sent, headers={"Idempotency-Key": "costly"})
        took.append(time.perf_counter() - before)
        _check(answer)
        assert answer.status in {400, 422}
    assert min(took) < 0.25

"""What the listener takes, refuses and keeps."""

from __future__ import annotations

import asyncio
import gzip
import io
import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import orjson
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from broker.app import tls_of
from broker.edge.listener import EdgeRunner
from broker.errors import Problem
from broker.settings import Settings
from tests.edge.rig import Edge, event, fee, fees, headers, message, session_id
from tests.store.pairs import VAULT, A, B

_HOUR = timedelta(hours=1)


def _ago(**units: float) -> datetime:
    return datetime.now(UTC) - timedelta(**units)


@pytest.mark.parametrize("scheme", ["aksk", "wsse"])
async def test_both_schemes_and_both_secrets(edge: Edge, scheme: str) -> None:
    """Either of two live secrets is good in either scheme; a third one is not, nor an older one once it is dropped."""
    await edge.configure(
        "UPDATE app SET previous_secret_sealed = $1", VAULT.seal("app", "secret", 0, "shop", "the one before")
    )
    for secret, status in (("secret", 200), ("the one before", 200), ("another", 401)):
        signed = headers(secret=secret, scheme=scheme)
        assert (await edge.push("events", event("callin", session_id()), signed=signed))[0] == status
    await edge.configure("UPDATE app SET previous_secret_sealed = NULL")
    signed = headers(secret="the one before", scheme=scheme)
    assert (await edge.push("events", event("callin", session_id()), signed=signed))[0] == 401
    assert edge.counts.pushes == {("events", "kept"): 2, ("events", "wrong_signature"): 2}


async def test_the_older_scheme_can_be_forbidden(edge: Edge) -> None:
    """Then AKSK alone is taken."""
    await edge.configure("UPDATE app SET push_wsse = false")
    assert (await edge.push("cdr", fees(fee("s")), signed=headers(scheme="wsse")))[0] == 401
    assert (await edge.push("cdr", fees(fee("s"))))[0] == 200


@pytest.mark.parametrize(
    ("signed", "reason"),
    [
        ({}, "unsigned"),
        ({"X-AKSK": "UsernameToken"}, "unsigned"),
        ({"X-AKSK": 'UsernameToken Username="key",PasswordDigest="x",Nonce="n",Created="yesterday"'}, "unsigned"),
        ({"X-AKSK": 'UsernameToken Username="key",PasswordDigest="x",Nonce="n",Created="2026-02-31T00:00:00Z"'},
         "unsigned"),
        ({"X-AKSK": 'UsernameToken Username="key",PasswordDigest="ü",Nonce="n",Created="2026-11-22T00:00:00Z"'},
         "wrong_signature"),
        (headers(secret="wrong"), "wrong_signature"),
        (headers(key="other"), "other_app"),
        (headers(at=_ago(hours=6, minutes=1)), "old"),
        (headers(at=_ago(hours=-1)), "future"),
    ],
)  # fmt: skip
async def test_what_is_not_the_platforms_is_refused(edge: Edge, signed: dict[str, str], reason: str) -> None:
    """It is told apart in the count, is answered 401, and leaves nothing."""
    assert (await edge.push("events", event("callin", session_id()), signed=signed))[0] == 401
    assert edge.counts.pushes == {("events", reason): 1}
    assert await edge.inbox() == {}


@pytest.mark.parametrize(
    "body", [b"Content-Length: 2\r\n\r\n{}", b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"]
)
async def test_a_digest_that_is_no_text(edge: Edge, body: bytes) -> None:
    """Bytes that are no UTF-8 are a wrong signature as any other, however the request is read."""
    token = b'UsernameToken Username="key",PasswordDigest="\xff\xfe",Nonce="n",Created="2026-11-22T00:00:00Z"'
    address = urlsplit(edge.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(b"POST /n/shop/events HTTP/1.1\r\nHost: h\r\nX-AKSK: " + token + b"\r\n" + body)
    async with asyncio.timeout(10):
        assert (await reader.readline()).startswith(b"HTTP/1.1 401 ")
    writer.close()
    await writer.wait_closed()
    assert edge.counts.pushes == {("events", "wrong_signature"): 1}


async def test_forms_of_the_token(edge: Edge) -> None:
    """Blanks between its attributes, their case and order, and lower-case header names make no difference."""
    token = headers()["X-AKSK"]
    parts = token.removeprefix("UsernameToken ").split(",")
    for form in (
        "UsernameToken " + ", ".join(parts),
        "UsernameToken " + ",".join(reversed(parts)),
        token.replace("Username=", "UserName=").replace("Nonce", "nonce"),
    ):
        assert (await edge.push("cdr", fees(fee("s")), signed={"x-aksk": form}))[0] == 200


async def test_a_push_of_five_hours_ago_is_taken(edge: Edge) -> None:
    """Nobody says that what is pushed again is signed again."""
    assert (await edge.push("cdr", fees(fee("s", at=_ago(hours=5))), signed=headers(at=_ago(hours=5.5))))[0] == 200


async def test_paths_that_are_not_there(edge: Edge) -> None:
    """An unknown app and an unknown kind are 404, and counted."""
    assert (await edge.push("events", {}, app="nobody"))[0] == 404
    assert (await edge.push("else", {}))[0] == 404
    assert edge.counts.pushes == {("events", "unknown_app"): 1, ("other", "unknown_kind"): 1}


async def test_networks(edge: Edge) -> None:
    """With a list of networks nobody else is heard."""
    await edge.configure("UPDATE app SET push_from = '203.0.113.0/24'")
    assert (await edge.push("cdr", fees(fee("s"))))[0] == 403
    await edge.configure("UPDATE app SET push_from = '203.0.113.0/24,127.0.0.0/8'")
    assert (await edge.push("cdr", fees(fee("s"))))[0] == 200


async def test_sizes(edge: Edge) -> None:
    """What is over a megabyte, or compressed, is refused before it is read."""
    async with edge.http.post(
        f"{edge.url}/n/shop/cdr", data=io.BytesIO(bytes(1024 * 1024 + 1)), headers=headers()
    ) as one:
        assert one.status == 413
    packed = gzip.compress(b"{}")
    assert (await edge.push("cdr", packed, signed=headers() | {"Content-Encoding": "gzip"}))[0] == 415
    assert await edge.inbox() == {}


_UNREADABLE: list[Any] = [
    b"", b"{", b"\xff\xfe", b"null", b"[]", b"3", b'"text"', b"{}", b'{"statusInfo":null}', b'{"a":1e400}',
    b'{"eventType":"answer","statusInfo":{"timestamp":"2026-11-22 10:00:00"}}',
    b'{"eventType":"nothing","statusInfo":{"sessionId":"s","timestamp":"2026-11-22 10:00:00"}}',
    b'{"eventType":"answer","statusInfo":{"sessionId":"s","timestamp":"2026-11-22"}}',
    b'{"eventType":"answer","statusInfo":{"sessionId":"s","timestamp":"9999-99-99 00:00:00"}}',
    b'{"eventType":"answer","statusInfo":{"sessionId":["s"],"timestamp":{}}}',
    b'{"eventType":"fee","feeLst":[{}]}', b'{"eventType":"fee","feeLst":"text"}',
    b'{"smsEvent":{"smsIdentifier":"1"}}', b'{"eventType":"numStatus","numInfo":[[]]}',
]  # fmt: skip


@pytest.mark.parametrize("body", _UNREADABLE)
async def test_what_cannot_be_read_is_kept(edge: Edge, body: bytes) -> None:
    """It is answered 200, counted, and opens as it came."""
    assert await edge.push("cdr", body) == (200, b"")
    assert edge.counts.pushes == {("cdr", "unreadable"): 1}
    assert await edge.inbox() == {("unreadable", "unreadable"): 1}
    (row,) = await edge.rows("inbox")
    kept = edge.opened("inbox", "raw", row).encode("latin-1")
    assert kept == body or body.startswith((b'{"eventType"', b'{"smsEvent"'))


async def test_one_bad_record_spoils_no_other(edge: Edge) -> None:
    """Of a push of three, two are records and one is kept for later."""
    await edge.told("cdr", fees(fee("one"), {"spId": "no session"}, fee("two")))
    assert await edge.inbox() == {("cdr", "done"): 2, ("unreadable", "unreadable"): 1}


async def test_doubled_headers_and_a_mark_of_bytes(edge: Edge) -> None:
    """A content type said twice and a byte order mark are nothing."""
    signed = [*headers().items(), ("Content-Type", "application/json")]
    body = b"\xef\xbb\xbf" + b'{"eventType":"fee","feeLst":[{"sessionId":"s","icid":"i"}]}\n'
    async with edge.http.post(f"{edge.url}/n/shop/cdr", data=body, headers=signed) as answer:
        assert answer.status == 200
    assert (await edge.inbox()).keys() <= {("cdr", "new"), ("cdr", "done")}


async def test_odd_times_and_words_are_kept_too(edge: Edge) -> None:
    """Times in the future, zero bytes, numbers of no form and words beyond a field's length lose nothing."""
    odd = [
        event("callin", session_id(), at=datetime.now(UTC) + 400 * 24 * _HOUR, caller="anonymous", called="95588"),
        event("callin", session_id() + "\x00", caller="\x00", called="x" * 500, stateCode="many"),
        event("disconnect", session_id(), stateCode=2**40, userData="not ours", callRelDirection="9" * 30),
        event("collectInfo", session_id(), digitInfo=" 0012 "),
    ]
    for one in odd:
        await edge.told("events", one)
    assert await edge.inbox() == {("event", "done"): 4}
    assert {call["extension"] for call in await edge.rows("call")} == {None, "0012"}


async def test_the_answer_waits_for_the_commit(edge: Edge) -> None:
    """While the inbox cannot be written there is no 200; what cannot be kept is 503, and pushed again."""
    async with edge.holding("inbox"):
        pushing = asyncio.create_task(edge.push("cdr", fees(fee("s"))))
        await edge.kept_from("inbox")
        assert not pushing.done()
    assert (await pushing)[0] == 200
    await edge.settled()
    await edge.shop.run("ALTER TABLE inbox RENAME TO inbox_away")
    try:
        assert (await edge.push("cdr", fees(fee("t"))))[0] == 503
    finally:
        await edge.shop.run("ALTER TABLE inbox_away RENAME TO inbox")
    assert edge.counts.pushes == {("cdr", "kept"): 1, ("cdr", "broken"): 1}


async def test_replay_after_a_fix(edge: Edge) -> None:
    """What was set aside is taken up again: what can be read now has its effects, the rest waits on."""
    assert (await edge.push("cdr", b"still nothing"))[0] == 200
    claim = await edge.pairs.active()
    told = event("callin", session_id(), caller=A, called=edge.x(), userData=claim.line_id.hex)
    await edge.shop.run("ALTER TABLE call RENAME COLUMN timeline TO broken")
    await edge.told("events", told)
    await edge.shop.run("ALTER TABLE call RENAME COLUMN broken TO timeline")
    assert await edge.inbox() == {("event", "stuck"): 1, ("unreadable", "unreadable"): 1}
    await edge.shop.run("UPDATE inbox SET state = 'new', due_at = clock_timestamp()")
    await edge.notices.rescue()
    await edge.settled()
    assert await edge.inbox() == {("event", "done"): 1, ("unreadable", "unreadable"): 1}
    assert [kind for kind, _, _ in await edge.events()] == ["call.started"]


async def test_questions_too_old(edge: Edge) -> None:
    """Who may ask is who signs now: a question a minute old is refused, and nobody's number is told."""
    await edge.configure("UPDATE app SET mode = 'x'")
    await edge.pairs.active()
    question = event("callin", session_id(), caller=A, called=edge.x(), notifyMode="Block")
    assert await edge.push("events", question, signed=headers(at=_ago(seconds=70))) == (401, b"")
    block = message(edge.x(), A, mode="Block")
    assert await edge.push("sms-control", block, signed=headers(at=_ago(minutes=5))) == (401, b"")
    assert await edge.inbox() == {}
    assert B.encode() in (await edge.push("events", question))[1]


def _certified(folder: Path) -> tuple[str, str]:
    """Write a key and a certificate that it signs for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "edge")])
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(_ago(days=1)).not_valid_after(_ago(days=-1))
    certificate = made.add_extension(names, critical=False).sign(key, hashes.SHA256())
    cert_file, key_file = folder / "cert.pem", folder / "key.pem"
    cert_file.write_bytes(certificate.public_bytes(Encoding.PEM))
    key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return str(cert_file), str(key_file)


_PLAIN = Settings(database_url="postgresql://h/d", data_keys="1:" + "A" * 43 + "=", index_key="A" * 43 + "=")


async def test_over_tls(edge: Edge, tmp_path: Path) -> None:
    """With a certificate the listener speaks TLS, and nothing else."""
    cert, key = _certified(tmp_path)
    tls = tls_of(_PLAIN.model_copy(update={"edge_tls_cert": cert, "edge_tls_key": key}))
    receiver = edge.receiver()
    runner = EdgeRunner(receiver.application(), take=receiver.take, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    host, port = runner.addresses[0]
    pushed: dict[str, Any] = {"data": orjson.dumps(fees(fee("s"))), "headers": headers()}
    trusting = ssl.create_default_context(cafile=cert)
    async with edge.http.post(f"https://{host}:{port}/n/shop/cdr", ssl=trusting, **pushed) as answer:
        assert answer.status == 200
    with pytest.raises(aiohttp.ClientError):
        await edge.http.post(f"http://{host}:{port}/n/shop/cdr", **pushed)
    await runner.cleanup()


def test_tls_files_that_are_none() -> None:
    """A certificate that cannot be used stops the start with a sentence; without one there is no TLS."""
    assert tls_of(_PLAIN) is None
    with pytest.raises(Problem, match="no certificate"):
        tls_of(_PLAIN.model_copy(update={"edge_tls_cert": "/nowhere.pem"}))

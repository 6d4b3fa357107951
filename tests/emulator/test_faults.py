from __future__ import annotations

import asyncio
import json
import socket
import ssl
import time
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest

from bench.certificate import self_signed
from tests.emulator.support import PATH, X1, X2, A, B, Emulated, emulator, signed

GONE = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, ConnectionResetError)


async def test_code_is_answered_without_effect(emu: Emulated) -> None:
    """A ``code`` fault answers with its code and status, for as many requests as it counts."""
    await emu.fault(interface="bind", kind="code", code="1010001", http=500, count=2)
    assert [(await emu.bind()).outcome for _ in range(3)] == [(500, "1010001"), (500, "1010001"), (200, "0")]
    rows = await emu.ledger()
    assert [(row["fault"], row["result_code"], row["x"]) for row in rows] == [
        ("code", "1010001", X1),
        ("code", "1010001", X1),
        (None, "0", X1),
    ]
    assert (await emu.ask("GET", "faults")).body["items"][0]["hits"] == 2


async def test_status_without_code_has_no_body(emu: Emulated) -> None:
    """A ``code`` fault with only ``http`` is a bare status, as from a gateway."""
    await emu.fault(interface="*", kind="code", http=503)
    reply = await emu.query(relationNum=X1)
    assert (reply.http, reply.body) == (503, {})


async def test_code_alone_takes_its_usual_status(emu: Emulated) -> None:
    """1023002 without ``http`` comes with 500 and its text."""
    await emu.fault(interface="unbind", kind="code", code="1023002")
    reply = await emu.unbind(subscriptionId="any")
    assert reply.outcome == (500, "1023002")
    assert reply.body["resultdesc"] == "Response timeout."


async def test_fault_of_one_interface_spares_the_others(emu: Emulated) -> None:
    """A fault on unbind leaves bind alone; DELETE takes faults away one by one or all."""
    first = await emu.fault(interface="unbind", kind="code", code="1010001")
    await emu.fault(interface="query", kind="code", code="1010001")
    subscription_id = await emu.bound()
    assert (await emu.unbind(subscriptionId=subscription_id)).code == "1010001"
    assert (await emu.ask("DELETE", f"faults/{first}")).http == 204
    assert (await emu.unbind(subscriptionId=subscription_id)).code == "0"
    assert (await emu.query(relationNum=X1)).code == "1010001"
    assert (await emu.ask("DELETE", "faults")).http == 204
    assert (await emu.ask("GET", "faults")).body == {"items": []}


async def test_dropped_answer_is_executed(emu: Emulated) -> None:
    """``drop_answer``: the connection closes without a byte and the binding is there."""
    await emu.fault(interface="bind", kind="drop_answer", count=1)
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await emu.bind()
    assert [(item["a"], item["b"]) for item in await emu.bindings()] == [(A, B)]
    assert (await emu.ledger())[0]["fault"] == "drop_answer"


async def test_reset_is_not_executed(emu: Emulated) -> None:
    """``reset``: the peer sees RST, nothing is bound, and the ledger has the request."""
    await emu.fault(interface="bind", kind="reset", count=1)
    address = urlsplit(emu.wire)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(raw_bind())
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()
    assert await emu.bindings() == []
    (row,) = await emu.ledger()
    assert (row["fault"], row["result_code"], row["http"], row["x"]) == ("reset", None, None, X1)


async def test_delay_after_executes_first(emu: Emulated) -> None:
    """A delayed answer's effect is visible while the client still waits."""
    await emu.fault(interface="bind", kind="delay", ms=3_600_000)
    waiting = asyncio.create_task(emu.bind())
    while not await emu.ledger():
        pass
    assert not waiting.done()
    assert len(await emu.bindings()) == 1
    waiting.cancel()


async def test_delay_answers_in_the_end(emu: Emulated) -> None:
    """The delayed answer is the real one, and comes no sooner than asked."""
    await emu.fault(interface="bind", kind="delay", ms=60, count=1)
    started = time.monotonic()
    assert (await emu.bind()).code == "0"
    assert time.monotonic() - started >= 0.059


async def test_ledger_tells_the_delay(emu: Emulated) -> None:
    """Rows of delayed requests, refused ones among them, say by how much; no other row has the field."""
    await emu.fault(interface="bind", kind="delay", ms=7, count=2)
    assert [(await emu.bind()).code for _ in range(3)] == ["0", "1012010", "1012010"]
    assert [row.get("delay_ms") for row in await emu.ledger()] == [7, 7, None]


async def test_delay_before_executes_later(emu: Emulated) -> None:
    """With ``when`` before, another client's bind made meanwhile wins, and the delayed one conflicts."""
    await emu.fault(interface="bind", kind="delay", ms=600, when="before", count=1)
    waiting = asyncio.create_task(emu.bind())
    while not (await emu.ask("GET", "faults")).body["items"][0]["hits"]:
        pass
    assert await emu.ledger() == []
    assert (await emu.bind()).code == "0"
    assert (await waiting).code == "1012010"
    late = (await emu.ledger())[1]
    assert late["received_at"] < late["at"]


async def test_late_commit_follows_an_empty_query(emu: Emulated) -> None:
    """``late_commit``: the connection is gone at once, a query finds nothing, and the binding appears later."""
    await emu.fault(interface="bind", kind="late_commit", ms=600, count=1)
    with pytest.raises(GONE):
        await emu.bind(userData="late")
    assert (await emu.query(relationNum=X1, callerNum=A)).code == "1012007"
    while not (bindings := await emu.bindings()):
        pass
    assert bindings[0]["user_data"] == "late"
    row = (await emu.ledger())[-1]
    assert (row["op"], row["fault"], row["result_code"]) == ("bind", "late_commit", "0")


async def test_share_hits_about_that_share(emu: Emulated) -> None:
    """A share of 0.3 hits roughly three in ten; 0 hits none."""
    await emu.fault(interface="query", kind="code", code="1010001", share=0.3)
    await emu.fault(interface="query", kind="code", code="1023001", share=0)
    codes = [(await emu.query(relationNum=X1)).code for _ in range(300)]
    assert 60 <= codes.count("1010001") <= 120
    assert "1023001" not in codes


@pytest.mark.parametrize(
    "fault",
    [
        {"interface": "call", "kind": "code", "code": "1"},
        {"interface": "bind", "kind": "explode"},
        {"interface": "bind", "kind": "code"},
        {"interface": "bind", "kind": "delay"},
        {"interface": "bind", "kind": "late_commit"},
        {"interface": "bind", "kind": "reset", "share": 2},
        {"interface": "bind", "kind": "reset", "count": 0},
        {"interface": "bind", "kind": "reset", "extra": 1},
        {"kind": "reset"},
    ],
)
async def test_bad_faults_are_refused_with_a_reason(emu: Emulated, fault: dict[str, object]) -> None:
    """A fault that makes no sense is 422 with a sentence."""
    reply = await emu.ask("POST", "faults", fault)
    assert reply.http == 422
    assert reply.body["detail"]


def raw_bind(x: str = X1, a: str = A, b: str = B, **headers: str) -> bytes:
    """Return a signed bind as bytes."""
    body = json.dumps({"relationNum": x, "callerNum": a, "calleeNum": b}).encode()
    given = {**signed(), "Host": "h", "Content-Length": str(len(body)), **headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    return f"POST {PATH} HTTP/1.1\r\n{head}\r\n".encode() + body


async def exchange(emu: Emulated, *pieces: bytes) -> bytes:
    """Send pieces on one connection and read until the server closes it."""
    address = urlsplit(emu.wire)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
    answer = await reader.read()
    writer.close()
    return answer


async def test_pipelined_requests_are_answered_in_order(emu: Emulated) -> None:
    """A delayed first request holds up the second on the same connection."""
    await emu.fault(interface="bind", kind="delay", ms=30, count=1)
    answers = await exchange(emu, raw_bind(X1), raw_bind(X2, Connection="close"))
    assert answers.count(b"HTTP/1.1 200 OK") == 2
    assert answers.index(X1.encode()) < answers.index(X2.encode())


async def test_a_request_in_single_bytes_is_understood(emu: Emulated) -> None:
    """Fragmentation does not matter."""
    raw = raw_bind(Connection="close")
    assert b'"resultcode":"0"' in await exchange(emu, *(raw[i : i + 1] for i in range(len(raw))))


async def test_server_closes_first_without_keep_alive(tmp_path: Path) -> None:
    """With ``keep_alive`` off each answer says close and ends the connection."""
    async with emulator(tmp_path, keep_alive=False) as emu:
        answer = await exchange(emu, raw_bind())
        assert b"Connection: close\r\n" in answer
        assert b'"resultcode":"0"' in answer


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nHost: h\r\nX-Long: " + b"x" * 40_000 + b"\r\n\r\n", b"431"),
        (b"GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", b"400"),
    ],
)
async def test_what_is_not_http_is_refused_and_closed(emu: Emulated, raw: bytes, status: bytes) -> None:
    """Broken requests get a bare status; the emulator goes on."""
    assert (await exchange(emu, raw)).startswith(b"HTTP/1.1 " + status)
    assert (await emu.bind()).code == "0"


async def test_a_careful_client_is_told_to_continue(emu: Emulated) -> None:
    """``Expect: 100-continue`` is honoured."""
    answer = await exchange(emu, raw_bind(Expect="100-continue", Connection="close"))
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK")


async def test_tls(tmp_path: Path) -> None:
    """With a certificate the wire speaks TLS; faults work there too."""
    certificate = self_signed(tmp_path / "wire.pem")
    async with emulator(tmp_path / "state", certfile=certificate) as emu:
        assert emu.wire.startswith("https://")
        trust = ssl.create_default_context(cafile=str(certificate))
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trust)) as http:
            over_tls = Emulated(emu.wire, emu.admin, http)
            assert (await over_tls.bind()).code == "0"
            await over_tls.fault(interface="unbind", kind="reset")
            with pytest.raises(GONE):
                await over_tls.unbind(subscriptionId="any")

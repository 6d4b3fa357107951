"""Calls, records and messages as order systems find them."""

from __future__ import annotations

import asyncio
import csv
import io
import itertools
import signal
import socket
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest

from tests.contract.service import (
    LIMIT_S,
    Client,
    Service,
    Tenant,
    add_key,
    command,
    environment,
    eventually,
    phone,
    rows,
    settled_config,
    wait_until,
)
from tests.contract.test_events import sockets
from tests.edge.rig import event, fee, fees, headers, message, session_id


async def _push(service: Service, client: Client, kind: str, body: object) -> None:
    app = next(one for one in service.ready["apps"] if one["mode"] == "axb")
    signed = headers(key=app["app_key"], secret=app["app_secret"])
    url = f"{service.ready['edge']}/n/{app['name']}/{kind}"
    async with client.http.post(url, data=orjson.dumps(body), headers=signed) as answer:
        assert answer.status == 200


async def _bound(client: Client, **fields: Any) -> dict[str, Any]:
    a, b = phone(), phone()
    made = await client.bind(a=a, b=b, **fields)
    assert made.status == 201, made.raw
    return {**made.body, "caller": a, "callee": b, "mark": made.body["line"].replace("-", "")}


async def _items(client: Client, path: str, **asked: Any) -> list[dict[str, Any]]:
    answer = await client.ask("POST", f"/v1/{path}:search", asked)
    assert answer.status == 200, answer.raw
    return list(answer.body["items"])


async def test_found_by_what_is_known_of_them(service: Service, client: Client) -> None:
    """By binding, order, X, party and time; numbers masked; each told once."""
    bound, other = await _bound(client, order_id="told-1"), await _bound(client)
    session = session_id()
    began = datetime.now(UTC)
    told = {"caller": bound["caller"], "userData": bound["mark"]}
    await _push(service, client, "events", event("callin", session, at=began, called=bound["x"], **told))
    await _push(service, client, "events", event("disconnect", session, called=bound["callee"], stateCode=8102, **told))
    record = fee(
        session, callerNum=bound["caller"], fwdDstNum=bound["callee"], bindNum=bound["x"], userData=bound["mark"]
    )
    record |= {"recordFlag": 1, "recordObjectName": "told.wav", "recordDomain": "storage.emulator"}
    await _push(service, client, "cdr", fees(record))
    sent: dict[str, Any] = {"called": bound["callee"], "userData": bound["mark"], "smsContent": "hello"}
    await _push(service, client, "sms", message(bound["x"], bound["caller"], **sent))
    await _push(service, client, "events", event("callin", session_id(), caller=other["caller"], called=other["x"],
                                                 userData=other["mark"]))  # fmt: skip

    async def all_there() -> bool:
        return len(await _items(client, "sms", binding_id=bound["id"])) == 1 and bool(
            await _items(client, "calls", binding_id=other["id"])
        )

    await eventually(all_there, "everything is told")
    (call,) = await _items(client, "calls", order_id="told-1")
    assert (call["session_id"], call["state"], call["reason"], call["bindings"]) == (
        session, "ended", "busy", [bound["id"]],
    )  # fmt: skip
    assert bound["caller"] not in str(call)
    assert call["caller"].endswith(bound["caller"][-4:])
    (cdr,) = await _items(client, "cdrs", party=bound["callee"])
    assert (cdr["call"], cdr["talk_s"], cdr["recording"]["file_name"]) == (call["id"], 65, "told.wav")
    (sms,) = await _items(client, "sms", x=bound["x"], party=bound["caller"])
    assert (sms["reason"], sms["content"]) == ("forwarded", None)
    assert await _items(client, "calls", party=bound["caller"], binding_id=other["id"]) == []
    later = (began + timedelta(hours=1)).isoformat()
    assert await _items(client, "calls", order_id="told-1", since=later) == []
    over = await client.ask("POST", f"/v1/calls/{session}:stop")
    over.problem(404, "call_over")


async def test_a_record_names_its_recording(service: Service, client: Client) -> None:
    """`cdr_id` stands for the two names; a record of another app, or without a recording, has none."""
    bound = await _bound(client)
    records = [
        fee(session_id(), callerNum=bound["caller"], bindNum=bound["x"], userData=bound["mark"]) for _ in range(2)
    ]
    records[0] |= {"recordFlag": 1, "recordObjectName": "gone.wav", "recordDomain": "storage.emulator"}
    await _push(service, client, "cdr", fees(*records))

    async def both() -> list[dict[str, Any]]:
        found = await _items(client, "cdrs", binding_id=bound["id"])
        return found if len(found) == 2 else []

    ids = {bool(cdr["recording"]): cdr["id"] for cdr in await eventually(both, "both records are told")}
    (row,) = await rows(service, "SELECT id FROM app WHERE name = 'demo-axb'")
    key = await add_key(service, row["id"], "listener-of-records", ("read", "reveal"))
    await settled_config(service, client, key)
    gone = await client.ask("GET", f"/v1/recordings?cdr_id={ids[True]}", key=key)
    gone.problem(410, "recording_gone")
    silent = await client.ask("POST", "/v1/recordings:locate", {"cdr_id": ids[False]}, key=key)
    silent.problem(410, silent.body["code"])
    nobody = await client.ask("GET", "/v1/recordings?cdr_id=cdr_" + "0" * 32, key=key)
    assert nobody.status == 404
    mixed = await client.ask("POST", "/v1/recordings:locate", {"cdr_id": ids[True], "file_name": "x"}, key=key)
    assert mixed.pointers() == {"/cdr_id"}
    neither = await client.ask("POST", "/v1/recordings:locate", {}, key=key)
    assert neither.pointers() == {"/file_name", "/record_domain"}
    seen = (await client.ask("GET", f"/v1/cdrs?binding_id={bound['id']}", key=key)).body["items"]
    assert {cdr["caller"] for cdr in seen} == {bound["caller"]}
    noted = await rows(service, "SELECT who, subject FROM audit WHERE what = 'reveal' AND subject LIKE 'cdr: 2 rows%'")
    assert [row["who"].startswith("demo-axb/listener") for row in noted] == [True]


async def test_page_by_page(service: Service, client: Client) -> None:
    """The cursor leads through all of them once, and is good for its own query only."""
    bound = await _bound(client)
    for _ in range(7):
        told = {"caller": bound["caller"], "called": bound["x"], "userData": bound["mark"]}
        await _push(service, client, "events", event("callin", session_id(), **told))
    path = f"/v1/calls?binding_id={bound['id']}&limit=3"

    async def all_there() -> bool:
        return len(await _items(client, "calls", binding_id=bound["id"])) == 7

    await eventually(all_there, "seven calls are told")
    seen: list[str] = []
    following: str | None = path
    while following is not None:
        answer = await client.ask("GET", following)
        assert answer.status == 200, answer.raw
        seen += [call["id"] for call in answer.body["items"]]
        cursor = answer.body["next_cursor"]
        following = f"{path}&cursor={cursor}" if cursor is not None else None
        if cursor is not None:
            assert cursor in answer.headers["Link"]
            wrong = await client.ask("GET", f"/v1/calls?limit=3&cursor={cursor}")
            assert wrong.pointers() == {"/cursor"}
    assert len(seen) == len(set(seen)) == 7
    bad = await client.ask("GET", "/v1/calls?since=yesterday&limit=0&x=1")
    assert bad.pointers() == {"/since", "/limit", "/x"}


async def test_everything_at_once(service: Service, client: Client, tmp_path: Path) -> None:
    """More than a slice, each once, as lines of JSON or CSV, by the API and by command; numbers masked."""
    bound = await _bound(client)
    count, since = 450, datetime.now(UTC)
    for first in range(0, count, 50):
        records = [
            fee(session_id(), callerNum=bound["caller"], bindNum=bound["x"], userData=bound["mark"], talk_s=first + n)
            for n in range(50)
        ]
        await _push(service, client, "cdr", fees(*records))

    async def counted() -> bool:
        kept = await rows(service, "SELECT count(*) FROM cdr WHERE x = $1 AND received_at > $2", bound["x"], since)
        return bool(kept[0]["count"] == count)

    await eventually(counted, "all records are told")
    path = f"/v1/cdrs?binding_id={bound['id']}"
    answer = await client.ask("GET", path, headers={"Accept": "application/x-ndjson"})
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/x-ndjson")
    items = [orjson.loads(line) for line in answer.raw.splitlines()]
    assert len({item["id"] for item in items}) == len(items) == count
    assert [item["at"] for item in items] == sorted((item["at"] for item in items), reverse=True)
    assert bound["caller"].encode() not in answer.raw
    table = (await client.ask("GET", path, headers={"Accept": "text/csv"})).raw.decode()
    lines = list(csv.DictReader(io.StringIO(table)))
    assert [line["id"] for line in lines] == [item["id"] for item in items]
    assert {line["talk_s"] for line in lines} == {str(item["talk_s"]) for item in items}
    (await client.ask("GET", f"{path}&limit=0", headers={"Accept": "text/csv"})).problem(422, "validation_failed")
    out = tmp_path / "cdrs.csv"
    arguments = ("export", "cdrs", "--app", "demo-axb", "--x", bound["x"], "--out", str(out))
    ended = await asyncio.to_thread(
        subprocess.run, command(*arguments, "--state-dir", str(service.folder)), env=environment(), capture_output=True,
        text=True, timeout=60, check=True,
    )  # fmt: skip
    written = list(csv.DictReader(io.StringIO(out.read_text())))
    assert [line for line in written if line["bindings"] == bound["id"]] == lines
    assert f"{len(written):,} cdrs" in ended.stderr
    assert bound["caller"] not in out.read_text()


async def test_only_so_many_are_sent_whole_at_once(service: Service, client: Client) -> None:
    """More of an app are told to come back; whoever is not among too many gets everything, and then others do."""
    database = await asyncpg.connect(service.database)
    try:
        async with database.transaction():
            await database.execute("LOCK TABLE cdr IN ACCESS EXCLUSIVE MODE")
            asked = [
                asyncio.create_task(client.ask("GET", "/v1/cdrs", headers={"Accept": "text/csv"})) for _ in range(12)
            ]
            # Two workers, two of each.
            for done in itertools.islice(asyncio.as_completed(asked), len(asked) - 4):
                (await asyncio.wait_for(done, 60)).problem(503, "overloaded")
    finally:
        await database.close()
    answers = await asyncio.gather(*asked)
    assert {answer.headers["Retry-After"] for answer in answers if answer.status != 200} == {"5"}
    assert 1 <= len([answer for answer in answers if answer.status == 200]) <= 4
    assert (await client.ask("GET", "/v1/cdrs", headers={"Accept": "text/csv"})).status == 200


async def test_a_reader_that_takes_nothing_of_a_whole_list(service: Service, other: Tenant) -> None:
    """It is cut off once its connection is full and nothing was taken for ten seconds."""
    await rows(
        service,
        "INSERT INTO cdr (at, id, app_id, pool_id, bindings, talk_s, recorded, received_at)"
        " SELECT broker_now(), gen_random_uuid(), $1, 1, array_fill(gen_random_uuid(), ARRAY[200]), 0, false,"
        " broker_now() FROM generate_series(1, 2000)",
        other.app_id,
    )
    host, _, port = service.api.removeprefix("http://").partition(":")
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect((host, int(port)))
        slow.sendall(
            f"GET /v1/cdrs HTTP/1.1\r\nHost: {host}\r\nAccept: text/csv\r\n"
            f"Authorization: Bearer {other.keys['main']}\r\n\r\n".encode()
        )
        assert slow.recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 200"
        server, own = f":{int(port):04X} ", f":{slow.getsockname()[1]:04X} 01 "

        async def cut() -> bool:
            return not any(server in line and own in line.split(server, 1)[1] for line in sockets())

        assert not await cut()
        await eventually(cut, "the slow reader is cut off", limit_s=2 * LIMIT_S)
    await rows(service, "DELETE FROM cdr WHERE app_id = $1", other.app_id)


async def test_an_operators_export_in_clear_is_noted(service: Service, client: Client, tmp_path: Path) -> None:
    """Who gets numbers and texts is in the audit before, and the file is for nobody else to read."""
    bound = await _bound(client)
    sent = message(bound["x"], bound["caller"], smsContent="on my way", userData=bound["mark"])
    await _push(service, client, "sms", sent)

    async def told() -> bool:
        return bool(await _items(client, "sms", binding_id=bound["id"]))

    await eventually(told, "the message is told")
    out = tmp_path / "sms.ndjson"
    noted = "SELECT who FROM audit WHERE what = 'reveal' AND subject LIKE 'sms: %'"
    before = len(await rows(service, noted))
    arguments = ("export", "sms", "--app", "demo-axb", "--x", bound["x"], "--format", "ndjson", "--out", str(out))
    for reveal in ((), ("--reveal",)):
        await asyncio.to_thread(
            subprocess.run, command(*arguments, *reveal, "--state-dir", str(service.folder)), env=environment(),
            capture_output=True, timeout=60, check=True,
        )  # fmt: skip
        (line,) = [one for one in map(orjson.loads, out.read_bytes().splitlines()) if one["bindings"] == [bound["id"]]]
        assert (line["sender"] == bound["caller"], line["content"] == "on my way") == (bool(reveal), bool(reveal))
        assert len(await rows(service, noted)) == before + len(reveal)
    assert "@" in (await rows(service, noted))[-1]["who"]
    assert out.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_an_export_that_is_ended_leaves_nothing(service: Service, tmp_path: Path, number: signal.Signals) -> None:
    """Not the half of a file, whose numbers are in clear; nor does it write where another one's file or link is."""
    out, draft = tmp_path / "sms.csv", tmp_path / "sms.csv.part"
    arguments = ("export", "sms", "--app", "demo-axb", "--reveal", "--out", str(out))
    commanded = command(*arguments, "--state-dir", str(service.folder))

    def ended() -> tuple[int, str]:
        with subprocess.Popen(commanded, env=environment(), stderr=subprocess.PIPE, text=True) as process:
            wait_until(draft.exists, "it has begun")
            process.send_signal(number)
            _, words = process.communicate(timeout=60)
            return process.returncode, words

    database = await asyncpg.connect(service.database)
    try:
        async with database.transaction():
            await database.execute("LOCK TABLE sms IN ACCESS EXCLUSIVE MODE")
            code, words = await asyncio.to_thread(ended)
    finally:
        await database.close()
    assert (code, "Traceback" in words, draft.exists(), out.exists()) == (1, False, False, False)


async def test_an_export_writes_into_no_other_file(service: Service, tmp_path: Path) -> None:
    """What has the name that the file has until it is whole is left alone, and said."""
    out, draft, elsewhere = tmp_path / "sms.csv", tmp_path / "sms.csv.part", tmp_path / "elsewhere"
    elsewhere.write_text("somebody's")
    draft.symlink_to(elsewhere)
    arguments = ("export", "sms", "--app", "demo-axb", "--reveal", "--out", str(out))
    ended = await asyncio.to_thread(
        subprocess.run, command(*arguments, "--state-dir", str(service.folder)), env=environment(),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (ended.returncode, f"{draft} is there" in " ".join(ended.stderr.split())) == (1, True)
    assert (elsewhere.read_text(), draft.is_symlink(), out.exists()) == ("somebody's", True, False)

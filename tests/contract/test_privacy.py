"""Phone numbers of parties lie nowhere in the clear: not in the database, its log, the WAL, nor the service's log."""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.contract.service import Client, Service, client_of, memory, up
from tests.pg import state_folder

_CANARIES = [f"13788{n:03d}{(n * 7919) % 1000:03d}" for n in range(200)]  # national form: any spelling holds it
_ANY = re.compile(b"|".join(number.encode() for number in _CANARIES))


@pytest.fixture(scope="module")
def own() -> Iterator[Service]:
    """A broker of its own, so that its folder holds what these numbers left and nothing else."""
    with state_folder(memory()) as folder, up(folder, "--workers", "2") as running:
        yield running


async def _use(client: Client, n: int) -> list[bytes]:
    """Take two numbers through one flow or mistake, and return what was answered."""
    a, b = (f"+86{number}" for number in _CANARIES[2 * n : 2 * n + 2])
    headers = {"Idempotency-Key": f"canary-{n}", "traceparent": a, "User-Agent": b}
    fields = {"a": a, "b": b}
    mistakes: dict[int, dict[str, Any]] = {
        1: {"b": b[1:]}, 2: {"b": b + "\n"}, 3: {a: 1}, 4: {"pool": a}, 5: {"area_code": b}, 6: {"ttl_s": a},
        7: {"b": a}, 8: {"direction": b}, 9: {"areas": [a, b]}, 10: {"metadata": a}, 11: {"policy": {a: b}},
    }  # fmt: skip
    answers = [await client.bind(headers=headers, **{**fields, **mistakes.get(n % 16, {})})]
    answers.append(await client.bind(headers=headers, **{**fields, **mistakes.get(n % 16, {})}))
    answers.append(await client.ask("GET", f"/v1/bindings/{a}?to={b}", headers={"Referer": f"/{b}"}))
    answers.append(await client.ask("POST", f"/{a}", data=b'{"a":"' + a.encode()))
    if answers[0].status == 201 and n % 2:
        answers.append(await client.ask("DELETE", answers[0].headers["Location"]))
    return [answer.raw for answer in answers]


async def test_canaries_leave_no_trace(own: Service) -> None:
    """200 numbers through binds, releases, refusals, faults and broken requests: no plain hit anywhere of ours."""
    async with client_of(own) as client:
        for kind, extra in (("code", {"code": "1010002"}), ("drop_answer", {}), ("code", {"code": "1023002"})):
            await client.fault("bind", kind, count=3, **extra)
        await client.fault("unbind", "reset", count=2)
        answered = await asyncio.gather(*(_use(client, n) for n in range(len(_CANARIES) // 2)))
        for raw in (raw for some in answered for raw in some):
            assert not _ANY.search(raw), raw
        held = await client.platform_bindings()
        assert any(_ANY.search(item["a"].encode()) for item in held), "the platform knows the numbers: that is its job"
        tables = await _dump(own.database)
    assert {"line", "binding", "slot", "idempotency", "platform_call"} <= set(tables)
    assert tables["line"].count(b"\n") >= 30
    for name, text in tables.items():
        assert not _ANY.search(text), name
    files = [path for path in own.folder.rglob("*") if path.is_file() and (own.folder / "emulator") not in path.parents]
    names = {path.name for path in files}
    assert {"broker.log", "log", "PG_VERSION"} <= names
    assert any("pg_wal" in path.parts for path in files)
    for path in files:
        assert not _ANY.search(path.read_bytes()), path
    assert own.log.read_bytes().count(b'"request_done"') >= 400


async def _dump(database: str) -> dict[str, bytes]:
    """Every table of ours as text, as pg_dump would have it."""
    connection = await asyncpg.connect(database)
    try:
        await connection.execute("CHECKPOINT")
        names = await connection.fetch("SELECT relname FROM pg_stat_user_tables ORDER BY relname")
        found = {}
        for (name,) in names:
            output = io.BytesIO()
            await connection.copy_from_table(name, output=output)
            found[name] = output.getvalue()
        return found
    finally:
        await connection.close()


def test_the_platform_folder_is_the_only_one_that_may(own: Service) -> None:
    """The check above can find what it looks for: the emulator's journal holds the numbers."""
    assert _ANY.search(Path(own.folder / "emulator" / "journal.jsonl").read_bytes())

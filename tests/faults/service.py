"""The whole service as processes: started, loaded over HTTP, looked at from outside, ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import asyncpg
import orjson

from bench.check import check_books
from broker.cli.demo import identity
from broker.store.crypto import Vault, parse_data_keys, parse_index_key

T = TypeVar("T")
Json = dict[str, Any]

START_S = 60.0
#: The promise: whatever happens to a process, an accepted request is settled this soon.
SETTLED_S = 15.0
QUICK = {
    "BROKER_LEASE_S": "6",
    "BROKER_RESCUE_INTERVAL_S": "0.5",
    "BROKER_PLATFORM_ABSENCE_S": "1",
    "BROKER_OVERLOAD_WAIT_S": "60",
}
_CHECKOUT = Path(__file__).parents[2]


async def eventually(look: Callable[[], Awaitable[T]], *, within_s: float, every_s: float = 0.05) -> T:
    """Return what ``look()`` gives once it is true; fail with the last thing it gave after ``within_s``."""
    deadline = time.monotonic() + within_s
    while not (found := await look()):
        assert time.monotonic() < deadline, f"not within {within_s} s; the last look gave {found!r}"
        await asyncio.sleep(every_s)
    return found


@dataclass
class Service:
    """A running ``broker up``."""

    process: Process
    folder: Path
    told: Json
    http: aiohttp.ClientSession
    flag: Path
    stopped: bool = False

    @property
    def workers(self) -> list[int]:
        """The first workers' process ids."""
        return list(self.told["pids"])

    @property
    def headers(self) -> dict[str, str]:
        """Who calls."""
        return {"Authorization": f"Bearer {self.told['api_key']}"}

    def log(self) -> list[Json]:
        """What the workers and the emulator have said."""
        lines = (self.folder / "broker.log").read_bytes().splitlines()
        return [orjson.loads(line) for line in lines if line.startswith(b"{")]

    async def emulator(self, path: str) -> Json:
        """Read from the emulator's admin port."""
        async with self.http.get(f"{self.told['emulator_admin']}/emulator/{path}") as answer:
            return dict(await answer.json())

    async def ledger(self, after: int = 0) -> list[Json]:
        """All rows above ``after``."""
        rows: list[Json] = []
        while True:
            page = await self.emulator(f"ledger?after={after}&limit=10000")
            rows += page["items"]
            if page["next"] is None or not page["items"]:
                return rows
            after = page["next"]

    async def fault(self, **fault: object) -> None:
        """Put a fault in force at the emulator."""
        async with self.http.post(f"{self.told['emulator_admin']}/emulator/faults", json=fault) as answer:
            assert answer.status == 201

    async def open_calls(self) -> int:
        """How many platform calls are not settled."""
        return int(await self.ask("SELECT count(*) FROM platform_call WHERE state = 'open'"))

    async def ask(self, query: str) -> Any:
        """Read one value from the database."""
        db = await asyncpg.connect(self.told["database"])
        try:
            return await db.fetchval(query)
        finally:
            await db.close()

    async def books(self, *, settle_s: float = SETTLED_S) -> list[str]:
        """What is wrong between database and platform."""
        who = identity(self.folder)
        vault = Vault(parse_data_keys(who.data_keys), parse_index_key(who.index_key))
        return await check_books(self.told["database"], vault, self.told["emulator_admin"], settle_s=settle_s)

    async def takeover_s(self) -> float:
        """How long after the crash the last call that changed hands was settled."""
        last = await self.ask("SELECT max(extract(epoch FROM settled_at))::float8 FROM platform_call WHERE token > 1")
        return float(last) - self.flag.stat().st_mtime if last else 0.0

    async def crashed(self, *, within_s: float) -> int:
        """Wait until the crash point was reached; returns who reached it."""

        async def look() -> int:
            return int(self.flag.read_text() or 0) if self.flag.exists() else 0

        return await eventually(look, within_s=within_s)

    async def stop(self, *, within_s: float = 30.0) -> int:
        """SIGTERM; returns the exit code."""
        self.stopped = True
        self.process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self.process.wait(), within_s)


@contextlib.asynccontextmanager
async def service(folder: Path, *, database: str | None, **environment: str) -> AsyncIterator[Service]:
    """Run ``broker up`` on ``database`` (None: its own embedded one); whatever happens, nothing of it stays."""
    flag = folder / "crashed"
    complaints = tempfile.TemporaryFile()  # noqa: SIM115 - closed below; a file in the folder would give that an owner
    settings = {**_clean(os.environ), "TEST_CRASH_ONCE": str(flag), **environment}
    if database is not None:
        settings["BROKER_DATABASE_URL"] = database
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "broker", "up", "--port", "0", "--json", "--state-dir", str(folder),
        stdout=PIPE, stderr=complaints, env=settings, cwd=_CHECKOUT,
    )  # fmt: skip
    assert process.stdout is not None
    family: set[int] = {process.pid}
    try:
        line = await asyncio.wait_for(process.stdout.readline(), START_S)
        complaints.seek(0)
        assert line, complaints.read().decode()
        told = orjson.loads(line)
        family |= descendants(process.pid)
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as http:
            running = Service(process, folder, told, http, flag)
            yield running
            family |= descendants(process.pid)
            for pid in family:
                send(pid, signal.SIGCONT)
            if not running.stopped:
                assert await running.stop() == 0
    finally:
        complaints.close()
        family |= descendants(process.pid)
        if process.returncode is None:
            process.kill()
            await process.wait()
        for pid in family - {process.pid}:
            send(pid, signal.SIGCONT)
            send(pid, signal.SIGKILL)


def _clean(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if not name.startswith("BROKER_")}


# -- processes


def send(pid: int, number: signal.Signals) -> None:
    """Signal a process that may be gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def descendants(pid: int) -> set[int]:
    """All children of a process, and theirs."""
    parents: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (fields := _stat(int(folder.name))):
            parents.setdefault(int(fields[1]), []).append(int(folder.name))
    found: set[int] = set()
    todo = [pid]
    while todo:
        children = parents.get(todo.pop(), [])
        found.update(children)
        todo.extend(children)
    return found


def alive(pid: int) -> bool:
    """Whether a process is there and not just waiting to be buried."""
    fields = _stat(pid)
    return bool(fields) and fields[0] != "Z"


def frozen(pid: int) -> bool:
    """Whether a process is stopped."""
    fields = _stat(pid)
    return bool(fields) and fields[0] == "T"


def steps(pid: int) -> int:
    """How often a process has waited for something: rises with each turn of its loop."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches"):
                return int(line.split()[1])
    return 0


def _stat(pid: int) -> list[str]:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    return text.rpartition(")")[2].split()


# -- load


@dataclass
class Told:
    """What a client was told about one order."""

    number: int
    id: str = ""
    accepted_at: float = 0.0
    release: bool = False
    released: bool = False


@dataclass
class Load:
    """A closed loop of clients that bind and release, repeat what got no answer under the same key, and keep notes."""

    service: Service
    clients: int = 12
    told: list[Told] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)
    next_number: int = 0

    async def run(self, orders: int) -> None:
        """Carry out that many orders."""
        todo = iter(range(self.next_number, self.next_number + orders))
        self.next_number += orders
        await asyncio.gather(*(self._client(todo) for _ in range(self.clients)))

    async def _client(self, todo: Iterator[int]) -> None:
        for number in todo:
            note = Told(number, release=number % 2 == 0)
            self.told.append(note)
            await self._order(note)

    async def _order(self, note: Told) -> None:
        body = {"a": f"+86139{note.number:08d}", "b": f"+86138{note.number:08d}", "area_code": "0755"}
        answer = await self._insist("POST", "/v1/bindings", f"bind-{note.number}", body)
        note.id, note.accepted_at = answer["id"], time.monotonic()
        if note.release:
            await self._insist("DELETE", f"/v1/bindings/{note.id}", f"release-{note.number}", None)
            note.released = True

    async def _insist(self, method: str, path: str, key: str, body: Json | None) -> Json:
        """Repeat a request under its key until it is accepted, on a new connection after one that gave no answer."""
        url = self.service.told["api"] + path
        headers = {**self.service.headers, "Idempotency-Key": key, "Request-Timeout": "1"}
        give_up = time.monotonic() + 25
        while True:
            status, answer = 0, {}
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                timeout = aiohttp.ClientTimeout(total=1.5)
                async with self.service.http.request(method, url, json=body, headers=headers, timeout=timeout) as reply:
                    status, answer = reply.status, await reply.json()
            if status in {200, 201, 202}:
                return dict(answer)
            if status not in {0, 409, 503}:
                self.odd.append(f"{method} {key}: {status} {answer.get('code')}")
            assert time.monotonic() < give_up, f"{method} {key} is not accepted; the last answer was {status} {answer}"
            await asyncio.sleep(0.1)

    async def show(self, note: Told) -> Json:
        """Read an order's binding."""
        url = f"{self.service.told['api']}/v1/bindings/{note.id}"
        while True:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                timeout = aiohttp.ClientTimeout(total=2)
                async with self.service.http.get(url, headers=self.service.headers, timeout=timeout) as reply:
                    if reply.status == 200:
                        return dict(await reply.json())

    async def check(self) -> None:
        """See every accepted order settled as asked for, in time, and the books equal."""
        last = max(note.accepted_at for note in self.told)

        async def settled() -> bool:
            return await self.service.open_calls() == 0

        await eventually(settled, within_s=max(last + SETTLED_S - time.monotonic(), 1.0))
        subscriptions = set()
        for note in self.told:
            shown = await self.show(note)
            assert shown["state"] == ("released" if note.released else "active"), (note, shown)
            if not note.released:
                subscriptions.add(shown["platform_binding_id"])
        live = (await self.service.emulator("bindings?limit=10000"))["items"]
        assert {binding["subscription_id"] for binding in live} == subscriptions
        assert len(live) == len(subscriptions)
        assert await self.service.books() == []
        assert self.odd == []

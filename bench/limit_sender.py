"""One instance of :mod:`bench.limit`: a sender with its lanes and the shared limiter, and calls to send.

``python -m bench.limit_sender PLAN`` (JSON) says ``ready``, begins at the time it is then told, and prints what it did.
When a call leaves is written into a file mapped into memory, where a ``kill -9`` does not lose it.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import struct
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import uvloop

from broker.clock import boottime
from broker.platform.huawei.access import driver_of
from broker.platform.huawei.http import HttpOptions
from broker.platform.protocol import Answer, Permit, Platform
from broker.settings import load
from broker.store import registry
from broker.store.crypto import Vault, parse_data_keys, parse_index_key
from broker.store.database import Database
from broker.store.registry import App
from broker.workers.limiter import AppLimiter
from broker.workers.sender import Sender, Timing

#: A place in the log: when a call was wanted and when it left, in nanoseconds of the monotonic clock.
ENTRY = struct.Struct("<qq")
#: Calls of one instance under way or waiting, at most.
_MOST_TASKS = 5_000
_CONNECTIONS = 4
#: How long a call of a steady load waits, and those of a backlog after the end, in seconds.
_PATIENCE_S = 5.0
_AFTER_S = 0.5
_TICKS = os.sysconf("SC_CLK_TCK")


class _Log:
    def __init__(self, path: Path, places: int) -> None:
        with path.open("wb") as file:
            file.truncate(places * ENTRY.size)
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self._at = 0

    def write(self, wanted: float) -> None:
        if self._at < len(self._map):
            ENTRY.pack_into(self._map, self._at, int(wanted * 1e9), time.monotonic_ns())
            self._at += ENTRY.size


class _Instance:
    def __init__(self, plan: dict[str, Any], sender: Sender, app: App) -> None:
        self._plan = plan
        self._sender = sender
        self._app = app
        self._log = _Log(Path(plan["log"]), plan["places"])
        self.verdicts: Counter[str] = Counter()

    async def one(self, wanted: float, deadline: float) -> None:
        def send(platform: Platform, permit: Permit, timeout_s: float) -> Any:
            def watched() -> bool:
                if not permit():
                    return False
                self._log.write(wanted)
                return True

            return platform.query(x=self._plan["x"], a=self._plan["a"], permit=watched, timeout_s=timeout_s)

        answer: Answer = await self._sender.ask(self._app.id, send, deadline=deadline)
        self.verdicts[answer.verdict.value] += 1

    async def backlog(self, until: float) -> None:
        """So many wait all the time; nobody gives up before the end, however long the queue is at this rate."""
        deadline = boottime() + until - time.monotonic() + _AFTER_S

        async def again() -> None:
            while time.monotonic() < until:
                await self.one(time.monotonic(), deadline)

        await asyncio.gather(*(again() for _ in range(self._plan["waiting"])))

    async def steady(self, until: float) -> None:
        """Evenly spaced arrivals, so that nothing but the limiter makes them wait; each counts from when it was due."""
        due = time.monotonic()
        tasks: set[asyncio.Task[None]] = set()
        while due < until and len(tasks) < _MOST_TASKS:
            wait = due - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            task = asyncio.create_task(self.one(due, boottime() + _PATIENCE_S))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            due += 1 / self._plan["offer"]
        await asyncio.gather(*tasks)


async def _decide(db: Database, app: App, until: float) -> dict[str, Any]:
    """Ask the limiter for one slot after the other."""
    limiter = AppLimiter(db, app)
    pids = await _backends(db)
    decisions, cpu, begun, server = 0, time.process_time(), time.monotonic(), sum(map(_cpu_of, pids))
    while time.monotonic() < until:
        await limiter.take(1, "", rare=False)
        decisions += 1
    return {
        "decisions": decisions, "cpu_s": time.process_time() - cpu, "seconds": time.monotonic() - begun,
        "server_cpu_s": sum(map(_cpu_of, pids)) - server,
    }  # fmt: skip


async def _backends(db: Database) -> set[int]:
    """Return the server's processes behind our connections."""
    asked = (db.fetch("SELECT pg_backend_pid() AS pid, pg_sleep(0.1)") for _ in range(_CONNECTIONS))
    return {row["pid"] for rows in await asyncio.gather(*asked) for row in rows}


def _cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


async def _run(plan: dict[str, Any]) -> dict[str, Any]:
    settings = load()
    vault = Vault(parse_data_keys(settings.data_keys), parse_index_key(settings.index_key))
    db = Database(settings.database_url, connections=_CONNECTIONS, timeout_s=5, statement_cache=100)
    await db.open()
    known = await registry.load(db, vault)
    app = next(app for app in known.apps.values() if app.name == plan["app"])
    options = HttpOptions(max_connections=plan["width"])
    sender = Sender(db, lambda: known, lambda one: driver_of(one, options), timing=Timing(), width=plan["width"])
    instance = _Instance(plan, sender, app)
    sys.stdout.buffer.write(b"ready\n")
    sys.stdout.buffer.flush()
    begin = float(await asyncio.to_thread(sys.stdin.readline))
    await asyncio.sleep(max(0.0, begin - time.monotonic()))
    until = begin + plan["seconds"]
    cpu = time.process_time()
    if plan["kind"] == "alone":
        result = await _decide(db, app, until)
    else:
        await (instance.backlog(until) if plan["kind"] == "backlog" else instance.steady(until))
        result = {"cpu_s": time.process_time() - cpu, "verdicts": dict(instance.verdicts), "flights": db.flights}
    await sender.close()
    await db.close()
    return result


if __name__ == "__main__":
    sys.stdout.buffer.write(orjson.dumps(uvloop.run(_run(orjson.loads(sys.argv[1])))) + b"\n")

"""The places of a call's life at which a process is hit, and hitting one process after the other there."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

import aiohttp
import asyncpg

from bench.stack import BenchError, Stack

#: After a death the others work for so long before the next one.
_PAUSE_S: Final = 0.7
#: After a death of the database; its recovery takes its time of that.
_RECOVERED_S: Final = 5.0
_LOOK_S: Final = 0.05
#: A place that nobody comes to in this time proves nothing.
_REACHED_S: Final = 60.0
#: What is to bring somebody there is done again after so long: a worker told to drain may not have begun to work.
_AGAIN_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Point:
    """``name`` is passed ``nth`` times by a process before it is hit.

    ``advance_s``: clocks are moved on so far for each hit, so that there is something to sweep. ``drained``: a process
    only comes there when it is told to end. ``database``: no process of ours is hit, but one of PostgreSQL's, after
    which it ends all connections and recovers.
    """

    name: str
    nth: int
    settings: Mapping[str, str] = field(default_factory=dict)
    advance_s: float = 0.0
    drained: bool = False
    database: bool = False

    @property
    def options(self) -> tuple[str, ...]:
        """Return what `broker up` is started with."""
        return ("--test-clock",) if self.advance_s else ()


_AUDITS: Final = MappingProxyType(
    {"BROKER_AUDIT_INTERVAL_S": "1", "BROKER_AUDIT_RATE": "200", "BROKER_AUDIT_LEASE_S": "2"}
)
POINTS: Final[Mapping[str, Point]] = {
    point.name: point
    for point in (
        Point("after_commit", 20),
        Point("after_send", 40),
        Point("after_answer", 40),
        Point("before_settle", 30),
        Point("in_sweep", 1, advance_s=30.0),
        Point("in_audit", 3, settings=_AUDITS),
        Point("mid_drain", 1, settings={"BROKER_DRAIN_S": "3"}, drained=True),
    )
}


#: Where a process is frozen: also where others could wait for it, and after its last look at a lease.
FROZEN: Final[Mapping[str, Point]] = {
    "in_batch": Point("in_batch", 10),
    "before_send": Point("before_send", 20),
    **POINTS,
}
#: Where something dies: one of the places, or the database.
KILLED: Final[Mapping[str, Point]] = {**POINTS, "postgres": Point("postgres", 1, database=True)}


class Trap:
    """Which process is hit next: the file that it makes is there as long as nobody may be (broker/crashpoints.py)."""

    def __init__(self, file: Path) -> None:
        """It is shut."""
        self._file = file
        file.touch()

    def environment(self, point: Point, action: str) -> dict[str, str]:
        """Return what the workers have to be started with."""
        if point.database:
            return {}
        return {"BROKER_TEST_CRASH_AT": f"{point.name}:{action}:{point.nth}", "TEST_CRASH_ONCE": str(self._file)}

    def open(self) -> None:
        """The next one who gets there is hit."""
        self._file.unlink()

    def caught(self) -> int | None:
        """Return who was hit."""
        with suppress(FileNotFoundError):
            return int(self._file.read_text(encoding="ascii") or 0) or None
        return None

    def shut(self) -> None:
        """Nobody may be hit any more."""
        self._file.touch()


async def kill_one(stack: Stack, trap: Trap, point: Point) -> float:
    """Have one process killed at the point, and let the others work for a moment; return how far clocks were moved on.

    Raises:
        BenchError: nobody gets there.
    """
    if point.database:
        await kill_a_backend(stack)
        await asyncio.sleep(_RECOVERED_S)
        return 0.0
    trap.open()
    _, moved_s = await bring(stack, trap, point)
    await asyncio.sleep(_PAUSE_S)
    return moved_s


async def bring(stack: Stack, trap: Trap, point: Point) -> tuple[int, float]:
    """Wait until somebody gets to the point; return who was hit there, and how far clocks were moved on for that."""
    loop = asyncio.get_running_loop()
    give_up = loop.time() + _REACHED_S
    again, moved_s = loop.time(), 0.0
    while (caught := trap.caught()) is None:
        if loop.time() > give_up:
            raise BenchError(f"Nobody came to {point.name} within {_REACHED_S:g} s.")
        if loop.time() >= again:
            again = loop.time() + _AGAIN_S
            if point.drained:
                drain_one(stack.pid)
            if point.advance_s:
                await advance(stack, point.advance_s)
                moved_s += point.advance_s
        await asyncio.sleep(_LOOK_S)
    return caught, moved_s


async def kill_a_backend(stack: Stack) -> None:
    """Kill a process of PostgreSQL's that serves a connection: its parent ends all the others and recovers."""
    give_up = asyncio.get_running_loop().time() + _REACHED_S
    while True:
        try:
            db = await asyncpg.connect(stack.database)
            break
        except (OSError, asyncpg.PostgresError):
            if asyncio.get_running_loop().time() > give_up:
                raise BenchError("The database does not come back.") from None
            await asyncio.sleep(_LOOK_S)
    os.kill(await db.fetchval("SELECT pg_backend_pid()"), signal.SIGKILL)
    db.terminate()


async def advance(stack: Stack, seconds: float) -> None:
    """Move the broker's and the emulator's clocks on."""
    async with (
        aiohttp.ClientSession(raise_for_status=True, timeout=aiohttp.ClientTimeout(total=10)) as http,
        http.post(f"{stack.admin}/test/clock", json={"advance_s": seconds}) as answer,
    ):
        await answer.read()


def drain_one(parent: int) -> None:
    """Tell one worker to end as it does at a restart."""
    if found := list(workers_of(parent)):
        with suppress(ProcessLookupError):
            os.kill(random.choice(found), signal.SIGTERM)


def workers_of(parent: int) -> Iterator[int]:
    """Return the workers of the broker whose first process is ``parent``."""
    for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="ascii").split():
        with suppress(OSError):
            if b"broker.worker" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                yield int(pid)

"""The load: orders of one mode in a closed loop, and what of them can be judged when it is quiet again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import aiohttp
import asyncpg

from bench.check import check_books, check_promises, read_platform
from bench.hammer.evidence import Evidence
from bench.hammer.judge import from_ledger, judge, relations_at, unequal
from bench.hammer.kind import KINDS
from bench.hammer.load import Load, Plan
from bench.history import Operation, check_history
from bench.mixed import Mixed
from bench.scenario import Scenario, Shape, prepare
from bench.stack import Stack

_QUARANTINE_S: Final = 1
_MIXED_NUMBERS, _MIXED_CAP = 30, 40
_FIRST_X: Final = 16_200_000_000
_RANGE: Final = 1_000_000
_FOREVER_S: Final = 1e6
#: An order that was accepted is lost unless it became active, or ended for one of these.
_MAY_FAIL: Final = frozenset({"pool_exhausted", "party_limit", "extension_taken"})
#: Of a lost answer of AXYB nobody can know more; such a binding has an end of its own at the platform.
_APART: Final = "outcome_unknown"
#: The share of requests that each fault of the platform hits.
FAULTS: Final = (
    {"interface": "*", "kind": "drop_answer", "share": 0.05},
    {"interface": "*", "kind": "reset", "share": 0.02},
    {"interface": "*", "kind": "code", "code": "1010010", "http": 403, "share": 0.01},
)
#: Whoever is refused so is given another X.
FULL: Final = {"interface": "bind", "kind": "code", "code": "1012008", "http": 403}

#: One that has failed was told so, and may have been asked for again.
_DOUBLED: Final = """
SELECT order_id, count(*) AS many FROM binding AS b JOIN app ON app.id = b.app_id
WHERE app.name = $1 AND order_id IS NOT NULL AND moves IS NULL AND b.state <> 'failed'
GROUP BY order_id HAVING count(*) > 1
"""
_ENDS: Final = """
SELECT b.state, coalesce(b.reason, '') AS reason, count(*)::int AS many FROM binding AS b JOIN app ON app.id = b.app_id
WHERE app.name = $1 AND b.moves IS NULL GROUP BY 1, 2
"""


class _Working(Protocol):
    operations: list[Operation]

    def run(self) -> Coroutine[Any, Any, None]: ...

    def stop(self) -> None: ...


class _Hammering:
    """The hammer's clients, in this process."""

    def __init__(self, plan: Plan) -> None:
        self._load = Load(plan)
        self.operations = self._load.told.operations
        self.stop = self._load.stop
        self.run = self._load.run

    def moved(self, seconds: float) -> None:
        """Take in that the clocks were moved on."""
        self._load.orders.ahead_s += seconds


@dataclass(slots=True)
class Orders:
    """The load on one app. ``moving``: clocks are moved on, so rests cannot be judged."""

    stack: Stack
    mode: str
    app: str
    scenario: Scenario
    load: _Working
    moving: bool

    @classmethod
    async def prepare(cls, stack: Stack, mode: str, place: int, clients: int, *, moving: bool) -> Orders:
        """Make an app of the mode, and the load on it.

        Of pairs it is the mixed one: sharing, batches, changes, moves, hand-overs and calls that are placed meanwhile.
        """
        kind, app, first_x = KINDS[mode], f"crash-{mode}", _FIRST_X + place * _RANGE
        mixed = mode == "axb" and not moving
        shape = Shape(
            pools=1, numbers=_MIXED_NUMBERS if mixed else kind.numbers, cap=_MIXED_CAP if mixed else 500,
            quarantine_s=_QUARANTINE_S, mode=mode, extensions_per_x=kind.extensions_per_x, app=app, first_x=first_x,
        )  # fmt: skip
        scenario = await prepare(stack, shape)
        load: _Working
        if mixed:
            load = Mixed(
                stack.api, scenario.api_key, stack.emulator_admin, 10**9, _FOREVER_S, groups=max(clients // 2, 1),
                placers=2,
            )  # fmt: skip
        else:
            load = _Hammering(Plan(stack.api, scenario.api_key, mode, clients, _FOREVER_S, place, 8, ""))
        return cls(stack, mode, app, scenario, load, moving)

    async def wrong(self, settle_s: float) -> list[str]:
        """Return what of this app is wrong; to be asked when it is quiet."""
        kind, stack = KINDS[self.mode], self.stack
        evidence = Evidence(stack, kind, self.app)
        live, ledger = await read_platform(stack.emulator_admin)
        app_key = await evidence.app_key()
        found = await check_promises(stack.database, self.load.operations, settle_s=settle_s, expired=True)
        found += [f"platform: {one}" for one in judge(from_ledger(ledger, app_key), rest_s=0.0, most=kind.most)]
        if isinstance(self.load, Mixed):
            found += self.load.wrong
        if kind.pair and not self.moving:
            found += check_history(
                self.load.operations, quarantine_s=_QUARANTINE_S, cap=self.scenario.cap, sharing=True
            )
        if not kind.rests:
            found += unequal(await evidence.relations(), relations_at(live, app_key))
        found += [
            f"doubled: order {row['order_id']} has {row['many']} bindings"
            for row in await _read(stack, _DOUBLED, self.app)
        ]
        found += [
            f"lost: {many} orders of mode {self.mode} that had been accepted failed as {reason}"
            for reason, many in (await self.failed()).items()
            if reason not in _MAY_FAIL and not (self.mode == "axyb" and reason == _APART)
        ]
        return found

    async def failed(self) -> dict[str, int]:
        """Return how many accepted orders ended without having been active, by reason."""
        return {
            row["reason"]: row["many"] for row in await _read(self.stack, _ENDS, self.app) if row["state"] == "failed"
        }

    async def ends(self) -> dict[str, int]:
        """Return what became of the orders."""
        return {
            f"{row['state']} {row['reason']}".strip(): row["many"] for row in await _read(self.stack, _ENDS, self.app)
        }

    def moved(self, seconds: float) -> None:
        """Take in that the clocks were moved on."""
        if isinstance(self.load, _Hammering):
            self.load.moved(seconds)

    def asked(self) -> Counter[str]:
        """Return how many binds, changes and releases were answered."""
        return Counter(one.op for one in self.load.operations if one.outcome == "ok")


async def judge_all(stack: Stack, loads: Sequence[Orders], *, settle_s: float) -> list[str]:
    """Wait until nothing is under way, then compare the database, the platform and what clients were told."""
    found = await check_books(stack.database, stack.vault(), stack.emulator_admin, settle_s=settle_s)
    if loads:
        found += await Evidence(stack, KINDS[loads[0].mode], loads[0].app).wrong_books()
    for one in loads:
        found += await one.wrong(settle_s)
    return found


async def add_faults(stack: Stack, faults: Sequence[Mapping[str, Any]]) -> None:
    """Put faults in force at the platform."""
    async with aiohttp.ClientSession(raise_for_status=True, timeout=aiohttp.ClientTimeout(total=10)) as http:
        for fault in faults:
            await http.post(f"{stack.emulator_admin}/emulator/faults", json=fault)


async def fault_hits(stack: Stack) -> dict[str, int]:
    """Return how many requests each kind of fault has hit."""
    async with (
        aiohttp.ClientSession(raise_for_status=True, timeout=aiohttp.ClientTimeout(total=10)) as http,
        http.get(f"{stack.emulator_admin}/emulator/faults") as answer,
    ):
        return {one["kind"]: one["hits"] for one in (await answer.json())["items"]}


async def rescued(stack: Stack) -> int:
    """Return how many calls have changed hands."""
    rows = await _read(stack, "SELECT count(*)::int AS many FROM platform_call WHERE token > 1")
    return int(rows[0]["many"])


async def _read(stack: Stack, query: str, *arguments: object) -> list[asyncpg.Record]:
    db = await asyncpg.connect(stack.database)
    try:
        return list(await db.fetch(query, *arguments))
    finally:
        await db.close()

"""The audit of the modes of one party: differences are planted on either side, and found, and no others.

``python -m bench.audit --mode ax|axe|axyb [--bindings 2000] [--each 20]``: bindings are made by the broker; what the
platform can do is planted there (strangers, lost ones, lost peers), what it cannot in our books. Strangers of AXE sit
on extensions that were released within a day: of the others a run asks about every 24th only.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from datetime import datetime
from typing import Any, Final

import aiohttp
import asyncpg

from bench.importing import command, phone
from bench.scenario import Scenario, Shape, prepare
from bench.stack import BenchError, Stack, running
from broker.platform.huawei.access import driver_of
from broker.platform.protocol import BindLine, Platform, Verdict
from broker.store import registry
from broker.store.database import Database

_APP = "bench"
_BATCH = 200
_PER_X: Final = {"ax": 1, "axe": 200, "axyb": 1}
_TTL_S = 86_400
_SHARE = 0.1
_FIRST_STRANGER = 50_000_000
#: What is planted in our books, by mode: what its queries tell.
_BOOKS: Final = {
    "parties_differ": "UPDATE line SET a_key = a_key + 1 WHERE subscription_id = ANY ($1)",
    "expiry_differs": "UPDATE line SET ttl_s = ttl_s + 60 WHERE subscription_id = ANY ($1)",
    "direction_differs": "UPDATE line SET direction = 'a_to_b' WHERE subscription_id = ANY ($1)",
}
_TOLD: Final = {
    "ax": ("parties_differ", "direction_differs"),
    "axe": ("parties_differ", "expiry_differs"),
    "axyb": ("parties_differ", "expiry_differs", "direction_differs"),
}

Planted = dict[str, set[str]]


async def measure(mode: str, *, bindings: int, each: int, rate: float, workers: int) -> dict[str, Any]:
    """Make bindings, plant differences, audit; return what was planted and found."""
    async with running(workers) as stack:
        numbers = -(-(bindings + 2 * each) // _PER_X[mode]) * (3 if mode == "axyb" else 1)
        scenario = await prepare(stack, Shape(pools=1, numbers=numbers, rate=rate, mode=mode))
        await command(stack, "audit", "policy", "--every-s", "0", "--absent", "report", "--differing", "report")
        made = await _bind(stack, scenario, bindings)
        planted = await _plant(stack, scenario, mode, made, each)
        run = (await command(stack, "audit", "run", codes=(0, 1)))["runs"][0]
        found: Planted = defaultdict(set)
        for row in await _rows(stack, "SELECT kind, subscription_id FROM drift WHERE last_run = $1", run["id"]):
            found[row["kind"]].add(row["subscription_id"])
    kinds = {
        kind: {
            "planted": len(planted[kind]), "found": len(found[kind] & planted[kind]),
            "falsely": len(found[kind] - planted[kind]),
        }
        for kind in sorted({*planted, *found})
    }  # fmt: skip
    wrong = [kind for kind, one in kinds.items() if one["found"] != one["planted"] or one["falsely"]]
    seconds = (datetime.fromisoformat(run["ended_at"]) - datetime.fromisoformat(run["started_at"])).total_seconds()
    if run["calls"] > rate * _SHARE * seconds + 1:
        wrong.append("pace")
    pace = {"per_s": round(run["calls"] / seconds, 1), "allowed": rate * _SHARE}
    return {"mode": mode, "bindings": bindings, "kinds": kinds, "run": run, "pace": pace, "wrong": wrong}


async def _bind(stack: Stack, scenario: Scenario, bindings: int) -> list[str]:
    """Bind so many phones; return their bindings."""
    made: list[str] = []
    headers = {"Authorization": f"Bearer {scenario.api_key}", "Request-Timeout": "30"}
    async with aiohttp.ClientSession(stack.api, headers=headers, timeout=aiohttp.ClientTimeout(total=60)) as http:
        for first in range(0, bindings, _BATCH):
            items = [{"a": phone(nth), "ttl_s": _TTL_S} for nth in range(first, min(first + _BATCH, bindings))]
            async with http.post("/v1/bindings:batch", json={"items": items}) as answer:
                outcomes = (await answer.json())["items"]
            made += [one["binding"]["id"] for one in outcomes if one["status"] == 201]
    if len(made) < bindings:
        raise BenchError(f"only {len(made)} of {bindings} bindings were made")
    return made


async def _plant(stack: Stack, scenario: Scenario, mode: str, made: list[str], each: int) -> Planted:
    """Plant ``each`` differences of every kind that the mode tells."""
    db = Database(stack.database, connections=1, timeout_s=30)
    await db.open()
    known = await registry.load(db, stack.vault())
    await db.close()
    platform = driver_of(next(app for app in known.apps.values() if app.name == _APP))
    lines = await _rows(stack, "SELECT l.id, l.subscription_id AS sub FROM line AS l JOIN app AS a ON a.id = l.app_id"
                        " WHERE a.name = $1 AND l.state = 'active' ORDER BY l.id", _APP)  # fmt: skip
    subs = iter(row["sub"] for row in lines)
    planted: Planted = defaultdict(set)
    try:
        for nth in range(each):
            planted["unknown_here"].add(await _stranger(stack, platform, mode, nth))
            planted["absent_there"].add(lost := next(subs))
            await platform.unbind(lost, permit=lambda: True, timeout_s=30)
        for kind in _TOLD[mode]:
            planted[kind].update(next(subs) for _ in range(each))
            await _rows(stack, _BOOKS[kind], list(planted[kind]))
        if mode == "axyb":
            await _plant_peers(stack, scenario, platform, made[-each:], planted)
    finally:
        await platform.close()
    return planted


async def _stranger(stack: Stack, platform: Platform, mode: str, nth: int) -> str:
    """Bind somebody past the broker."""
    request = BindLine("", phone(_FIRST_STRANGER + nth), ttl_s=_TTL_S, area_code="010")
    if mode != "axyb":
        (free,) = await _rows(
            stack, "SELECT x.number, h.pool_id, h.x_id, h.extension"
            " FROM place AS h JOIN x_number AS x USING (pool_id, x_id)"
            " JOIN pool AS p ON p.id = h.pool_id JOIN app AS a ON a.id = p.app_id"
            " WHERE a.name = $1 AND h.until = '-infinity' AND h.in_use"
            " ORDER BY h.x_id DESC, h.extension DESC LIMIT 1", _APP,
        )  # fmt: skip
        released = (
            "UPDATE place SET until = broker_now() - interval '1 hour' WHERE (pool_id, x_id, extension) = ($1, $2, $3)"
        )
        await _rows(stack, released, free["pool_id"], free["x_id"], free["extension"])
        digits = str(free["extension"]).zfill(4) if free["extension"] else ""
        request = BindLine(free["number"], request.a, ttl_s=_TTL_S, extension=digits)
    answer = await platform.bind(request, permit=lambda: True, timeout_s=30)
    if answer.verdict is not Verdict.DONE:
        raise BenchError(f"the platform refused a stranger: {answer.verdict.value} {answer.code}")
    return answer.bindings[0].subscription_id


async def _plant_peers(
    stack: Stack, scenario: Scenario, platform: Platform, bindings: list[str], planted: Planted
) -> None:
    """Give each of these two peers; take one away there, and forget the other one here."""
    headers = {"Authorization": f"Bearer {scenario.api_key}", "Request-Timeout": "30"}
    async with aiohttp.ClientSession(stack.api, headers=headers, timeout=aiohttp.ClientTimeout(total=60)) as http:
        for nth, binding in enumerate(bindings):
            async with http.get(f"/v1/bindings/{binding}") as shown:
                ax = (await shown.json())["platform_binding_id"]
            peers = []
            for side in (0, 1):
                asked = {"b": phone(_FIRST_STRANGER + 1_000_000 + 2 * nth + side)}
                async with http.post(f"/v1/bindings/{binding}/peers", json=asked) as answer:
                    peers.append((await answer.json())["y"])
            await platform.unbind_peer(ax, y=peers[0], permit=lambda: True, timeout_s=30)
            planted["peer_absent_there"].add(f"{ax}#{peers[0]}")
            planted["peer_unknown_here"].add(f"{ax}#{peers[1]}")
            await _rows(
                stack, "DELETE FROM peer AS p USING line AS l WHERE l.id = p.line_id AND l.subscription_id = $1"
                " AND p.y = $2", ax, peers[1],
            )  # fmt: skip


async def _rows(stack: Stack, sql: str, *given: Any) -> list[asyncpg.Record]:
    async with asyncio.timeout(120):
        db = await asyncpg.connect(stack.database)
        try:
            found: list[asyncpg.Record] = await db.fetch(sql, *given)
            return found
        finally:
            await db.close()

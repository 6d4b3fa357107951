"""Workers are killed while the bindings of an X move: whoever is left goes on, nobody is lost, nobody wrong reached."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from bench.crash.points import workers_of
from tests.faults.service import QUICK, Service, eventually, service

pytestmark = pytest.mark.slow

LINES = 40
KILLS = 3
#: Longer than leases and take-overs of all deaths together take on a busy machine.
_END_S = 240.0
_OLD = (
    "SELECT x.number FROM line AS l JOIN x_number AS x USING (pool_id, x_id) GROUP BY 1 ORDER BY count(*) DESC LIMIT 1"
)
_BEGIN = """
WITH closed AS (
  UPDATE x_number SET state = 'frozen', closed_by = 'operator' WHERE number = '{x}' RETURNING pool_id, x_id
)
SELECT begin_evacuation(pool_id, x_id, 'operator', NULL) FROM closed
"""


async def filled(running: Service) -> dict[str, tuple[str, str]]:
    """Bindings of pairs of their own, by id."""
    made: dict[str, tuple[str, str]] = {}
    for number in range(LINES):
        a, b = f"+86139{number:08d}", f"+86138{number:08d}"
        order = {"a": a, "b": b, "area_code": "0755", "ttl_s": 7200}
        async with running.http.post(
            f"{running.told['api']}/v1/bindings", json=order, headers=running.headers
        ) as answer:
            made[(await answer.json())["id"]] = a, b
    return made


async def dial(running: Service, orders: dict[str, tuple[str, str]], old: str, done: asyncio.Event) -> Counter[str]:
    """Have each A dial the old X again and again; count who is reached."""
    reached: Counter[str] = Counter()
    while not done.is_set():
        for a, b in orders.values():
            async with running.http.post(
                f"{running.told['emulator_admin']}/emulator/calls", json={"from": a, "to": old}
            ) as answer:
                met = (await answer.json())["connected_to"]
            reached["B" if met == b else "nobody" if met is None else "a stranger"] += 1
        await asyncio.sleep(0.1)
    return reached


async def killed_again_and_again(running: Service) -> None:
    """Kill the worker that is amid the evacuation, then any, a moment after lines have moved since."""
    await running.crashed(within_s=60)
    for _ in range(KILLS):
        moved = int(await running.ask("SELECT count(*) FROM evacuated_line WHERE state = 'moved'"))

        async def more(moved: int = moved) -> bool:
            now = await running.ask("SELECT count(*) FROM evacuated_line WHERE state = 'moved'")
            return int(now) > moved or bool(await running.ask("SELECT state = 'done' FROM evacuation"))

        await eventually(more, within_s=_END_S)
        for pid in list(workers_of(running.process.pid))[:1]:
            os.kill(pid, signal.SIGKILL)


@pytest.mark.timeout(600)
async def test_killed_while_bindings_move(database_url: str, folder: Path) -> None:
    """Each pair ends on one other X, bound once; the old X is left by all; nobody reached a stranger meanwhile."""
    settings = {**QUICK, "BROKER_EVACUATION_OVERLAP_S": "1", "BROKER_EVACUATION_RETRY_S": "0.5"}
    async with service(
        folder, database=database_url, **settings, BROKER_TEST_CRASH_AT="in_evacuation:kill:5"
    ) as running:
        orders = await filled(running)
        old = str(await running.ask(_OLD))
        done = asyncio.Event()
        calls = asyncio.create_task(dial(running, orders, old, done))
        assert await running.ask(_BEGIN.format(x=old))
        await killed_again_and_again(running)

        async def over() -> bool:
            state = await running.ask("SELECT state FROM evacuation")
            return bool(state == "done" and await running.open_calls() == 0)

        await eventually(over, within_s=_END_S, every_s=0.2)
        done.set()
        reached = await calls
        assert reached["a stranger"] == 0
        assert reached["B"] > 0
        there = (await running.emulator("bindings?limit=10000"))["items"]
        assert sorted((item["a"], item["b"]) for item in there) == sorted(orders.values())
        assert old not in {item["x"] for item in there}
        assert await running.ask("SELECT count(*) FROM binding WHERE state = 'active'") == LINES
        assert await running.books() == []

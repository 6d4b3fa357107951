"""The load's own app, pools and numbers, beside the demonstration app."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import aiohttp
import asyncpg

from bench.stack import BenchError, Stack
from broker.api.auth import new_key
from broker.store.registry import hash_key
from broker.store.statements import statements

_CALLER = "bench"
#: Area codes of the pools, in turn.
AREAS = ("010", "020", "021", "022", "023", "024", "025", "027", "028", "029", "0311", "0371", "0571", "0731", "0755")
_PROBES = 24
_KNOWN_S = 15.0
_NUMBERS = """
INSERT INTO x_number (pool_id, x_id, number)
SELECT $1, i.ord - 1, i.number FROM unnest($2::text[]) WITH ORDINALITY AS i (number, ord)
"""


@dataclass(frozen=True, slots=True)
class Shape:
    """How large the pools are and how strict the app is; ``couriers`` is the number of distinct A.

    ``rate`` is the app's platform calls a second; None = no limit. ``routing`` says what is behind an X of mode X,
    ``extensions_per_x`` how many extensions of an X are given out in mode AXE. Apps beside each other
    have names and numbers, from ``first_x`` on, of their own.
    """

    pools: int = 8
    numbers: int = 500
    cap: int = 500
    quarantine_s: int = 7_200
    couriers: int = 20_000
    rate: float | None = None
    mode: str = "axb"
    routing: str = "pair"
    extensions_per_x: int = 200
    app: str = "bench"
    first_x: int = 16_200_000_000


@dataclass(frozen=True, slots=True)
class Scenario:
    """What the load needs to know."""

    api_key: str
    pools: tuple[str, ...]
    quarantine_s: float
    cap: int


async def prepare(stack: Stack, shape: Shape) -> Scenario:
    """Make app, caller, key, pools and numbers in database and emulator, and wait until every worker knows them."""
    app_key, secret, api_key = "bench" + new_key()[4:16], new_key()[4:36], new_key()
    pools = tuple(f"city-{place + 1}" for place in range(shape.pools))
    rented: list[dict[str, str]] = []
    sql = statements("config")
    db = await asyncpg.connect(stack.database)
    try:
        sealed = stack.vault().seal("app", "secret", 0, shape.app, secret)
        app_id = await db.fetchval(
            sql["add_app"], shape.app, shape.mode, app_key, sealed, stack.emulator, shape.rate,
            max(1, round((shape.rate or 0) / 10)), shape.quarantine_s, shape.cap,
        )  # fmt: skip
        await db.execute("UPDATE app SET extensions_per_x = $2 WHERE id = $1", app_id, shape.extensions_per_x)
        caller_id = await db.fetchval(sql["add_caller"], app_id, _CALLER)
        for place, name in enumerate(pools):
            area = AREAS[place % len(AREAS)]
            pool_id = await db.fetchval(sql["add_pool"], app_id, name, area)
            await db.execute(sql["route_pool"], pool_id, shape.routing)
            numbers = [f"+86{shape.first_x + place * 100_000 + x}" for x in range(shape.numbers)]
            await db.execute(_NUMBERS, pool_id, numbers)
            rented.extend({"number": number, "area_code": area} for number in numbers)
        await rent(stack, {"secret": secret, "mode": shape.mode}, app_key, rented)
        # The key comes last: who accepts it has loaded everything before it.
        await db.execute(sql["add_key"], hash_key(api_key), caller_id, ["bind", "read"], api_key[-4:])
        # Only what is full already: statistics of the empty hot tables would mislead the planner.
        await db.execute("ANALYZE app, caller, api_key, pool, x_number")
    finally:
        await db.close()
    await _until_known(stack.api, api_key)
    return Scenario(api_key, pools, float(shape.quarantine_s), shape.cap)


async def rent(stack: Stack, terms: dict[str, str], app_key: str, numbers: list[dict[str, str]]) -> None:
    """Make an app at the emulator and give it numbers."""
    app = f"{stack.emulator_admin}/emulator/apps/{app_key}"
    async with aiohttp.ClientSession(raise_for_status=True, timeout=aiohttp.ClientTimeout(total=60)) as http:
        await http.put(app, json={**terms, "rate": 0, "burst": None})
        await http.put(f"{app}/numbers", json=numbers)


async def _until_known(api: str, api_key: str) -> None:
    """Ask over fresh connections, which the kernel spreads over the workers, until none refuses the key."""
    loop = asyncio.get_running_loop()
    give_up = loop.time() + _KNOWN_S
    headers = {"Authorization": f"Bearer {api_key}", "Connection": "close"}
    nothing = f"{api}/v1/bindings/bnd_{'0' * 32}"
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10), headers=headers) as http:
        while loop.time() < give_up:
            statuses = [(await http.get(nothing)).status for _ in range(_PROBES)]
            if all(status == 404 for status in statuses):
                return
            await asyncio.sleep(0.2)
    raise BenchError("The workers did not take in the load's app.")

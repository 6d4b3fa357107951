"""How full the pools are, as order systems see it."""

from __future__ import annotations

import asyncio

from tests.contract.service import Client, Json, Tenant, client_of, eventually, memory, phone, rows, up
from tests.pg import state_folder

_MEMBERS = {
    "name", "area_code", "state", "numbers", "open", "cap", "live", "resting", "headroom", "x_in_use", "x_needed",
    "refusals", "sample", "exposure", "as_of",
}  # fmt: skip
_HOT = """
WITH app_of AS (UPDATE app SET heat = 20 WHERE name = 'demo-axb' RETURNING id)
INSERT INTO x_use (pool_id, x_id, heat, calls, answered, as_of)
SELECT x.pool_id, x.x_id, 1000, 0, 0, broker_now() FROM x_number AS x CROSS JOIN app_of WHERE x.number = $1
"""


async def test_figures_of_a_pool() -> None:
    """Live lines, resting pairs, headroom, X* beside X in use and refusals, in a broker of our own; told, too."""
    with state_folder(memory()) as folder, up(folder, "--workers", "1") as service:
        async with client_of(service) as client:
            a = phone()
            bound = await asyncio.gather(*(client.bind(a=a, pool="beijing") for _ in range(3)))
            await client.ask("DELETE", bound[0].headers["Location"])
            await asyncio.gather(*(client.bind(a=a, pool="beijing") for _ in range(21)))
            refused = await client.bind(a=a, pool="beijing")
            refused.problem(409, "pool_exhausted")
            pools = (await client.ask("GET", "/v1/pools")).body["items"]
            assert [pool["name"] for pool in pools] == ["beijing", "shenzhen"]
            beijing, shenzhen = pools
            assert set(beijing) == _MEMBERS
            assert (beijing["area_code"], beijing["state"], beijing["numbers"], beijing["open"]) == (
                "010", "open", 24, 24,
            )  # fmt: skip
            assert (beijing["live"], beijing["resting"], beijing["x_in_use"]) == (23, 2, 23)
            assert beijing["x_needed"] == 24  # 23 live and one resting for the same party
            assert beijing["headroom"] == 24 * beijing["cap"] - 23
            assert beijing["refusals"] == {"a_busy": 1}
            assert (shenzhen["live"], shenzhen["resting"], shenzhen["x_needed"], shenzhen["refusals"]) == (0, 0, 0, {})
            again = (await client.ask("GET", "/v1/pools/beijing")).body
            assert again == beijing  # counted seldom: as_of says when
            await _refusals_are_told(client)
            await _heat_is_heeded(client)


async def _refusals_are_told(client: Client) -> None:
    async def told() -> list[Json]:
        return list((await client.ask("GET", "/v1/events?types=pool.exhausted")).body["items"])

    (event,) = await eventually(told, "the refusal is told")
    assert (event["subject"], event["data"]["pool"], event["data"]["reason"]) == (None, "beijing", "a_busy")


async def _heat_is_heeded(client: Client) -> None:
    first = (await client.bind(pool="shenzhen")).body["x"]
    assert (await client.bind(pool="shenzhen")).body["x"] == first
    await rows(client.service, _HOT, first)

    async def elsewhere() -> bool:
        return bool((await client.bind(pool="shenzhen")).body["x"] != first)

    await eventually(elsewhere, "a hot number is passed over")


async def test_figures_are_counted_anew(client: Client) -> None:
    """A binding shows within the ten seconds that figures may be old."""

    async def pool() -> Json:
        return dict((await client.ask("GET", "/v1/pools/shenzhen")).body)

    before = await pool()
    await client.bind(pool="shenzhen")

    async def newer() -> bool:
        return bool((await pool())["as_of"] > before["as_of"])

    await eventually(newer, "figures counted anew", 15)


async def test_an_unknown_pool(client: Client, other: Tenant) -> None:
    """A pool that is not there, or another app's, is a 404; an app without pools has an empty list."""
    (await client.ask("GET", "/v1/pools/atlantis")).problem(404, "pool_not_found")
    (await client.ask("GET", "/v1/pools/beijing", key=other.keys["main"])).problem(404, "pool_not_found")
    assert (await client.ask("GET", "/v1/pools", key=other.keys["main"])).body == {"items": []}

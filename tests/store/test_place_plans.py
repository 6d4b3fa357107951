"""How PostgreSQL claims places out of 200,000 extensions full of dead rows: by index, whatever it believes of them."""

from __future__ import annotations

import pytest

from broker.domain import extension
from broker.store import places
from tests.store.stall import open_stall
from tests.store.watch import nodes, watched

_NUMBERS, _CODES = 1000, 200
_BATCH = 20
_BIG = {"place", "line", "binding", "platform_call"}

#: Every place given out and left three times: three dead rows and three dead index entries before each live one.
_CHURN = "UPDATE place SET until = clock_timestamp() - $1::integer * interval '1 minute' WHERE pool_id = $2"
_FULL = """
UPDATE place SET until = CASE WHEN extension % 2 = 0 THEN 'infinity' ELSE clock_timestamp() + interval '1 hour' END,
                 party_key = x_id * 10000 + extension WHERE pool_id = $1
"""


@pytest.mark.parametrize("statistics", ["none", "fresh"])
async def test_a_refusal_is_a_look_into_the_index_for_each_x(database_url: str, statistics: str) -> None:
    """With all held or resting, a batch is refused by one index look-up an X, and finds no row."""
    async with watched(database_url, _BIG) as db:
        stall = await open_stall(db, "axe", numbers=_NUMBERS, digits=4, per_x=_CODES)
        assert await stall.value("SELECT count(*) FROM place") == _NUMBERS * _CODES
        for minutes in (3, 2, 1):
            await stall.run(_CHURN, minutes, stall.pool)
        await stall.run(_FULL, stall.pool)
        if statistics == "fresh":
            await stall.run("ANALYZE")
        await db.watch()
        assert await stall.outcomes(*(stall.want(-n) for n in range(_BATCH))) == ["exhausted"] * _BATCH
        looks = [
            node for said in db.plans() for node in nodes(said["Plan"])
            if node.get("Relation Name") == "place" and "Scan" in node["Node Type"] and node["Actual Loops"]
        ]  # fmt: skip
        assert {node["Index Name"] for node in looks} == {"place_rest", "place_party"}
        assert sum(node["Actual Rows"] for node in looks) == 0
        # Once for each X, not once for each item of the batch.
        assert sum(node["Actual Loops"] for node in looks) <= _NUMBERS + _BATCH
        assert all("until" in node["Index Cond"] for node in looks)
        assert sum(node.get("Rows Removed by Filter", 0) for node in looks) == 0


async def test_claims_go_by_index(database_url: str) -> None:
    """Claims, extensions asked for, returns, rechoices and the free neighbours touch a handful of places each."""
    async with watched(database_url, _BIG) as db:
        stall = await open_stall(db, "axe", numbers=_NUMBERS, digits=4, per_x=_CODES)
        await stall.run("UPDATE place SET until = 'infinity', party_key = 1 WHERE x_id < 990")
        await stall.run("ANALYZE")
        resting, code = stall.want(-1), extension.codes(4, _CODES, typo_safe=False)[0]
        await stall.where(resting)
        await stall.leave(resting)
        await db.watch()
        db.said.clear()
        claims = [stall.want(-n, most=5) for n in range(1, _BATCH)]
        assert set(await stall.outcomes(*claims)) == {"won"}
        assert (await stall.given(stall.want(-50, asked=code))).x_id in {990, 991}
        assert (await stall.again(claims[0]))[0].outcome == "won"
        assert code in await places.free_codes(db, stall.pool, code + 1, most=5)
        faults = [
            (node["Node Type"], node.get("Index Cond"), node["Actual Rows"] * node["Actual Loops"])
            for said in db.plans() for node in nodes(said["Plan"])
            if node.get("Relation Name") in _BIG and "Scan" in node["Node Type"]
            and (node["Node Type"] == "Seq Scan" or node["Actual Rows"] * node["Actual Loops"] > 50 * _BATCH)
        ]  # fmt: skip
        assert faults == []

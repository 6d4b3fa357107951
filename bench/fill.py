"""What the books of a scenario hold before its load, and how full its pools are after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg
from rich.progress import Progress

from bench.live_pairs import LivePairs
from bench.plan import courier
from bench.scenario import Shape
from bench.scenario_file import Fill
from bench.stack import Stack

_RESTS = 1_000_000
_LIMIT_S = 600.0

_OWN = "SELECT p.id, p.app_id, c.id FROM pool AS p JOIN caller AS c ON c.app_id = p.app_id WHERE p.name = ANY ($1)"
#: Rests of phones that nobody asks for: they are in the way of whoever reads the table.
_STRANGERS = """
INSERT INTO slot (pool_id, x_id, party_key, counterpart_key, until, line_id)
SELECT ($1::integer[])[1 + g % cardinality($1::integer[])], g % $2,
       hashint8extended(g, $3), hashint8extended(g, $3 + 1), broker_now() + interval '1 day', gen_random_uuid()
FROM generate_series(1, $4::bigint) AS g
ON CONFLICT DO NOTHING
"""
#: All X of each pool but a few, which are others for each phone.
_BARRED = """
INSERT INTO slot (pool_id, x_id, party_key, counterpart_key, until, line_id)
SELECT p, x, k.key, 0, broker_now() + interval '1 day', gen_random_uuid()
FROM unnest($1::integer[]) AS p, unnest($2::bigint[]) WITH ORDINALITY AS k (key, place),
     generate_series(0, $3::integer - 1) AS x
WHERE (x + k.place) % $3 >= $4
ON CONFLICT DO NOTHING
"""
_USE = """
WITH live AS (
  SELECT l.pool_id, count(*) AS lines, count(DISTINCT l.x_id) AS in_use
  FROM line AS l WHERE l.state IN ('pending', 'active', 'releasing') GROUP BY l.pool_id
), barred AS (
  SELECT s.pool_id, max(s.barred) AS barred FROM (
    SELECT pool_id, count(*) AS barred FROM slot WHERE until > broker_now() GROUP BY pool_id, party_key
  ) AS s GROUP BY s.pool_id
)
SELECT p.name AS pool, live.lines, live.in_use, (SELECT count(*) FROM x_number AS x WHERE x.pool_id = p.id) AS numbers,
       greatest(coalesce(barred.barred, 0), ceil(live.lines::numeric / a.cap)::bigint, 1) AS least
FROM live JOIN pool AS p ON p.id = live.pool_id JOIN app AS a ON a.id = p.app_id
     LEFT JOIN barred ON barred.pool_id = p.id
WHERE p.name = ANY ($1)
ORDER BY live.lines DESC, p.name LIMIT 50
"""


async def fill(stack: Stack, wanted: Fill, shape: Shape, pools: Sequence[str]) -> None:
    """Write it, and have the planner's statistics know it."""
    if not (wanted.live or wanted.resting or wanted.barred_share):
        return
    db = await asyncpg.connect(stack.database)
    try:
        rows = await db.fetch(_OWN, list(pools))
        ids, (_, app_id, caller_id) = [row[0] for row in rows], rows[0]
        for first in range(0, wanted.resting, _RESTS):
            count = min(_RESTS, wanted.resting - first)
            await db.execute(_STRANGERS, ids, shape.numbers, first, count, timeout=_LIMIT_S)
        barred = [stack.vault().party_key(courier(n)) for n in range(round(shape.couriers * wanted.barred_share))]
        if barred:
            await db.execute(_BARRED, ids, barred, shape.numbers, wanted.free_x, timeout=_LIMIT_S)
        if wanted.live:
            await LivePairs(app_id, caller_id, stack.vault(), wanted.live).load(db, Progress(disable=True))
        await db.execute("VACUUM (ANALYZE) slot", timeout=_LIMIT_S)
    finally:
        await db.close()


async def pool_use(db: asyncpg.Connection[Any], pools: Sequence[str]) -> list[dict[str, Any]]:
    """Return the fullest of these pools: live lines, X in use, and the least X that any choice would need (X*).

    ``least`` is the most X barred for one phone, or the lines by the cap if that is more.
    """
    return [{**dict(row), "least": int(row["least"])} for row in await db.fetch(_USE, list(pools), timeout=_LIMIT_S)]

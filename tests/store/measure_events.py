"""What an event costs a confirmed binding: WAL and time with and without, in turn.

``python -m tests.store.measure_events`` on a server of its own in memory, full-page images off.
"""

from __future__ import annotations

import asyncio
import sys
import time

from broker.store import calls, events
from broker.store.calls import Bound
from broker.store.database import Database
from tests.pg import Databases, server_url
from tests.store.shop import LEASE_S, Shop, key_of, open_shop

_LSN = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint"
_NUMBERS = 40
_TURNS = ((1, 200), (20, 30), (100, 10))


async def _turn(shop: Shop, begin: int, size: int, batches: int, days: int) -> str:
    await shop.run("UPDATE app SET event_days = $1", days)
    made = []
    for batch in range(batches):
        first = begin + batch * size
        claims = [shop.claim(2 * n + 1, 2 * n + 2, x=n % _NUMBERS) for n in range(first, first + size)]
        assert set(await shop.reserve(*claims)) == {"won"}
        made.append([Bound(key_of(claim), attempt=1, subscription_id="sub-" + claim.line_id.hex) for claim in claims])
    wal, at = [await shop.value(_LSN)], [time.perf_counter()]
    for items in made:
        await calls.settle_bound(shop.db, items, lease_s=LEASE_S)
    wal.append(await shop.value(_LSN))
    at.append(time.perf_counter())
    while await events.place(shop.db, limit=500):
        pass
    wal.append(await shop.value(_LSN))
    at.append(time.perf_counter())
    per = 1 / (size * batches)
    return (
        f"batches of {size:3}, events {'on ' if days else 'off'}: settling {(wal[1] - wal[0]) * per:5.0f} B"
        f" {(at[1] - at[0]) * per * 1e6:6.1f} us, placing {(wal[2] - wal[1]) * per:4.1f} B"
        f" {(at[2] - at[1]) * per * 1e6:4.1f} us\n"
    )


async def _measure(url: str) -> None:
    db = Database(url, connections=2, timeout_s=60)
    await db.open()
    shop = await open_shop(db, numbers=_NUMBERS)
    while await events.tend(db, days_ahead=1, slice_=100):
        pass
    await shop.run("ALTER SYSTEM SET full_page_writes = off")
    await shop.run("SELECT pg_reload_conf()")
    begin = 0
    for size, batches in _TURNS:
        for days in (0, 7, 0, 7):
            sys.stdout.write(await _turn(shop, begin, size, batches, days))
            begin += size * batches
    await db.close()


if __name__ == "__main__":
    with server_url() as own, Databases(own) as made:
        asyncio.run(_measure(made.create()))

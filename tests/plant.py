"""Bugs planted in the SQL functions as they are now: what the checkers have to find."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg

_LOOKED = r"(INTO outcomes, seats, had_a, had_b FROM verdict AS v;)"
_STILL_FREE = r"(WHERE s\.ctid = w\.place) AND s\.until <> 'infinity' AND \(s\.until <= v_now OR [^)]*\)"
_TOO_EARLY = """
CREATE FUNCTION too_early() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE slot SET until = broker_now() WHERE line_id = NEW.id;
  RETURN NULL;
END $$;
CREATE TRIGGER too_early AFTER UPDATE ON line FOR EACH ROW
WHEN (NEW.state = 'releasing' AND OLD.state = 'active') EXECUTE FUNCTION too_early()
"""

Plant = Callable[["asyncpg.Connection[Any]"], Awaitable[None]]


async def change(db: asyncpg.Connection[Any], function: str, pattern: str, instead: str) -> None:
    """Replace a part of a function."""
    text = await db.fetchval("SELECT pg_get_functiondef($1::regproc)", function)
    changed, times = re.subn(pattern, instead, text)
    assert times == 1, function
    await db.execute(changed)


async def no_unique_slots(db: asyncpg.Connection[Any]) -> None:
    """``reserve`` writes whatever is there by then, a tenth of a second after it looked, and no key objects."""
    await change(db, "reserve", _LOOKED, r"\1 PERFORM pg_sleep(0.1);")
    await change(db, "reserve", _STILL_FREE, r"\1")
    await db.execute("ALTER TABLE slot DROP CONSTRAINT slot_pkey; CREATE INDEX ON slot (pool_id, party_key, x_id)")


async def slots_freed_too_early(db: asyncpg.Connection[Any]) -> None:
    """Slots are set free when the release begins, not when the platform has confirmed it."""
    await db.execute(_TOO_EARLY)


async def ends_for_both(db: asyncpg.Connection[Any]) -> None:
    """Any release of a shared line ends it for everybody."""
    last = r"(a\.line_id AND o\.state IN \('pending', 'active'\)\)) AS last"
    await change(db, "release_bindings", last, r"\1 IS NOT NULL AS last")

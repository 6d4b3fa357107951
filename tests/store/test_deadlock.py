"""What a deadlock undoes is done again."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from broker.store.database import DatabaseAway
from tests.store.shop import Shop

_COUNT_BOTH = """
CREATE FUNCTION count_both(p_first integer, p_then integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  UPDATE counted SET n = n + 1 WHERE id = p_first;
  PERFORM pg_sleep(0.3);
  UPDATE counted SET n = n + 1 WHERE id = p_then;
END
$$
"""
_NEVER = """
CREATE FUNCTION never() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'as if' USING ERRCODE = '40P01';
END
$$
"""


async def test_two_who_wait_for_each_other_both_get_there(shop: Shop) -> None:
    """PostgreSQL undoes one of two statements; its caller hears nothing of it, and both have counted once."""
    await shop.db.fetch("CREATE TABLE counted (id integer PRIMARY KEY, n integer NOT NULL)")
    await shop.db.fetch("INSERT INTO counted VALUES (1, 0), (2, 0)")
    await shop.db.fetch(_COUNT_BOTH)
    with capture_logs() as logs:
        await asyncio.gather(*(shop.db.fetch("SELECT count_both($1, $2)", *order) for order in ((1, 2), (2, 1))))
    assert [line["event"] for line in logs] == ["deadlock"]
    assert [row["n"] for row in await shop.db.fetch("SELECT n FROM counted")] == [2, 2]


async def test_deadlocks_without_end_are_not_waited_for(shop: Shop) -> None:
    """A few tries later the database counts as away, which callers know how to answer."""
    await shop.db.fetch(_NEVER)
    with capture_logs() as logs, pytest.raises(DatabaseAway):
        await shop.db.fetch("SELECT never()")
    assert len(logs) == 5

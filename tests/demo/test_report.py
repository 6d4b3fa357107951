"""Counting platform calls per order."""

from __future__ import annotations

from typing import Any

import pytest

from broker.demo.city import Hour, Share
from broker.demo.report import PoolLook, Tally, platform_calls

A, B, C = "+8613900000001", "+8613900000002", "+8613900000003"


def row(request: int | None, op: str, subscription: str | None, a: str | None = None, b: str | None = None) -> Any:
    """A row of the platform's ledger."""
    return {"request": request, "op": op, "subscription_id": subscription, "a": a, "b": b}


@pytest.fixture
def hour() -> Hour:
    """Two shares of one pair, one of another."""
    shares = tuple(Share(no, "order", A, b, 0.0, 600.0, 600, released=no == 2) for no, b in enumerate((B, B, C)))
    return Hour(1, 1, 2, 3, shares, ())


def test_calls_are_counted_once_a_request_and_split_among_the_users_of_a_line(hour: Hour) -> None:
    """Shares 0 and 1 use one line, bound once and left to run out; share 2 was bound at the second try and released."""
    tally = Tally(subscriptions={0: "one", 1: "one", 2: "two"}, expired={0, 1}, released={2})
    rows = [
        row(1, "bind", "one", A, B),
        row(1, "bind", "one", A, B),
        row(2, "bind", None, A, C),
        row(3, "bind", "two", A, C),
        row(4, "unbind", "two"),
        row(None, "expire", "one", A, B),
        row(5, "bind", "somebody else's", B, C),
    ]
    spent = platform_calls(rows, hour, tally)
    assert (spent.expired, spent.released, spent.others) == (0.5, 3.0, 0)
    assert spent.by_operation == {"bind": 3, "unbind": 1}


def test_the_hour_takes_the_most_x_of_any_moment() -> None:
    """The most X in use beside the largest X*; older answers of another process do not count."""
    tally = Tally()
    for look in (PoolLook("1", 9, 4, 4), PoolLook("3", 40, 10, 9), PoolLook("2", 5, 30, 30), PoolLook("4", 3, 2, 11)):
        tally.look(look)
    most = tally.most()
    assert (most.live, most.in_use, most.needed, len(tally.looks)) == (40, 10, 11, 3)
    assert (tally.worst().in_use, tally.worst().needed) == (10, 9)

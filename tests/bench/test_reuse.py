"""``bench.reuse``: the policies on a small city."""

from __future__ import annotations

from rich.console import Console

from bench.reuse import policies
from broker.demo.city import lunch_hour


def test_policies_keep_the_rest_and_differ() -> None:
    """Nobody gets an X again before its rest is over; one number for each binding takes by far the most."""
    hour = lunch_hour(couriers=20, minutes=60, seed=1, run=0)
    found = policies(hour, 60, 500, 600.0, Console(quiet=True))
    assert not any(one.refused for one in found.values())
    assert all(one.gap_p1_s is None or one.gap_p1_s >= 600.0 for one in found.values())
    assert found["pack"].x_in_use <= found["lowest-first"].x_in_use + 1
    assert found["one-number-per-order"].x_used > 2 * found["pack"].x_used
    assert found["pack"].busiest_share < found["lowest-first"].busiest_share


def test_a_pool_too_small_is_told() -> None:
    """A bind without a usable X is counted."""
    hour = lunch_hour(couriers=20, minutes=60, seed=1, run=0)
    assert policies(hour, 2, 500, 600.0, Console(quiet=True))["pack"].refused

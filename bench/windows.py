"""How far calls go over a limit: windows of every start and every length."""

from __future__ import annotations

from collections.abc import Iterable


def excess(times: Iterable[float], *, rate: float, burst: int, slack_s: float = 0.0) -> float:
    """Return by how many calls the worst window of ``times`` (seconds, ascending) exceeds burst + rate x (T + slack).

    Zero or less: none does.
    """
    worst, tat = float("-inf"), float("-inf")
    for at in times:
        # The level of a leaky bucket is the worst of all windows that end here.
        tat = max(tat, at) + 1 / rate
        worst = max(worst, (tat - at) * rate)
    return worst - burst - rate * slack_s

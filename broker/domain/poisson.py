"""Limits of a Poisson mean, exact: F. Garwood, Fiducial limits for the Poisson distribution, Biometrika 28 (1936)."""

from __future__ import annotations

import math
from collections.abc import Callable

#: Halvings: as many as a double has digits.
_STEPS = 53


def limits(seen: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the lowest and highest mean under which ``seen`` events, or as extreme a number, are not too unlikely.

    The interval covers the true mean with at least ``confidence``.
    """
    tail = (1 - confidence) / 2
    widest = seen + 10 * math.sqrt(seen + 1) + 20
    low = 0.0 if seen == 0 else _solve(lambda mean: at_most(seen - 1, mean), 1 - tail, float(seen))
    return low, _solve(lambda mean: at_most(seen, mean), tail, widest)


def at_most(most: int, mean: float) -> float:
    """Return the probability of ``most`` events or fewer."""
    if mean <= 0:
        return 1.0
    # From the side that has fewer terms of any weight, each by the one before it.
    if most < mean:
        return min(1.0, _sum(most, mean, down=True))
    return max(0.0, 1.0 - _sum(most + 1, mean, down=False))


def _sum(first: int, mean: float, *, down: bool) -> float:
    term = math.exp(first * math.log(mean) - mean - math.lgamma(first + 1))
    total, place = 0.0, first
    while term > total * 1e-17:
        total += term
        if down:
            if place == 0:
                break
            term *= place / mean
            place -= 1
        else:
            place += 1
            term *= mean / place
    return total


def _solve(falling: Callable[[float], float], level: float, high: float) -> float:
    low = 0.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > level else (low, middle)
    return high

"""Options with bounds: what is out of them is told in one sentence before anything starts."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TypeVar

_Number = TypeVar("_Number", int, float)


def whole(low: int, high: int) -> Callable[[str], int]:
    """Return the type of an option that is a whole number from ``low`` to ``high``."""
    return lambda text: _within(int(text), low, high)


def number(low: float, high: float) -> Callable[[str], float]:
    """Return the type of an option that is a number from ``low`` to ``high``."""
    return lambda text: _within(float(text), low, high)


def _within(value: _Number, low: float, high: float) -> _Number:
    if not low <= value <= high:
        raise argparse.ArgumentTypeError(f"must be from {low:g} to {high:g}")
    return value

"""Quotas of requests a second: what is told of them, and how much of one an instance takes ahead."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

#: An instance takes no more ahead than a limit gives in this time, and gives up what it has not used by then.
SLICE_S = 0.1


@dataclass(frozen=True, slots=True)
class Quota:
    """A limit: ``rate`` requests a second, of which a second's worth may come at once (at least one)."""

    whose: str
    owner_id: int
    rate: float

    @property
    def window_s(self) -> int:
        """The time, in whole seconds, that the quota is told for."""
        return max(1, math.ceil(1 / self.rate))

    @property
    def burst(self) -> int:
        """Requests that may come at once after a pause: those of one window."""
        return max(1, math.floor(self.rate * self.window_s + 1e-9))

    @property
    def slice_(self) -> int:
        """Requests that an instance takes ahead at most."""
        return math.floor(self.rate * SLICE_S)


@dataclass(frozen=True, slots=True)
class Left:
    """What is left of a quota, as far as one instance knows."""

    quota: Quota
    remaining: int

    @property
    def whole_in_s(self) -> int:
        """Seconds until the whole quota is there again."""
        return math.ceil(max(self.quota.burst - self.remaining, 0) / self.quota.rate)


def policy_header(left: Sequence[Left]) -> str:
    """Return ``RateLimit-Policy``: the quota (q) of each limit and its window (w) in seconds."""
    return ", ".join(f'"{one.quota.whose}";q={one.quota.burst};w={one.quota.window_s}' for one in left)


def limit_header(left: Sequence[Left]) -> str:
    """Return ``RateLimit``: what remains (r) of each limit, and in how many seconds (t) it is whole again."""
    return ", ".join(f'"{one.quota.whose}";r={one.remaining};t={one.whole_in_s}' for one in left)

"""What a process remembers of a pool between two choices."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from broker.domain.choice import Prefix

#: A belief that an X is full lasts this long at first, twice as long each time it proves true: other processes free
#: seats too. Nobody is refused on a belief older than the first span.
_FULL_S = 0.5
_LONGEST_FULL_S = 8.0
_HEAT_WINDOW_S = 600.0


@dataclass(frozen=True, slots=True)
class _Full:
    since: float
    span_s: float


@dataclass(slots=True)
class PoolMemory:
    """What this process remembers of a pool. Losing it costs nothing but a few better choices."""

    prefix: Prefix = field(default_factory=Prefix)
    heat: list[int] = field(default_factory=list)
    cooled_at: float = 0.0
    full: dict[int, _Full] = field(default_factory=dict)
    refusals: Counter[str] = field(default_factory=Counter)

    def full_mask(self, now: float) -> int:
        """Return the X numbers believed to be full."""
        mask = 0
        for x, belief in self.full.items():
            if belief.since + belief.span_s > now:
                mask |= 1 << x
        return mask

    def found_full(self, x: int, now: float) -> None:
        """Take in that ``reserve()`` found no seat on an X, or that it is closed."""
        known = self.full.get(x)
        self.full[x] = _Full(now, min(2 * known.span_s, _LONGEST_FULL_S) if known else _FULL_S)

    def doubt(self, now: float) -> bool:
        """Forget old beliefs; tell whether there were any."""
        old = [x for x, belief in self.full.items() if belief.since + _FULL_S <= now]
        for x in old:
            del self.full[x]
        return bool(old)

    def warmed(self, size: int, now: float) -> list[int]:
        """Return the lines that each X got lately, halved every window."""
        if len(self.heat) < size:
            self.heat.extend([0] * (size - len(self.heat)))
        if now - self.cooled_at > _HEAT_WINDOW_S:
            self.heat = [count // 2 for count in self.heat]
            self.cooled_at = now
        return self.heat

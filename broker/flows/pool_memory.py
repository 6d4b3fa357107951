"""What a process remembers of a pool between two choices."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from broker.domain.choice import Prefix

#: A belief that an X is full lasts this long at first, twice as long each time it proves true: other processes free
#: seats too. Then one order looks at the X, and the others go by the belief meanwhile. Nobody is refused on a belief
#: older than the first span.
FULL_S = 0.5
_LONGEST_FULL_S = 60.0
_HEAT_WINDOW_S = 600.0


@dataclass(slots=True)
class _Full:
    """An X was full at ``since``; orders keep off it until ``until``, which is soon while one ``looks``."""

    since: float
    span_s: float
    until: float
    looks: bool = False


@dataclass(slots=True)
class PoolMemory:
    """What this process remembers of a pool. Losing it costs nothing but a few better choices."""

    prefix: Prefix = field(default_factory=Prefix)
    heat: list[int] = field(default_factory=list)
    cooled_at: float = 0.0
    refusals: Counter[str] = field(default_factory=Counter)
    #: The X numbers believed to be full, as a bitmap too; those of them that orders keep off, until the next may be
    #: looked at again.
    _full: dict[int, _Full] = field(default_factory=dict)
    full: int = 0
    _kept_off: int = 0
    _kept_off_until: float = float("inf")

    def kept_off(self, now: float) -> int:
        """Return the X numbers that are believed to be full, without those that an order may look at again."""
        if now >= self._kept_off_until:
            held = {x: belief.until for x, belief in self._full.items() if belief.until > now}
            self._kept_off = sum(1 << x for x in held)
            self._kept_off_until = min(held.values(), default=float("inf"))
        return self._kept_off

    def chosen(self, x: int, now: float) -> None:
        """Take in that an order was given an X: if that was believed to be full, the others wait for what it finds."""
        if (belief := self._full.get(x)) is not None:
            belief.looks = True
            self._keep_off(x, belief, now + FULL_S)

    def found_full(self, x: int, now: float) -> None:
        """Take in that ``reserve()`` found no seat on an X, or that it is closed."""
        belief = self._full.setdefault(x, _Full(now, 0.0, now))
        belief.since, belief.span_s = now, min(max(2 * belief.span_s, FULL_S), _LONGEST_FULL_S)
        belief.looks = False
        self.full |= 1 << x
        self._keep_off(x, belief, now + belief.span_s)

    def _keep_off(self, x: int, belief: _Full, until: float) -> None:
        belief.until = until
        self._kept_off |= 1 << x
        self._kept_off_until = min(self._kept_off_until, until)

    def found_room(self, x: int) -> None:
        """Take in that an X has a seat, or had one a moment ago."""
        if self._full.pop(x, None) is not None:
            self.full &= ~(1 << x)
            self._kept_off &= ~(1 << x)

    def doubt(self, xs: int, since: float) -> bool:
        """Let those of ``xs`` be looked at again that nobody found full after ``since``; tell whether there are any."""
        old = {x: belief for x, belief in self._full.items() if xs >> x & 1 and belief.since <= since}
        for x, belief in old.items():
            if not belief.looks:
                belief.span_s, belief.until = 0.0, since
                self._kept_off &= ~(1 << x)
        return bool(old)

    def warmed(self, size: int, now: float) -> list[int]:
        """Return the lines that each X got lately, halved every window."""
        if len(self.heat) < size:
            self.heat.extend([0] * (size - len(self.heat)))
        if now - self.cooled_at > _HEAT_WINDOW_S:
            self.heat = [count // 2 for count in self.heat]
            self.cooled_at = now
        return self.heat

"""Which X a pair gets: a pure function on integers used as bitmaps (bit n = the pool's X number n).

AXB is edge colouring: phones are vertices, live lines are edges, X numbers are colours. ``pack`` keeps to the smallest
prefix of the pool that still serves, and inside it takes the X that both parties have left alone for longest: as few
numbers as first-fit needs, without re-using the same X soonest and heating the first one most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

#: Of several X that neither party has used, at most this many are compared by heat: keeps a choice short in big pools.
_COMPARED = 16


class Policy(StrEnum):
    """How an X is chosen among the usable ones."""

    PACK = "pack"  # fewest numbers; inside those the longest rest
    STICKY = "sticky"  # the pair's last X if usable, else pack
    AVOID_STICKY = "avoid_sticky"  # any but the pair's last X, if there is another
    SPREAD = "spread"  # least loaded of all


@dataclass(slots=True)
class PartyView:
    """What one party may not get in one pool, and what it had.

    ``live``: X it is behind now. ``resting``: released X that it may not share with a different counterpart yet; the
    value is that last counterpart. ``left``: when its latest rest on an X ends or ended, seconds (any epoch).
    ``live_with``: counterpart and line of each X it is behind.
    """

    live: int = 0
    resting: dict[int, int] = field(default_factory=dict)
    left: dict[int, float] = field(default_factory=dict)
    last_with: dict[int, int] = field(default_factory=dict)
    live_with: dict[int, tuple[int, UUID]] = field(default_factory=dict)

    def lines_with(self, counterpart: int) -> list[UUID]:
        """Return the live lines that this party has with ``counterpart``."""
        return [line for other, line in self.live_with.values() if other == counterpart]

    def barred(self, counterpart: int) -> int:
        """Return the X numbers this party may not share with ``counterpart`` now."""
        mask = self.live
        for x, other in self.resting.items():
            if other != counterpart:
                mask |= 1 << x
        return mask


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why no X was left, as counts of X numbers: every X of the pool is in the first reason that fits."""

    not_open: int
    full: int
    a_busy: int
    b_busy: int
    resting: int

    def counts(self) -> dict[str, int]:
        """Return the reasons by name."""
        return {
            "not_open": self.not_open,
            "full": self.full,
            "a_busy": self.a_busy,
            "b_busy": self.b_busy,
            "resting": self.resting,
        }


@dataclass(frozen=True, slots=True)
class Choice:
    """The chosen X, why, and the position first-fit would have needed (it feeds the pool's active prefix)."""

    x: int
    first_fit: int
    why: str


def choose(
    policy: Policy,
    *,
    usable: int,
    prefix: int,
    a: PartyView,
    b: PartyView,
    b_key: int,
    heat: Sequence[int],
    hot: int = 0,
) -> Choice | None:
    """Pick an X from ``usable``.

    ``prefix`` is the number of leading X numbers in use lately; ``heat[x]`` the lines X got lately; ``b_key`` names B
    in A's history; ``hot`` are the X that carry as many calls as they may: taken only when there is nothing else, and
    when a pair stays on its own X. Returns ``None`` if nothing is usable.
    """
    if not usable:
        return None
    # Where the others are hot the pool needs as many X as first-fit would reach past them.
    first_fit = _lowest(usable & ~hot or usable)
    last = _pairs_last(a, b_key)
    if policy is Policy.STICKY and last is not None and usable >> last & 1:
        return Choice(last, first_fit, "sticky:last")
    if policy is Policy.AVOID_STICKY and last is not None and usable & ~(1 << last):
        usable &= ~(1 << last)
    usable = usable & ~hot or usable
    if policy is Policy.SPREAD:
        return Choice(min(_bits(usable), key=lambda x: (heat[x], x)), first_fit, "spread:coolest")
    inside = usable & ((1 << prefix) - 1)
    if not inside:
        return Choice(_lowest(usable), first_fit, "pack:beyond_prefix")
    fresh = inside & ~_seen(a, b)
    if fresh:
        return Choice(min(_bits(fresh, _COMPARED), key=lambda x: (heat[x], x)), first_fit, "pack:unused_coolest")
    return Choice(_longest_rested(inside, a, b, heat), first_fit, "pack:longest_rest")


def refusal(*, size: int, open_: int, full: int, a_barred: int, b_barred: int, a_live: int, b_live: int) -> Refusal:
    """Count why none of ``size`` X numbers is usable; all arguments but ``size`` are bitmaps."""
    everything = (1 << size) - 1
    left = open_ & everything
    counts = [size - left.bit_count()]
    for mask in (full, a_live, b_live, a_barred | b_barred):
        counts.append((left & mask).bit_count())
        left &= ~mask
    return Refusal(*counts)


def _longest_rested(inside: int, a: PartyView, b: PartyView, heat: Sequence[int]) -> int:
    never = float("-inf")
    return min(_bits(inside), key=lambda x: (max(a.left.get(x, never), b.left.get(x, never)), heat[x], x))


def _seen(a: PartyView, b: PartyView) -> int:
    seen = 0
    for x in a.left:
        seen |= 1 << x
    for x in b.left:
        seen |= 1 << x
    return seen


def _pairs_last(a: PartyView, b_key: int) -> int | None:
    """The X that A last shared with B and has not left for somebody else since."""
    shared = [x for x, other in a.last_with.items() if other == b_key]
    return max(shared, key=lambda x: a.left.get(x, 0.0), default=None)


def _lowest(mask: int) -> int:
    return (mask & -mask).bit_length() - 1


def _bits(mask: int, limit: int | None = None) -> list[int]:
    found: list[int] = []
    while mask and (limit is None or len(found) < limit):
        low = mask & -mask
        found.append(low.bit_length() - 1)
        mask ^= low
    return found


@dataclass(slots=True)
class Prefix:
    """How many leading X numbers a pool needs, learned from what first-fit would have taken lately.

    Two windows of ``window_s``: the larger need of the running and the previous one counts, so that the prefix shrinks
    when the load does. Each process keeps its own; they agree because they see the same barred sets.
    """

    window_s: float = 600.0
    _since: float = 0.0
    _current: int = 0
    _previous: int = 0

    def length(self, now: float) -> int:
        """Return the active prefix at ``now`` (monotonic seconds)."""
        self._turn(now)
        return max(self._current, self._previous)

    def note(self, first_fit: int, now: float) -> None:
        """Take in that a choice at ``now`` would have needed position ``first_fit``."""
        self._turn(now)
        self._current = max(self._current, first_fit + 1)

    def _turn(self, now: float) -> None:
        if now - self._since >= self.window_s:
            self._previous = self._current if now - self._since < 2 * self.window_s else 0
            self._current = 0
            self._since = now

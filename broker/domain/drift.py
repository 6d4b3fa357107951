"""What the platform shows of an X against what our books say of it: the differences, and what is made of each.

A difference counts only once it has stood a second look at both sides; what our books are just about to change is left
alone. Nothing here knows how the sides are read.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from uuid import UUID


class Kind(StrEnum):
    """How the two sides differ."""

    UNKNOWN_HERE = "unknown_here"  # bound there, not in our books: a stranger may be reachable
    ABSENT_THERE = "absent_there"  # live in our books, not bound there: an order's call would fail
    PARTIES_DIFFER = "parties_differ"  # bound there for others than our books say
    EXPIRY_DIFFERS = "expiry_differs"  # bound there for longer, or shorter, than our books say
    DIRECTION_DIFFERS = "direction_differs"  # bound there the other way round
    PEER_UNKNOWN_HERE = "peer_unknown_here"  # a Y that a call of ours has made, and our books do not know
    PEER_ABSENT_THERE = "peer_absent_there"  # our books say that B has a Y, and the platform's list lacks B
    PEER_DIFFERS = "peer_differs"  # B has another Y there


class Action(StrEnum):
    """What is made of a difference."""

    REPORT = "reported"
    BAR = "barred"
    UNBIND = "unbound"
    ADOPT = "adopted"
    REBIND = "rebinding"
    END = "ending"
    REPAIR = "repairing"


@dataclass(frozen=True, slots=True)
class Policy:
    """What an app's operator wants made of differences: words of ``drift_policy``."""

    unknown: str = "report"
    absent: str = "rebind"
    differing: str = "repair"


@dataclass(frozen=True, slots=True)
class Ours:
    """A line of our books on the X (or place) looked at.

    ``settled``: nothing is under way with it, and its end is not near. ``clock_known``: the lifetime that a query shows
    must be ``ttl_s``. ``calls`` tells one state of the line from the next.
    """

    line_id: UUID
    subscription_id: str
    a_key: int
    b_key: int | None
    direction: str
    ttl_s: int
    calls: int
    settled: bool
    clock_known: bool
    adopted: bool = False


@dataclass(frozen=True, slots=True)
class Theirs:
    """A binding as the platform shows it; ``None`` is what it does not say. ``mark``: the line that our token names."""

    subscription_id: str
    a_key: int
    b_key: int | None = None
    direction: str | None = None
    ttl_s: int | None = None
    mark: UUID | None = None


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference; ``ours`` or ``theirs`` is missing where that side has nothing."""

    kind: Kind
    ours: Ours | None = None
    theirs: Theirs | None = None

    @property
    def subscription_id(self) -> str:
        """The platform's id of what differs."""
        if self.theirs is not None:
            return self.theirs.subscription_id
        return self.ours.subscription_id if self.ours is not None else ""


#: Modes whose lifetime a query never tells: the platform ends nothing by itself there.
_NO_LIFETIME: Final = frozenset({"ax"})
#: Modes whose query goes on to tell the lifetime of the bind after a modification.
_OLD_LIFETIME: Final = frozenset({"axe"})
#: Modes whose lines the platform cannot be told again: there is no modification, and no choice of the X.
_FIXED: Final = frozenset({"axyb"})


def clock_known(mode: str, *, calls: int, adopted: bool) -> bool:
    """Tell whether a query of this mode must show the lifetime that our books have."""
    if mode in _NO_LIFETIME:
        return False
    return mode not in _OLD_LIFETIME or (calls <= 1 and not adopted)


def compare(ours: Iterable[Ours], theirs: Iterable[Theirs]) -> list[Difference]:
    """Return how the whole of both sides of one X (or place) differ.

    A binding of the platform is a line's by its id. One that has another id is left alone while a line that is not
    settled might be behind it, by our mark or by its parties.
    """
    held = {line.subscription_id: line for line in ours if line.subscription_id}
    moving = [line for line in ours if not line.settled]
    found: list[Difference] = []
    shown = {one.subscription_id: one for one in theirs}
    for one in shown.values():
        line = held.get(one.subscription_id)
        if line is not None:
            found += differing(line, one)
        elif not any(_may_be(line, one) for line in moving):
            found.append(Difference(Kind.UNKNOWN_HERE, theirs=one))
    found += [
        Difference(Kind.ABSENT_THERE, ours=line)
        for line in held.values()
        if line.settled and line.subscription_id not in shown
    ]
    return found


def differing(line: Ours, one: Theirs) -> list[Difference]:
    """Return how a line differs from its binding; nothing while something is under way with it."""
    if not line.settled:
        return []
    differs = {
        Kind.PARTIES_DIFFER: (one.a_key, one.b_key) != (line.a_key, line.b_key),
        Kind.EXPIRY_DIFFERS: line.clock_known and one.ttl_s is not None and one.ttl_s != line.ttl_s,
        Kind.DIRECTION_DIFFERS: one.direction is not None and one.direction != line.direction,
    }
    return [Difference(kind, line, one) for kind, yes in differs.items() if yes]


def stands(first: Difference, ours: Iterable[Ours], theirs: Iterable[Theirs]) -> bool:
    """Tell whether a difference is still the same one by another look at both sides."""
    for again in compare(ours, theirs):
        same_line = (again.ours and again.ours.calls) == (first.ours and first.ours.calls)
        if again.kind is first.kind and again.subscription_id == first.subscription_id and same_line:
            return True
    return False


def action(difference: Difference, policy: Policy, mode: str) -> Action:
    """Return what is to be made of a difference."""
    match difference.kind:
        case Kind.UNKNOWN_HERE if policy.unknown == "unbind":
            return Action.UNBIND
        case Kind.UNKNOWN_HERE if policy.unknown == "adopt" and mode not in _FIXED:
            return Action.ADOPT
        case Kind.UNKNOWN_HERE:
            return Action.REPORT if mode in _FIXED else Action.BAR
        case Kind.ABSENT_THERE if policy.absent == "report":
            return Action.REPORT
        case Kind.ABSENT_THERE:
            # Since when an adopted line's lifetime runs is not known: it has come to its end.
            ends = policy.absent == "end" or mode in _FIXED or (difference.ours is not None and difference.ours.adopted)
            return Action.END if ends else Action.REBIND
        case _:
            return Action.REPAIR if policy.differing == "repair" and mode not in _FIXED else Action.REPORT


def _may_be(line: Ours, one: Theirs) -> bool:
    return one.mark == line.line_id or (one.a_key, one.b_key) == (line.a_key, line.b_key)

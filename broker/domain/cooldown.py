"""How long a party must rest on an X, learned from calls that came after their binding had ended.

A slot that is used again hides such calls: they reach somebody else. So a sample of released lines rests several times
as long, and what is seen there is what would have reached a stranger elsewhere. A day's releases count for an age only
once all of them have reached it, so that no age looks safer because few releases are that old.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from broker.domain.poisson import limits

#: Ages are counted in so many bins; bin n begins at 60 s · 2^(n/2), the first one at 0 (migration 0032).
BINS: Final = 40
_FIRST_S: Final = 60.0
_MILLION: Final = 1_000_000
#: As much time must have been looked at behind a proposal as before it: what comes later still, nobody has seen.
_SEEN_BEHIND: Final = 2


@dataclass(frozen=True, slots=True)
class Cohort:
    """The sample of one day: ``rest_s`` its rest, ``passed_s`` since the day's end, ``calls`` by age."""

    rest_s: int
    passed_s: float
    releases: int
    calls: Sequence[int]


@dataclass(frozen=True, slots=True)
class Age:
    """Calls between two ages, and the releases that were followed so long."""

    from_s: int
    to_s: int
    calls: int
    releases: int

    @property
    def per_hour(self) -> float:
        """Calls an hour after one release."""
        return self.calls / self.releases * 3600 / (self.to_s - self.from_s) if self.releases else 0.0


@dataclass(frozen=True, slots=True)
class Exposure:
    """Calls later than a rest, for a million orders: counted ones, and what they say with 95 % confidence.

    They reach a stranger if the caller's slot is in use again by then: the highest that the exposure can be.
    ``seen_s``: until which age was looked.
    """

    rest_s: int
    releases: int
    calls: int
    seen_s: int
    per_million: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Proposal:
    """A rest for a risk, or ``why`` there is none."""

    risk: float
    rest_s: int | None
    exposure: Exposure | None
    why: str


def edge_s(place: int) -> int:
    """Return where a bin begins."""
    return 0 if place == 0 else math.ceil(_FIRST_S * 2 ** (place / 2))


def curve(cohorts: Sequence[Cohort]) -> list[Age]:
    """Return calls by age as far as any release was followed."""
    ages = []
    for place in range(BINS):
        to_s = edge_s(place + 1)
        counted = [one for one in cohorts if min(one.rest_s, one.passed_s) >= to_s]
        if not counted:
            break
        calls = sum(one.calls[place] for one in counted)
        ages.append(Age(edge_s(place), to_s, calls, sum(one.releases for one in counted)))
    return ages


def exposure(cohorts: Sequence[Cohort], rest_s: int) -> Exposure | None:
    """Return what a rest of ``rest_s`` leaves; None = nobody was followed for longer than that."""
    whole = [one for one in cohorts if one.passed_s >= one.rest_s > rest_s and one.releases]
    if not whole:
        return None
    # As long as the latest of them was followed: after a change of settings earlier days may have been followed less.
    seen_s = min(whole, key=lambda one: one.passed_s).rest_s
    whole = [one for one in whole if one.rest_s >= seen_s]
    releases = sum(one.releases for one in whole)
    # A bin that the rest ends in counts whole.
    late = [place for place in range(BINS) if edge_s(place + 1) > rest_s and edge_s(place) < seen_s]
    calls = sum(one.calls[place] for one in whole for place in late)
    low, high = (limit / releases * _MILLION for limit in limits(calls))
    return Exposure(rest_s, releases, calls, seen_s, calls / releases * _MILLION, low, high)


def sample_load(quarantine_s: int, share: float, factor: int) -> float:
    """Return which part of all that rests does so for the sample alone."""
    more = share * (factor - 1) if quarantine_s >= _FIRST_S else 0.0
    return round(more / (1 + more), 4)


def propose(cohorts: Sequence[Cohort], risk: float) -> Proposal:
    """Propose the shortest rest after which surely at most ``risk`` calls for a million orders are left."""
    last: Exposure | None = None
    for place in range(1, BINS):
        left = exposure(cohorts, edge_s(place))
        if left is None or left.rest_s * _SEEN_BEHIND > left.seen_s:
            break
        if left.high <= risk:
            return Proposal(risk, left.rest_s, left, "the shortest rest whose upper limit is within the risk")
        last = left
    if last is None:
        return Proposal(risk, None, None, "no release of the sample has been followed to the end of its rest yet")
    needed = math.ceil(limits(0)[1] / risk * _MILLION)
    if last.releases < needed:
        why = f"too few data: {last.releases} releases were followed, even without any late call it takes {needed}"
    elif last.low <= risk:
        why = f"too few data: with {last.releases} releases the upper limit stays over the risk"
    else:
        why = f"calls still come later than {last.rest_s} s: a higher sample_factor shows their end"
    return Proposal(risk, None, last, why)

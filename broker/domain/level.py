"""When little is left of a pool, and when nothing is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How much is left, as order systems are told when it becomes worse."""

    OK = "ok"
    LOW = "low"
    EXHAUSTED = "exhausted"


@dataclass(frozen=True, slots=True)
class Room:
    """Shares that are left, 0 to 1.

    ``places``: of the pool's seats or places; ``party``: of its X, for the party that may have the fewest others.
    """

    places: float
    party: float

    @property
    def left(self) -> float:
        """Return what bounds the pool first."""
        return min(self.places, self.party)

    @property
    def bound(self) -> str:
        """Return the name of it."""
        return "party" if self.party < self.places else "places"


def level(room: Room, low: float, was: Level, *, refused: bool) -> Level:
    """Return the level that follows ``was``; ``low`` is the share at which a pool is low, ``refused`` is lately.

    A pool that hovers about a bound is told of once: it is well again only when half as much again is left.
    """
    if room.places <= 0 or (was is Level.EXHAUSTED and (refused or room.places <= low / 2)):
        return Level.EXHAUSTED
    bound = low if was is Level.OK else low + min(low, 1 - low) / 2
    return Level.LOW if room.left <= bound else Level.OK

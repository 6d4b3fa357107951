"""The choice of X once more, slow and plain: sets and loops, no bitmaps. What the real one is compared with."""

from __future__ import annotations

from dataclasses import dataclass, field

from broker.domain.choice import PartyView, Policy

#: As documented in the real one: of several fresh X this many are compared by heat.
COMPARED = 16


@dataclass(slots=True)
class Party:
    """One party's history in one pool, as sets."""

    live: set[int] = field(default_factory=set)
    resting: dict[int, int] = field(default_factory=dict)
    left: dict[int, float] = field(default_factory=dict)
    last_with: dict[int, int] = field(default_factory=dict)

    def barred(self, counterpart: int) -> set[int]:
        """X numbers that may not be shared with ``counterpart``."""
        return {x for x in self.live | set(self.resting) if x in self.live or self.resting[x] != counterpart}

    def view(self) -> PartyView:
        """The same as the code under test reads it."""
        return PartyView(
            live=mask(self.live), resting=dict(self.resting), left=dict(self.left), last_with=dict(self.last_with)
        )


@dataclass(frozen=True, slots=True)
class Scene:
    """One question: this pair, in this pool, now."""

    size: int
    open: frozenset[int]
    full: frozenset[int]
    a: Party
    b: Party
    a_key: int
    b_key: int
    heat: tuple[int, ...]
    prefix: int
    hot: frozenset[int] = frozenset()

    def usable(self) -> set[int]:
        """The X numbers this pair may get."""
        found = set()
        for x in range(self.size):
            if x not in self.open or x in self.full or x in self.a.live or x in self.b.live:
                continue
            if x in self.a.resting and self.a.resting[x] != self.b_key:
                continue
            if x in self.b.resting and self.b.resting[x] != self.a_key:
                continue
            found.add(x)
        return found

    def lasts(self) -> set[int]:
        """The X numbers that may be called the pair's last one (several only if they were left at the same time)."""
        shared = [x for x, other in self.a.last_with.items() if other == self.b_key]
        latest = max((self.a.left[x] for x in shared), default=None)
        return {x for x in shared if self.a.left[x] == latest}


def mask(xs: set[int] | frozenset[int]) -> int:
    """Return the bitmap of a set."""
    return sum(2**x for x in xs)


def answers(policy: Policy, scene: Scene) -> set[int]:
    """Return every X that ``policy`` may answer; empty = it must refuse."""
    usable = scene.usable()
    if not usable:
        return set()
    lasts = scene.lasts()
    match policy:
        case Policy.SPREAD:
            return {min(usable - scene.hot or usable, key=lambda x: (scene.heat[x], x))}
        case Policy.PACK:
            return {_pack(scene, usable)}
        case Policy.STICKY:
            allowed = lasts & usable
            return allowed | ({_pack(scene, usable)} if lasts - usable or not lasts else set())
        case Policy.AVOID_STICKY:
            found = {_pack(scene, usable - {last}) for last in lasts if usable - {last}}
            return found or {_pack(scene, usable)}


def _pack(scene: Scene, usable: set[int]) -> int:
    usable = usable - scene.hot or usable
    inside = sorted(x for x in usable if x < scene.prefix)
    if not inside:
        return min(usable)
    fresh = [x for x in inside if x not in scene.a.left and x not in scene.b.left]
    if fresh:
        return min(fresh[:COMPARED], key=lambda x: (scene.heat[x], x))

    def rested_since(x: int) -> float:
        return max(party.left[x] for party in (scene.a, scene.b) if x in party.left)

    return min(inside, key=lambda x: (rested_since(x), scene.heat[x], x))

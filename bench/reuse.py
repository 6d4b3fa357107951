"""``python -m bench.reuse``: how many X a lunch hour takes by each policy, and how long they are left alone.

Plays the city of ``broker demo`` in virtual time: `pack` is the product's own choice; beside it lowest-first, random,
and one number for each binding. X* is the least that any choice would need, as the pages of pools tell it: the most X
barred for one phone, or the live lines by the cap if that is more. A gap is from the end of a party's line on an X to
the begin of its next one there with somebody else. Exit code 1: `pack` takes more than 1.05 X*, or a bind was refused.
"""

from __future__ import annotations

import argparse
import heapq
import random
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass

import orjson
from rich.console import Console

from broker.demo.city import Hour, Kind, Share, lunch_hour
from broker.domain.choice import PartyView, Policy, Prefix, choose
from broker.domain.ids import new_id

_WANTED = 1.05


@dataclass(frozen=True, slots=True)
class Reuse:
    """What a policy took: the most X with live lines at a moment beside the largest X*, gaps, the busiest X's calls."""

    x_in_use: int
    x_needed: int
    x_in_use_by_best: float
    x_used: int
    gaps: int
    gap_median_s: float | None
    gap_p1_s: float | None
    busiest_share: float
    refused: int


class Play:
    """One policy's hour. ``alone``: an X carries one line at a time and rests for everybody."""

    def __init__(self, hour: Hour, numbers: int, cap: int, rest_s: float, pick: Pick, *, alone: bool = False) -> None:
        """A pool of ``numbers`` X that carry up to ``cap`` lines each."""
        self.dice = random.Random(1)
        self.prefix = Prefix()
        self.heat = [0] * numbers
        self._hour, self._cap, self._rest_s, self._pick, self._alone = hour, cap, rest_s, pick, alone
        self._open = (1 << numbers) - 1
        self._lines: Counter[int] = Counter()
        self._parties: dict[str, PartyView] = {}
        self._names: dict[str, int] = {}
        self._over: list[tuple[float, bool, int]] = []  # when, whether its rest is over (else its life), share
        self._x: dict[int, int] = {}
        self._gaps: list[float] = []
        self._most = self._needed = self._refused = 0

    def result(self) -> Reuse:
        """Play all shares in the order of their begin."""
        for share in sorted(self._hour.shares, key=lambda one: (one.begins_s, one.no)):
            while self._over and self._over[0][0] <= share.begins_s:
                self._end(*heapq.heappop(self._over))
            self._begin(share)
        dialled = (deed.share for deed in self._hour.deeds if deed.kind is Kind.CALL)
        calls = Counter(self._x[share] for share in dialled if share in self._x)
        gaps = sorted(self._gaps)
        median, first = (round(gaps[len(gaps) // part], 1) if gaps else None for part in (2, 100))
        return Reuse(
            self._most, self._needed, round(self._most / max(self._needed, 1), 3), len(set(self._x.values())),
            len(gaps), median, first,
            round(max(calls.values(), default=0) / max(calls.total(), 1), 4), self._refused,
        )  # fmt: skip

    def _begin(self, share: Share) -> None:
        a, b = self._view(share.a), self._view(share.b)
        a_key, b_key = self._names[share.a], self._names[share.b]
        usable = self._open & ~a.barred(b_key) & ~b.barred(a_key)
        x = self._pick(self, usable, a, b, b_key, share.begins_s)
        if x is None:
            self._refused += 1
            return
        for party, other in ((a, b_key), (b, a_key)):
            if x in party.left and party.last_with[x] != other:
                self._gaps.append(share.begins_s - (party.left[x] - self._rest_s))
            party.resting.pop(x, None)
            party.live |= 1 << x
            party.last_with[x] = other
            party.live_with[x] = (other, new_id())
        self._x[share.no] = x
        self.heat[x] += 1
        self._lines[x] += 1
        if self._alone or self._lines[x] >= self._cap:
            self._open &= ~(1 << x)
        heapq.heappush(self._over, (share.ends_s, False, share.no))
        live = +self._lines
        barred = max(one.live.bit_count() + len(one.resting) for one in (a, b))
        self._most = max(self._most, len(live))
        self._needed = max(self._needed, barred, -(-live.total() // self._cap))

    def _end(self, at_s: float, rested: bool, no: int) -> None:  # noqa: FBT001 - an entry of the heap
        x, share = self._x[no], self._hour.shares[no]
        for party in (self._view(share.a), self._view(share.b)):
            if not rested:
                party.live &= ~(1 << x)
                del party.live_with[x]
                party.resting[x] = party.last_with[x]
                party.left[x] = at_s + self._rest_s
            elif not party.live >> x & 1 and party.left[x] <= at_s:
                party.resting.pop(x, None)
        if not rested:
            self._lines[x] -= 1
            heapq.heappush(self._over, (at_s + self._rest_s, True, no))
        if rested or not self._alone:
            self._open |= 1 << x

    def _view(self, phone: str) -> PartyView:
        self._names.setdefault(phone, len(self._names))
        return self._parties.setdefault(phone, PartyView())


#: Which of the usable X a pair gets at a moment.
Pick = Callable[[Play, int, PartyView, PartyView, int, float], int | None]


def pack(play: Play, usable: int, a: PartyView, b: PartyView, b_key: int, now: float) -> int | None:
    """As the product does."""
    length = play.prefix.length(now)
    made = choose(Policy.PACK, usable=usable, prefix=length, a=a, b=b, b_key=b_key, heat=play.heat)
    if made is None:
        return None
    play.prefix.note(made.first_fit, now)
    return made.x


def lowest(_play: Play, usable: int, _a: PartyView, _b: PartyView, _key: int, _now: float) -> int | None:
    """The first."""
    return (usable & -usable).bit_length() - 1 if usable else None


def by_chance(play: Play, usable: int, _a: PartyView, _b: PartyView, _key: int, _now: float) -> int | None:
    """Any."""
    return play.dice.choice([x for x in range(usable.bit_length()) if usable >> x & 1]) if usable else None


def policies(hour: Hour, numbers: int, cap: int, rest_s: float, console: Console) -> dict[str, Reuse]:
    """Play the same hour by every policy; one number for each binding has as many numbers as it takes."""
    found: dict[str, Reuse] = {}
    for name, pick in (("pack", pack), ("lowest-first", lowest), ("random", by_chance)):
        with console.status(name):
            found[name] = Play(hour, numbers, cap, rest_s, pick).result()
    with console.status("one-number-per-order"):
        alone = Play(hour, len(hour.shares), cap, rest_s, lowest, alone=True)
        found["one-number-per-order"] = alone.result()
    return found


def main() -> int:
    """Play, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--couriers", type=int, default=200)
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--numbers", type=int, default=100, help="X of the pool")
    parser.add_argument("--cap", type=int, default=500, help="lines that an X may carry")
    parser.add_argument("--rest", type=float, default=600.0, help="seconds that a party rests on an X it has left")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    if (
        not 1 <= asked.couriers <= 2000
        or not 1 <= asked.minutes <= 240
        or not 1 <= asked.numbers <= 1000
        or not 1 <= asked.cap <= 10_000
        or not 0 <= asked.rest <= 86_400
    ):
        parser.error("that is more than this bench is for")
    hour = lunch_hour(couriers=asked.couriers, minutes=asked.minutes, seed=asked.seed, run=0)
    found = policies(hour, asked.numbers, asked.cap, asked.rest, Console(stderr=True))
    if asked.json:
        print(orjson.dumps({"policies": {name: asdict(one) for name, one in found.items()}}).decode())
    else:
        heads = ("X in use", "X*", "ratio", "X used", "gap p50", "gap p1", "busiest", "refused")
        print(" " * 22 + "".join(f"{head:>9}" for head in heads))
        for name, one in found.items():
            gaps = [f"{s:.0f} s" if s is not None else "-" for s in (one.gap_median_s, one.gap_p1_s)]
            print(
                f"{name:22}{one.x_in_use:>9}{one.x_needed:>9}{one.x_in_use_by_best:>9.2f}{one.x_used:>9}"
                f"{gaps[0]:>9}{gaps[1]:>9}{one.busiest_share:>9.1%}{one.refused:>9}"
            )
    return 0 if found["pack"].x_in_use_by_best <= _WANTED and not found["pack"].refused else 1


if __name__ == "__main__":
    sys.exit(main())

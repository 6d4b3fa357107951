"""Whether a request is let in: by how long the work in front of it would take, learned from requests that are done.

What counts is work on our side (this process and the database). A request that waits for the platform is no such work:
it stands aside (:meth:`Work.aside`), and neither delays others nor tells how fast we are.

Of each kind of request two things are learned: how long a lone one takes, and what each other one in work adds. The
expected wait is the latter times those in work. It must end before the request's own deadline. And once it has been too
long for more than a moment, requests are shed until there are few enough for what a lone one takes: a burst passes, a
queue that stays does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

#: A wait that is too long must last this long before anything is shed.
STANDING_S = 0.1
#: Nothing was shed for this long: what is offered can be carried again.
CALM_S = 1.0
#: While shedding, the wait may be this many times what a lone request takes, but at least so long.
_TIMES_ALONE = 1.5
_LEAST_WAIT_S = 0.005
#: So many, and so many large ones, are always let in: without them nothing would be learned.
FEWEST, FEWEST_LARGE = 5, 2
#: Up to so many in work one counts as alone.
_ALONE = 2
#: What each one adds is taken for at least this.
_LEAST_EACH_S = 0.000_05
#: Weight of the newest request.
_NEWEST = 1 / 32
_LONGEST_RETRY_S = 60
#: Requests and items of batches that a process has in work, or that wait for the platform.
MOST_ITEMS = 20_000


@dataclass(frozen=True, slots=True)
class Refusal:
    """``reason``: ``deadline``, ``standing`` or ``full``; ``wait_s`` is what was expected."""

    reason: str
    wait_s: float

    @property
    def retry_after_s(self) -> int:
        """When to come back, in whole seconds."""
        return min(max(1, math.ceil(self.wait_s)), _LONGEST_RETRY_S)


class _Kind:
    """What is known of one kind of request, in seconds."""

    __slots__ = ("_added_s", "_beside", "alone_s")

    def __init__(self) -> None:
        self.alone_s = 0.01
        self._added_s = 0.01
        self._beside = 10.0

    @property
    def each_s(self) -> float:
        """What each other request in work adds."""
        return max(self._added_s / self._beside, _LEAST_EACH_S)

    def learn(self, seconds: float, began: int, ended: int, *, crowded: bool) -> None:
        """Take in one that was in work for ``seconds``; in its beginning and end there were so many, with itself.

        ``crowded``: others are turned away, so that even a lone one takes longer than it would.
        """
        if max(began, ended) <= _ALONE:
            if not crowded:
                self.alone_s += (seconds - self.alone_s) * _NEWEST
            return
        self._added_s += (seconds - self.alone_s - self._added_s) * _NEWEST
        self._beside += ((began + ended) / 2 - self._beside) * _NEWEST


class Gate:
    """Counts requests in work and refuses those that would wait too long."""

    def __init__(self, now: Callable[[], float], *, longest_wait_s: float, most: int) -> None:
        """``now`` is a steady clock; over ``longest_wait_s`` a wait is too long; ``most`` are in work or aside."""
        self._now = now
        self._longest_wait_s = longest_wait_s
        self._most = most
        self._kinds: dict[str, _Kind] = {}
        self._short_at = now()
        self._shed_at = -math.inf
        self.shedding = False
        self.refused: dict[str, int] = {}
        #: Items in work; requests of one and larger ones that brought them.
        self.items = 0
        self.singles = 0
        self.large = 0
        #: Items of requests that stand aside: they delay nobody, but take memory.
        self.aside = 0

    def refuses(self, kind: str, within_s: float, *, large: bool = False) -> Refusal | None:
        """Tell whether a request that must be answered ``within_s`` is refused, and why; ``large``: it brings many."""
        known = self._kinds.get(kind)
        if known is None:
            known = self._kinds[kind] = _Kind()
        wait_s = self.items * known.each_s
        few = self.large < FEWEST_LARGE if large else self.singles < FEWEST
        reason = self._reason(known, wait_s, within_s, few=few)
        if reason is None:
            return None
        self.refused[reason] = self.refused.get(reason, 0) + 1
        return Refusal(reason, wait_s)

    def _reason(self, known: _Kind, wait_s: float, within_s: float, *, few: bool) -> str | None:
        now = self._now()
        self._look(now, wait_s)
        if self.items + self.aside >= self._most:
            return "full"
        if few:
            return None
        if wait_s > within_s:
            return "deadline"
        # What large requests bring is no reason to refuse small ones: without these it would be there, too.
        if self.shedding and self.singles * known.each_s > max(_TIMES_ALONE * known.alone_s, _LEAST_WAIT_S):
            self._shed_at = now
            return "standing"
        return None

    def _look(self, now: float, wait_s: float) -> None:
        if wait_s <= self._longest_wait_s:
            self._short_at = now
        elif not self.shedding and now - self._short_at > STANDING_S:
            self.shedding, self._shed_at = True, now
        if self.shedding and now - self._shed_at > CALM_S:
            self.shedding = False

    def expected_s(self) -> float:
        """Return the longest wait that a request of any known kind would have now."""
        return self.items * max((known.each_s for known in self._kinds.values()), default=0.0)

    def begin(self, kind: str) -> Work:
        """Count a request that was let in."""
        return Work(self, self._kinds.setdefault(kind, _Kind()), self._now)


class Work:
    """One request on our side, from when it was let in until :meth:`end`."""

    __slots__ = (
        "_aside", "_aside_s", "_aside_since", "_began", "_beside", "_ended", "_gate", "_items", "_kind",
        "_now", "telling",
    )  # fmt: skip

    def __init__(self, gate: Gate, kind: _Kind, now: Callable[[], float]) -> None:
        self._gate = gate
        self._kind = kind
        self._now = now
        self._items = 1
        self._aside = 0
        self._aside_s = self._aside_since = 0.0
        self._ended = False
        #: Whether its time tells how long such requests take; not so of one that was refused.
        self.telling = False
        gate.items += 1
        gate.singles += 1
        self._beside = gate.items
        self._began = now()

    def holds(self, items: int) -> None:
        """Count ``items``: the request turned out to bring so many."""
        if items > 1 and self._items == 1:
            self._gate.singles -= 1
            self._gate.large += 1
            self._gate.items += items - 1
            self._beside += items - 1
            self._items = items

    def aside(self) -> AbstractContextManager[None]:
        """Return what to hold while waiting for somebody else: not in work while any part of the request does."""
        return self

    def __enter__(self) -> None:
        if not self._aside:
            self._step_aside()
        self._aside += 1

    def __exit__(self, *_raised: object) -> None:
        self._aside -= 1
        if not self._aside:
            self._come_back()

    def end(self) -> None:
        """It is answered, or given up; once counts."""
        if self._ended:
            return
        if self._aside:
            self._come_back()
        beside = self._gate.items
        self._count(-1)
        self._ended = True
        if self.telling:
            seconds = self._now() - self._began - self._aside_s
            self._kind.learn(seconds, self._beside, beside, crowded=self._gate.shedding)

    def _step_aside(self) -> None:
        if not self._ended:
            self._aside_since = self._now()
            self._count(-1)
            self._gate.aside += self._items

    def _come_back(self) -> None:
        if not self._ended:
            self._aside_s += self._now() - self._aside_since
            self._gate.aside -= self._items
            self._count(1)

    def _count(self, sign: int) -> None:
        self._gate.items += sign * self._items
        if self._items == 1:
            self._gate.singles += sign
        else:
            self._gate.large += sign

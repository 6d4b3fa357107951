"""Whose turn is next: lanes by priority with a share kept for the low ones, callers by weight, then the most urgent.

Callers of a lane are served by start-time fair queueing: each turn moves its caller's tag on by 1 / weight, the lowest
tag goes next, and who was away begins at the tag that is being served. So a caller that asks for less than its share is
served at once, whatever the others ask for. Among a caller's own calls the earliest deadline goes first.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Generic, TypeVar

T = TypeVar("T")


class Kind(IntEnum):
    """The lanes of an app, the first one first."""

    BIND = 0
    UNBIND = 1
    MODIFY = 2
    MOVE = 3
    QUERY = 4
    AUDIT = 5


#: Of the turns, what a lane gets at least while it has somebody waiting; the rest goes by priority.
KEPT = {
    Kind.BIND: 0.0, Kind.UNBIND: 0.15, Kind.MODIFY: 0.10, Kind.MOVE: 0.10, Kind.QUERY: 0.05, Kind.AUDIT: 0.02,
}  # fmt: skip

#: How far, in turns of weight 1, a caller may be ahead of those who queue and still count as within its share.
_LEEWAY = 2.0

#: Callers that wait for nothing are remembered up to this many.
_MOST_IDLE = 1000


@dataclass(slots=True)
class _Caller(Generic[T]):
    tag: float
    waiting: list[tuple[float, int, T]] = field(default_factory=list)


class _Queue(Generic[T]):
    """Those who wait for one kind of turn. ``gone`` tells who has left without a turn: they are skipped, not served."""

    def __init__(self, gone: Callable[[T], bool]) -> None:
        self._gone = gone
        self._callers: dict[int, _Caller[T]] = {}
        self._next: list[tuple[float, float, int, int]] = []  # tag, urgency of the head, order, caller
        self._weights: dict[int, int] = {}  # of those in _next
        self._served = 0.0
        self._last = 0.0  # the highest tag so far
        self._order = 0
        self.weight = 0

    def __bool__(self) -> bool:
        return bool(self._next)

    @property
    def urgency(self) -> float:
        return self._next[0][1]

    def push(self, caller: int, weight: int, urgency: float, item: T) -> None:
        known = self._known(caller)
        self._order += 1
        heapq.heappush(known.waiting, (urgency, self._order, item))
        if caller not in self._weights:
            known.tag = max(known.tag, self._served)
            self._weights[caller] = weight
            self.weight += weight
            heapq.heappush(self._next, (known.tag, urgency, self._order, caller))

    def pop(self) -> T | None:
        while self._next:
            tag, _, _, caller = heapq.heappop(self._next)
            known = self._callers[caller]
            while known.waiting and self._gone(known.waiting[0][2]):
                heapq.heappop(known.waiting)
            weight = self._weights.pop(caller)
            self.weight -= weight
            if not known.waiting:
                continue
            _, _, item = heapq.heappop(known.waiting)
            self._served = max(self._served, tag)
            known.tag = tag + 1 / weight
            self._last = max(self._last, known.tag)
            if known.waiting:
                urgency, order, _ = known.waiting[0]
                self._weights[caller] = weight
                self.weight += weight
                heapq.heappush(self._next, (known.tag, urgency, order, caller))
            elif not self._next:
                # Nobody waits: all begin alike again.
                self._served = self._last
            return item
        return None

    def drain(self) -> Iterator[tuple[int, int, float, T]]:
        for caller, known in self._callers.items():
            for urgency, _, item in sorted(known.waiting, key=lambda entry: entry[:2]):
                yield caller, self._weights.get(caller, 1), urgency, item

    def within_share(self, caller: int) -> bool:
        known = self._callers.get(caller)
        # Two turns of leeway: tags move on only when somebody who queues is served.
        return caller not in self._weights and (known is None or known.tag <= self._served + _LEEWAY)

    @property
    def single(self) -> bool:
        return bool(self._next) and len(self._callers[self._next[0][3]].waiting) == 1

    def charge(self, caller: int, weight: int) -> None:
        known = self._known(caller)
        known.tag = max(known.tag, self._served) + 1 / weight
        self._last = max(self._last, known.tag)

    def _known(self, caller: int) -> _Caller[T]:
        known = self._callers.get(caller)
        if known is None:
            if len(self._callers) >= _MOST_IDLE:
                self._forget()
            known = self._callers[caller] = _Caller(self._served)
        return known

    def ahead(self, caller: int, weight: int) -> float:
        """Return how many turns a newcomer of the caller would wait for, if all of the others have long queues."""
        known = self._callers.get(caller)
        own = len(known.waiting) if known is not None else 0
        weights = self.weight + (0 if caller in self._weights else weight)
        return (own + 1) * weights / weight

    def _forget(self) -> None:
        idle = [caller for caller, known in self._callers.items() if not known.waiting and known.tag <= self._served]
        for caller in idle:
            del self._callers[caller]

    def __iter__(self) -> Iterator[T]:
        return (item for known in self._callers.values() for _, _, item in known.waiting)


class Turns(Generic[T]):
    """All who wait for a turn of one app. ``part`` tells apart what must be served apart, as interfaces are."""

    def __init__(self, gone: Callable[[T], bool]) -> None:
        """``gone(item)`` tells whether somebody has stopped waiting."""
        self._gone = gone
        self._queues: dict[tuple[Kind, str], _Queue[T]] = {}
        self._kept = dict.fromkeys(Kind, 0.0)

    def push(self, kind: Kind, item: T, *, caller: int, weight: int, urgency: float, part: str = "") -> None:
        """Have ``item`` wait."""
        queue = self._queues.get((kind, part))
        if queue is None:
            queue = self._queues[kind, part] = _Queue(self._gone)
            self._queues = dict(sorted(self._queues.items()))
        queue.push(caller, weight, urgency, item)

    def parts(self) -> list[str]:
        """Return the parts in which somebody may be waiting, the first one's first."""
        return list(dict.fromkeys(part for (_, part), queue in self._queues.items() if queue))

    def pop(self, parts: Collection[str] | None = None) -> T | None:
        """Return who is next, of these parts if they are given; None = nobody waits."""
        while True:
            waiting = [key for key, queue in self._queues.items() if queue and (parts is None or key[1] in parts)]
            if not waiting:
                return None
            chosen = waiting[0] if len(waiting) == 1 else self._choose(waiting)
            item = self._queues[chosen].pop()
            if item is not None:
                return item

    def _choose(self, waiting: list[tuple[Kind, str]]) -> tuple[Kind, str]:
        first = waiting[0][0]
        low = {kind for kind, _ in waiting if kind is not first}
        for kind in Kind:
            self._kept[kind] = self._kept[kind] + KEPT[kind] if kind in low else 0.0
        most = max(low, key=self._kept.__getitem__, default=first)
        kind = most if self._kept[most] >= 1 else first
        if kind is most and kind is not first:
            self._kept[kind] -= 1
        return min((key for key in waiting if key[0] is kind), key=lambda key: self._queues[key].urgency)

    def merge(self, part: str) -> None:
        """Have those of a part wait with all others: it is not served apart any more."""
        for kind, queue in [(key[0], queue) for key, queue in self._queues.items() if key[1] == part]:
            for caller, weight, urgency, item in queue.drain():
                self.push(kind, item, caller=caller, weight=weight, urgency=urgency)
        self._queues = {key: queue for key, queue in self._queues.items() if key[1] != part}

    def __iter__(self) -> Iterator[T]:
        return (item for queue in self._queues.values() for item in queue)

    def within_share(self, kind: Kind, caller: int) -> bool:
        """Tell whether the caller has nothing waiting and has had no more turns lately than those who have."""
        queue = self._queues.get((kind, ""))
        return queue is None or queue.within_share(caller)

    def charge(self, kind: Kind, caller: int, weight: int) -> None:
        """Count a turn that the caller got before the queue."""
        if (queue := self._queues.get((kind, ""))) is not None:
            queue.charge(caller, weight)

    def first_is_alone(self) -> bool:
        """Tell whether who is next of the first lane has no other calls of its caller behind it."""
        return next((queue.single for queue in self._queues.values() if queue), False)

    def ahead(self, kind: Kind, caller: int, weight: int) -> float:
        """Return about how many turns of its lane a newcomer of the caller would have to wait for."""
        queue = self._queues.get((kind, ""))
        return queue.ahead(caller, weight) if queue else 0.0

    def clear(self) -> list[T]:
        """Forget everybody and return who waited."""
        waited = list(self)
        self._queues.clear()
        return waited

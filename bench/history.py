"""What clients saw, and whether any of it breaks a promise. Pure: no I/O, no clock of its own.

All times are seconds of CLOCK_MONOTONIC, which all processes of a machine share on Linux. Only *certain* knowledge
counts: a bind that was answered holds its X at the latest from its answer on, and at least until somebody first began
to release it or until its lifetime can have run out. What was never answered proves nothing and accuses nobody.

A register is (party, X). Two bindings P and Q of one register with different counterparts may follow one another as
"P, rest, Q" only if Q's answer came later than the earliest end of P plus the quarantine. If neither order is possible
they have overlapped, or the rest between them was cut short.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from broker.domain.phone import mask

#: Two clocks measure a rest, PostgreSQL's and ours, and they may drift apart: by this share, and by so many seconds.
_DRIFT = 0.001
_NEVER = float("inf")

Outcome = Literal["ok", "refused", "unknown"]


@dataclass(frozen=True, slots=True)
class Operation:
    """One request of a client.

    ``ok``: a bind answered 201, a release or change answered 200. ``refused``: certainly nothing was done.
    ``unknown``: no answer, 202 or 5xx. Reads prove nothing and name no binding. ``a`` and ``b`` are given for binds,
    and with ``x`` for changes that are ok: who holds what from then on; ``x`` and ``binding`` for binds that are ok,
    ``binding`` for releases and changes. Binds that were repeated under one Idempotency-Key carry it in ``key``.
    ``ttl_s`` 0 = no expiry. ``line``: what the platform holds, where it is told; several orders of a pair may share
    one, and its parties may be replaced.
    """

    op: Literal["bind", "change", "release", "read"]
    outcome: Outcome
    invoked: float
    done: float
    binding: str | None = None
    a: str = ""
    b: str = ""
    x: str | None = None
    ttl_s: float = 0.0
    key: str | None = None
    status: int = 0
    line: str | None = None


@dataclass(frozen=True, slots=True)
class Holding:
    """What is certain about one binding: it held its X from ``since`` (answered) to ``until`` (earliest end).

    ``rests``: its line was not changed, so both parties came to the X with it and rest when it ends. To one that was
    changed one of them may have come with an order of the pair that nobody heard of, and owes no rest.
    """

    binding: str
    a: str
    b: str
    x: str
    since: float
    until: float
    line: str | None = None
    rests: bool = True

    def counterpart(self, party: str) -> str:
        """Return the other one."""
        return self.b if party == self.a else self.a

    def pair(self) -> frozenset[str]:
        """Return both, in no order."""
        return frozenset((self.a, self.b))


def check_history(events: Iterable[Operation], *, quarantine_s: float, cap: int, sharing: bool = False) -> list[str]:
    """Return every violation in words with ids; an empty list is a history that may have been correct.

    ``quarantine_s`` is the app's rest; 0 if a test moves the broker's clock, which this one does not follow. ``cap``
    is the most live lines on one X. ``sharing``: orders of the same pair may share a line.
    """
    operations = list(events)
    held, violations = holdings(operations)
    registers: dict[tuple[str, str], list[Holding]] = {}
    numbers: dict[str, list[Holding]] = {}
    for one in held:
        numbers.setdefault(one.x, []).append(one)
        for party in (one.a, one.b):
            registers.setdefault((party, one.x), []).append(one)
    for (party, _), found in registers.items():
        if len(found) > 1:
            violations.extend(_register(party, found, quarantine_s, sharing=sharing))
    for x, found in numbers.items():
        if len(found) > cap:
            violations.extend(_cap(x, found, cap))
    return violations


def holdings(operations: Sequence[Operation]) -> tuple[list[Holding], list[str]]:
    """Return what each binding certainly held: from an answer that says so to whatever may have ended or changed it.

    A change ends what was held when it was asked for, and begins what it was answered with; so who is replaced, or
    comes in, is certainly behind X only outside of it. Also return the bindings whose answers contradict each other.
    """
    ended: dict[str, list[tuple[float, bool]]] = {}
    begun: dict[str, float] = {}
    for event in operations:
        if event.op != "bind" and event.binding is not None and event.outcome != "refused":
            ended.setdefault(event.binding, []).append((event.invoked, event.op == "release"))
        elif event.op == "bind" and event.key is not None:
            begun[event.key] = min(event.invoked, begun.get(event.key, _NEVER))
    asked = {event.binding for event in operations if event.op == "change" and event.outcome != "refused"}
    unsteady = {event.line for event in operations if event.line is not None and event.binding in asked}
    held: dict[str, Holding] = {}
    changed: list[Holding] = []
    violations: list[str] = []
    for event in operations:
        if event.op == "release" or event.outcome != "ok" or event.binding is None or event.x is None:
            continue
        started = begun.get(event.key, event.invoked) if event.key is not None else event.invoked
        # Its lifetime counts from the confirmation, which came after the first request was made.
        expiry = started + event.ttl_s if event.ttl_s else _NEVER
        later = (end for end in ended.get(event.binding, ()) if event.op == "bind" or end[0] > event.invoked)
        until, rests = min(min(later, default=(_NEVER, True)), (expiry, True))
        holding = Holding(
            event.binding,
            event.a,
            event.b,
            event.x,
            event.done,
            until,
            event.line,
            rests and event.line not in unsteady,
        )
        if event.op == "change":
            changed.append(holding)
            continue
        earlier = held.get(event.binding)
        if earlier is not None and (earlier.x, earlier.a, earlier.b) != (holding.x, holding.a, holding.b):
            violations.append(f"binding {event.binding} was answered with two different X or pairs")
        if earlier is None or event.done < earlier.since:
            held[event.binding] = holding
    return [*held.values(), *changed], violations


def _register(party: str, found: list[Holding], quarantine_s: float, *, sharing: bool) -> Iterator[str]:
    rest_s = max(quarantine_s * (1 - _DRIFT) - _DRIFT, 0.0)
    found.sort(key=lambda one: one.since)
    # No holding before place i can matter for a later one once even the longest of them has ended and rested.
    latest = list(accumulate((one.until + rest_s for one in found), max))
    for place, later in enumerate(found):
        before = place - 1
        while before >= 0 and latest[before] > later.since:
            earlier = found[before]
            before -= 1
            if earlier.line is not None and earlier.line == later.line:
                continue  # the kept party of a change goes on, and one who comes back to it is no stranger
            same = earlier.counterpart(party) == later.counterpart(party)
            if same and sharing:
                continue
            rest, other_rest = (rest_s if not same and earlier.rests and later.rests else 0.0,) * 2
            if later.since >= earlier.until + rest or earlier.since >= later.until + other_rest:
                continue
            where = f"party {mask(party)} on X {mask(later.x)}"
            if later.since < earlier.until:
                yield f"held twice: {where} by {earlier.binding} and {later.binding} at the same time"
            else:
                yield (
                    f"quarantine cut short: {where} was given to {later.binding} within "
                    f"{later.since - earlier.until:.3f} s of the release of {earlier.binding} ({quarantine_s:g} s)"
                )


def _cap(x: str, found: list[Holding], cap: int) -> Iterator[str]:
    """Count pairs that certainly hold ``x``; report the first moment above ``cap``."""
    changes: list[tuple[float, bool, Holding]] = []
    for one in found:
        if one.until > one.since:
            changes.extend(((one.since, True, one), (one.until, False, one)))
    # At the same instant the end goes first: only what surely overlaps counts.
    changes.sort(key=lambda change: change[:2])
    live: Counter[frozenset[str]] = Counter()
    for _, begins, one in changes:
        if not begins:
            live[one.pair()] -= 1
            if not live[one.pair()]:
                del live[one.pair()]
            continue
        live[one.pair()] += 1
        if len(live) > cap:
            yield f"cap exceeded: X {mask(x)} held {len(live)} lines at once (cap {cap}) when {one.binding} came"
            return

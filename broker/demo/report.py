"""What came of the hour: counted while it is played, told at the end."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from broker.demo.city import Hour
from broker.demo.truth import Verdict

_P50, _P99 = 0.5, 0.99


@dataclass(frozen=True, slots=True)
class PoolLook:
    """The pool at one moment: X that carry lines, and the fewest that any choice could do with (X*)."""

    as_of: str
    live: int
    in_use: int
    needed: int

    def ratio(self) -> float:
        """X in use against X*."""
        return self.in_use / max(self.needed, 1)


@dataclass(slots=True)
class Tally:
    """Everything that is counted."""

    bind_ms: list[float] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    released: set[int] = field(default_factory=set)
    expired: set[int] = field(default_factory=set)
    calls: Counter[Verdict] = field(default_factory=Counter)
    #: The platform's name of a share's line.
    subscriptions: dict[int, str] = field(default_factory=dict)
    #: The X of a share.
    x: dict[int, str] = field(default_factory=dict)
    looks: list[PoolLook] = field(default_factory=list)
    #: Events of the feed by their type.
    heard: Counter[str] = field(default_factory=Counter)

    def bound(self) -> int:
        """Binds that were confirmed."""
        return len(self.subscriptions)

    def live(self) -> int:
        """Confirmed, and not known to be over."""
        return self.bound() - len(self.released) - len(self.expired)

    def look(self, seen: PoolLook) -> None:
        """Take in a look at the pool unless it is older than the last: each process of the broker keeps its own."""
        if not self.looks or seen.as_of > self.looks[-1].as_of:
            self.looks.append(seen)

    def most(self) -> PoolLook:
        """What the hour took: the most X in use at any moment, and the largest X*."""
        return PoolLook(
            "",
            max((look.live for look in self.looks), default=0),
            max((look.in_use for look in self.looks), default=0),
            max((look.needed for look in self.looks), default=0),
        )

    def worst(self) -> PoolLook:
        """The moment at which X in use was furthest above X*."""
        return max(self.looks, key=PoolLook.ratio, default=PoolLook("", 0, 0, 0))


@dataclass(frozen=True, slots=True)
class PlatformCalls:
    """Platform calls by what became of the binding. ``others`` name no binding of ours that was confirmed."""

    by_operation: Mapping[str, int]
    expired: float
    released: float
    others: int


def platform_calls(rows: Iterable[Mapping[str, Any]], hour: Hour, tally: Tally) -> PlatformCalls:
    """Attribute the platform's ledger to shares. A call of a line that several shares use counts in equal parts."""
    by_line: dict[str, list[int]] = defaultdict(list)
    by_pair: dict[frozenset[str], list[int]] = defaultdict(list)
    for no, subscription in tally.subscriptions.items():
        share = hour.shares[no]
        by_line[subscription].append(no)
        by_pair[frozenset((share.a, share.b))].append(no)
    asked = {(share.a, share.b) for share in hour.shares}
    seen: set[int] = set()
    spent: Counter[int] = Counter()
    operations: Counter[str] = Counter()
    parts: dict[int, float] = defaultdict(float)
    others = 0
    for row in rows:
        if row["request"] is None or row["request"] in seen:
            continue
        users = by_line.get(row["subscription_id"] or "") or by_pair.get(frozenset((row["a"], row["b"])))
        if not users and (row["a"], row["b"]) not in asked:
            others += row["op"] in {"query", "unbind", "modify"}
            continue
        seen.add(row["request"])
        operations[row["op"]] += 1
        if not users:
            others += 1
            continue
        spent[len(users)] += 1
        for no in users:
            parts[no] += 1 / len(users)
    return PlatformCalls(dict(operations), _mean(parts, tally.expired), _mean(parts, tally.released), others)


def _mean(parts: Mapping[int, float], shares: set[int]) -> float:
    return sum(parts[no] for no in shares) / len(shares) if shares else 0.0


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value that ``share`` of them do not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0


def report(hour: Hour, tally: Tally, calls: PlatformCalls, *, seed: int, clock: str) -> dict[str, Any]:
    """Return the whole as JSON has it."""
    most, worst = tally.most(), tally.worst()
    return {
        "seed": seed,
        "clock": clock,
        "city": {
            "couriers": hour.couriers, "shops": hour.shops, "customers": hour.customers, "orders": hour.orders,
        },
        "bindings": {
            "bound": tally.bound(), "refused": dict(tally.refused), "released": len(tally.released),
            "expired": len(tally.expired), "live": tally.live(),
        },
        "platform_calls": {
            "per_expired_order": round(calls.expired, 3), "per_released_order": round(calls.released, 3),
            "by_operation": dict(calls.by_operation), "others": calls.others,
        },
        "bind_ms": {
            "p50": round(quantile(tally.bind_ms, _P50), 1), "p99": round(quantile(tally.bind_ms, _P99), 1),
        },
        "calls": {
            "placed": tally.calls.total(), "reached_right": tally.calls[Verdict.RIGHT],
            "rightly_nobody": tally.calls[Verdict.NOBODY], "missed": tally.calls[Verdict.MISSED],
            "wrong_person": tally.calls[Verdict.WRONG],
        },
        "feed": {
            "events": tally.heard.total(), "calls_started": tally.heard["call.started"],
            "calls_answered": tally.heard["call.answered"], "calls_ended": tally.heard["call.ended"],
            "cdrs": tally.heard["cdr.created"],
        },
        "x": {
            "in_use": most.in_use, "needed": most.needed, "ratio": round(most.ratio(), 3),
            "used_in_all": len(set(tally.x.values())), "live_lines": most.live,
            "worst_moment": {"in_use": worst.in_use, "needed": worst.needed, "ratio": round(worst.ratio(), 3)},
            "looks": len(tally.looks),
        },
    }  # fmt: skip


def lines(told: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the report for people: what, and how much."""
    city, bindings, calls, x = told["city"], told["bindings"], told["calls"], told["x"]
    refused = ", ".join(f"{count} {code}" for code, count in bindings["refused"].items()) or "none"
    spent, worst, feed = told["platform_calls"], x["worst_moment"], told["feed"]
    ended = f"{bindings['released']} released, {bindings['expired']} expired"
    return [
        ("city", f"{city['couriers']} couriers, {city['shops']} shops, {city['customers']} customers"),
        ("orders", str(city["orders"])),
        ("bindings", f"{bindings['bound']} ({ended}, {bindings['live']} live)"),
        ("refused", refused),
        ("X in use / X*, most of the hour", f"{x['in_use']} / {x['needed']} = {x['ratio']:.2f}"),
        ("X in use / X*, worst moment", f"{worst['in_use']} / {worst['needed']} = {worst['ratio']:.2f}"),
        ("X used in all", f"{x['used_in_all']}, for {x['live_lines']} lines at most"),
        ("platform calls per expired order", f"{spent['per_expired_order']:.2f}"),
        ("platform calls per released order", f"{spent['per_released_order']:.2f}"),
        ("bind p50 / p99", f"{told['bind_ms']['p50']:.0f} / {told['bind_ms']['p99']:.0f} ms"),
        ("calls placed", str(calls["placed"])),
        ("reached the right person", str(calls["reached_right"])),
        ("reached nobody, rightly", str(calls["rightly_nobody"])),
        ("reached nobody, wrongly", str(calls["missed"])),
        ("wrong persons reached", str(calls["wrong_person"])),
        ("told: events", str(feed["events"])),
        ("told: calls answered / ended", f"{feed['calls_answered']} / {feed['calls_ended']}"),
        ("told: records", str(feed["cdrs"])),
    ]  # fmt: skip

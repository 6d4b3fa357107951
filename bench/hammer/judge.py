"""Whether a mode's rules were kept, from what was written down while they were hammered. Pure: no I/O.

A *stay* is somebody behind a place for a while. Of AX, AXYB and X with one party the place is the X, of AXE the X with
the extension, of a pair the X with either party (who is behind it is then the other one), of a relation of AXYB the Y
of that X. Phone numbers are masked in what is said.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from broker.domain.phone import mask

#: Clocks of the emulator's ledger have milliseconds.
_ROUNDING_S: Final = 0.002
_NEVER: Final = float("inf")

Place = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Stay:
    """``who`` is behind ``place`` of X ``x`` by ``line`` from ``since`` to ``until`` (seconds since 1970).

    ``a`` has the X; a party that ends a stay by changing, and one that comes so, are of the same line.
    """

    x: str
    place: Place
    who: str
    a: str
    line: str
    since: float
    until: float = _NEVER


def judge(stays: Iterable[Stay], *, rest_s: float, most: int | None) -> list[str]:
    """Return every violation in words; ``most`` = how many X an A may have at a time."""
    places: dict[Place, list[Stay]] = {}
    parties: dict[str, list[Stay]] = {}
    for stay in stays:
        places.setdefault(stay.place, []).append(stay)
        parties.setdefault(stay.a, []).append(stay)
    violations: list[str] = []
    for found in places.values():
        violations.extend(_place(sorted(found, key=lambda one: one.since), rest_s))
    if most is not None:
        for found in parties.values():
            violations.extend(_limit(found, most))
    return violations


@dataclass(frozen=True, slots=True)
class _Visit:
    """All that one line did on a place in a row: ``came`` first, ``left`` last. Changes in between owe no rest."""

    line: str
    since: float
    until: float
    came: str
    left: str


def _visits(found: Sequence[Stay]) -> list[_Visit]:
    visits: list[_Visit] = []
    for stay in found:
        last = visits[-1] if visits else None
        if last is not None and last.line == stay.line:
            visits[-1] = replace(last, until=max(last.until, stay.until), left=stay.who)
        else:
            visits.append(_Visit(stay.line, stay.since, stay.until, stay.who, stay.who))
    return visits


def _place(found: Sequence[Stay], rest_s: float) -> Iterator[str]:
    """Compare each visit with the one before that left last: its party alone may come back before the rest is over."""
    where = f"X {mask(found[0].x)} {_rest_of(found[0])}"
    last: _Visit | None = None
    for later in _visits(found):
        if last is not None and later.since < last.until - _ROUNDING_S:
            yield f"held twice: {where} by line {last.line} and line {later.line} at the same time"
        elif last is not None and last.left != later.came and later.since < last.until + rest_s - _ROUNDING_S:
            yield (
                f"quarantine cut short: {where} was given to line {later.line} "
                f"{later.since - last.until:.3f} s after line {last.line} ({rest_s:g} s)"
            )
        if last is None or later.until > last.until:
            last = later


def _rest_of(stay: Stay) -> str:
    """Say what else than X the place is; parties of our own books are keys."""
    parts = stay.place[1:]
    return " ".join(mask(part) if part.startswith("+") else part for part in parts if part)


def _limit(found: Sequence[Stay], most: int) -> Iterator[str]:
    """Count the X of one A; report the first moment above ``most``."""
    lasting = [one for one in found if one.until > one.since]
    changes = [(one.since, 1, one) for one in lasting] + [(one.until, -1, one) for one in lasting]
    # At the same instant the end goes first: only what surely overlaps counts.
    changes.sort(key=lambda change: change[:2])
    held: dict[str, int] = {}
    for _, step, one in changes:
        held[one.x] = held.get(one.x, 0) + step
        if not held[one.x]:
            del held[one.x]
        if len(held) > most:
            yield f"limit exceeded: one A was behind {len(held)} X at once (at most {most}) when line {one.line} came"
            return


def from_ledger(rows: Iterable[Mapping[str, Any]], app_key: str) -> list[Stay]:
    """Return who was behind what at the platform, by its effects in their order."""
    open_: dict[str, list[Stay]] = {}
    stays: list[Stay] = []
    for row in rows:
        if row["app_key"] != app_key or row["result_code"] != "0" or "serial" not in row:
            continue
        at, subscription = _seconds(row["at"]), row["subscription_id"]
        if row["op"] in {"bind", "modify", "unbind", "expire"}:
            stays.extend(replace(one, until=at) for one in open_.pop(subscription, ()))
        if row["op"] in {"bind", "modify"}:
            open_[subscription] = list(_of_effect(row, at))
    return stays + [one for left in open_.values() for one in left]


def _of_effect(row: Mapping[str, Any], at: float) -> Iterator[Stay]:
    x, a, b = row["x"], row["a"], row["b"]
    line = str(row["user_data"] or row["subscription_id"]).partition(".")[0]
    if row["mode"] == "axb":
        yield Stay(x, (x, a), b, a, line, at)
        yield Stay(x, (x, b), a, a, line, at)
    elif row["y"]:
        # A relation has no line of its own; its A has X already.
        yield Stay(x, (x, row["y"]), b, a, f"{line}/{row['subscription_id']}", at)
    else:
        yield Stay(x, (x, row["extension"] or ""), a, a, line, at)


def from_history(rows: Iterable[Mapping[str, Any]]) -> list[Stay]:
    """Return who was behind what by our own books: rows of ``held`` and of lines that live, parties as keys."""
    return [stay for row in rows for stay in _of_row(row)]


def _of_row(row: Mapping[str, Any]) -> Iterator[Stay]:
    x, a, line = row["x"], str(row["a_key"]), row["line_id"].hex
    since, until = row["since"].timestamp(), row["until"].timestamp() if row["until"] else _NEVER
    if row["b_key"] is None:
        yield Stay(x, (x, str(row["extension"] or "")), a, a, line, since, until)
        return
    b = str(row["b_key"])
    yield Stay(x, (x, a), b, a, line, since, until)
    yield Stay(x, (x, b), a, a, line, since, until)


def refused(rows: Iterable[Mapping[str, Any]], app_key: str) -> list[str]:
    """Return what the platform refused: where we choose the place and count A's X, it has no reason to."""
    return [
        f"the platform refused to {row['op']} line {str(row['user_data']).partition('.')[0]} with {row['result_code']}"
        for row in rows
        if row["app_key"] == app_key and row["op"] in {"bind", "modify"} and row["result_code"] not in {"0", None}
    ]


@dataclass(frozen=True, slots=True)
class Relation:
    """In mode AXYB: the A of X reaches B by dialling Y."""

    x: str
    y: str
    b: str

    def __str__(self) -> str:
        """Say it without numbers."""
        return f"X {mask(self.x)}, Y {mask(self.y)}, B {mask(self.b)}"


def relations_at(live: Iterable[Mapping[str, Any]], app_key: str) -> set[Relation]:
    """Return the relations among the bindings that the platform holds now."""
    return {Relation(one["x"], one["y"], one["b"]) for one in live if one["y"] and one["app_key"] == app_key}


def unequal(ours: AbstractSet[Relation], theirs: AbstractSet[Relation]) -> list[str]:
    """Return the relations that only one side knows."""
    lost = [f"a peer is active and the platform does not hold it: {one}" for one in ours - theirs]
    return lost + [f"the platform holds a relation that is no active peer: {one}" for one in theirs - ours]


def _seconds(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()

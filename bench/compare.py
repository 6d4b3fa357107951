"""Two results side by side: what changed, and whether the runs' own spread lets anybody say so.

A figure has changed if all runs of one side lie beyond all runs of the other, and the medians are at least 3 % apart.
With three runs a side that happens by chance once in ten times, with five once in 126: run more where it matters.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import orjson

from bench.stack import BenchError

LEAST_CHANGE: Final = 0.03
_LEAST_RUNS: Final = 3

Verdict = Literal["better", "worse", "same", "too few runs"]

#: What is compared: how to read it from a run, and whether more of it is better.
FIGURES: Final[Mapping[str, tuple[Callable[[Any], Any], bool]]] = {
    "confirmed/s": (lambda run: run["confirmed_per_s"], True),
    "p50 ms": (lambda run: run["latency_ms"].get("p50"), False),
    "p99 ms": (lambda run: run["latency_ms"].get("p99"), False),
    "service CPU us": (lambda run: run["cost"]["cpu_us"]["workers"], False),
    "postgres CPU us": (lambda run: run["cost"]["cpu_us"]["postgres"], False),
    "WAL bytes": (lambda run: run["cost"]["wal_bytes"], False),
    "SQL round trips": (lambda run: run["cost"]["sql_flights"], False),
}


@dataclass(frozen=True, slots=True)
class Change:
    """One figure of both sides, and the verdict."""

    name: str
    old: tuple[float, ...]
    new: tuple[float, ...]
    verdict: Verdict

    @property
    def ratio(self) -> float:
        """Return the new median by the old one."""
        return statistics.median(self.new) / statistics.median(self.old)


def verdict(old: Sequence[float], new: Sequence[float], *, more_is_better: bool) -> Verdict:
    """Say what changed; see the module for the rule."""
    if min(len(old), len(new)) < _LEAST_RUNS:
        return "too few runs"
    apart = min(new) > max(old) or max(new) < min(old)
    ratio = statistics.median(new) / statistics.median(old)
    if not apart or abs(ratio - 1) < LEAST_CHANGE:
        return "same"
    return "better" if (ratio > 1) == more_is_better else "worse"


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """Return the figures that both results have."""
    found = []
    for name, (value, more_is_better) in FIGURES.items():
        sides = [_values(side["runs"], value) for side in (old, new)]
        if all(sides):
            was, now = sides
            found.append(Change(name, was, now, verdict(was, now, more_is_better=more_is_better)))
    return found


def _values(runs: Sequence[Mapping[str, Any]], value: Callable[[Any], Any]) -> tuple[float, ...]:
    try:
        found = [value(run) for run in runs]
    except KeyError:
        return ()
    return tuple(float(one) for one in found if one)


def remarks(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Say in what else the two differ: figures of other loads or machines compare nothing."""
    found = [
        f"{what} differs: {old[what]} against {new[what]}"
        for what in ("name", "given")
        if old.get(what) != new.get(what)
    ]
    found += [
        f"{what} differs: {old['machine'][what]} against {new['machine'][what]}"
        for what in ("cpu", "cores", "kernel")
        if old["machine"].get(what) != new["machine"].get(what)
    ]
    return found + [
        f"{side['name']} has {len(side['violations'])} violations" for side in (old, new) if side["violations"]
    ]


def read_result(path: Path) -> dict[str, Any]:
    """Read what ``bench run --json`` has printed.

    Raises:
        BenchError: it is something else.
    """
    try:
        result = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise BenchError(f"{path}: {error}") from None
    if not isinstance(result, dict) or not {"name", "runs", "machine", "violations"} <= result.keys():
        raise BenchError(f"{path} is no result of `bench run --json`.")
    return result


def table(changes: Sequence[Change], more: Sequence[str]) -> str:
    """Return it for people."""
    lines = [f"{'':<18}{'old':>10} {'(spread)':<20}{'new':>10} {'(spread)':<20}{'ratio':>7}  verdict"]
    for one in changes:
        sides = "".join(
            f"{statistics.median(side):>10.1f} {f'({min(side):.1f}-{max(side):.1f})':<20}"
            for side in (one.old, one.new)
        )
        lines.append(f"{one.name:<18}{sides}{one.ratio:>7.2f}  {one.verdict}")
    return "\n".join([*lines, *(f"note: {words}" for words in more)])

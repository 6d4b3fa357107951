"""From what the clients saw to rates and latencies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from hdrh.histogram import HdrHistogram

from bench.history import Operation

#: From 1 µs to 5 minutes with three significant digits.
_LOWEST_US, _HIGHEST_US, _DIGITS = 1, 300_000_000, 3
#: libuv's timers have steps of 1 ms; a start later than this is the load's fault or the connections'.
_LATE_S = 0.005

Sample = tuple[float, Operation]


def histogram(seconds: Iterable[float]) -> HdrHistogram:
    """Return the latencies as a histogram of microseconds."""
    made = HdrHistogram(_LOWEST_US, _HIGHEST_US, _DIGITS)
    for one in seconds:
        made.record_value(min(max(round(one * 1e6), _LOWEST_US), _HIGHEST_US))
    return made


def percentiles(made: HdrHistogram) -> dict[str, float]:
    """Return milliseconds by name."""
    if not made.get_total_count():
        return {}
    named = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99_9": 99.9}
    found = {name: made.get_value_at_percentile(at) / 1e3 for name, at in named.items()}
    return {**found, "max": made.get_max_value() / 1e3, "mean": round(made.get_mean_value() / 1e3, 3)}


def closed_window(samples: Sequence[Sample], begin: float, end: float) -> dict[str, Any]:
    """Return what was answered within the window."""
    inside = [one for one in samples if begin <= one[1].done < end]
    return _figures(inside, end - begin)


def open_window(samples: Sequence[Sample], begin: float, end: float) -> dict[str, Any]:
    """Return what was meant to start within the window, whenever it was answered."""
    inside = [one for one in samples if begin <= one[0] < end]
    figures = _figures(inside, end - begin)
    binds = [(intended, event) for intended, event in inside if event.op == "bind"]
    sent = [event.invoked - intended for intended, event in binds if event.status or event.outcome == "unknown"]
    figures["intended"] = len(binds)
    figures["unsent"] = len(binds) - len(sent)
    figures["sent_late"] = sum(late > _LATE_S for late in sent)
    figures["send_lag_ms"] = percentiles(histogram(sent))
    return figures


def _figures(inside: Sequence[Sample], seconds: float) -> dict[str, Any]:
    binds = [(intended, event) for intended, event in inside if event.op == "bind"]
    releases = [event for _, event in inside if event.op == "release"]
    confirmed = sum(event.outcome == "ok" for _, event in binds)
    return {
        "seconds": round(seconds, 3),
        "confirmed": confirmed,
        "confirmed_per_s": round(confirmed / seconds, 1),
        "not_201": _by_status(event for _, event in binds if event.outcome != "ok"),
        "latency_ms": percentiles(histogram(event.done - intended for intended, event in binds)),
        "released": sum(event.outcome == "ok" for event in releases),
        "release_not_200": _by_status(event for event in releases if event.outcome != "ok"),
        "release_latency_ms": percentiles(histogram(event.done - event.invoked for event in releases)),
        **{name: _others(inside, op) for op, name in (("read", "reads"), ("change", "changes")) if _has(inside, op)},
    }


def _has(inside: Sequence[Sample], op: str) -> bool:
    return any(event.op == op for _, event in inside)


def _others(inside: Sequence[Sample], op: str) -> dict[str, Any]:
    events = [event for _, event in inside if event.op == op]
    return {
        "ok": sum(event.outcome == "ok" for event in events),
        "not_ok": _by_status(event for event in events if event.outcome != "ok"),
        "latency_ms": percentiles(histogram(event.done - event.invoked for event in events)),
    }


def _by_status(events: Iterable[Operation]) -> dict[str, int]:
    """Count by HTTP status; "lost" = the connection ended, or the request was never sent."""
    return dict(sorted(Counter(str(event.status) if event.status else "lost" for event in events).items()))

"""The emulator's own clock and the forms in which the wire and the admin port write time."""

from __future__ import annotations

import functools
import time
from datetime import UTC, datetime


class EmulatorClock:
    """Wall-clock milliseconds plus what ``POST /emulator/clock`` added. Flow control does not use it."""

    __slots__ = ("offset_ms",)

    def __init__(self) -> None:
        self.offset_ms = 0

    def now_ms(self) -> int:
        """Milliseconds since 1970 on the emulator's clock."""
        return time.time_ns() // 1_000_000 + self.offset_ms


# A busy second formats its date once; a ledger row needs a second one, the expiry's.
@functools.lru_cache(maxsize=4_096)
def _date_and_time(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S.")


@functools.lru_cache(maxsize=16)
def _http_date(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")


def rfc3339(ms: int) -> str:
    """Return ``2024-05-13T05:24:57.123Z``."""
    return f"{_date_and_time(ms // 1000)}{ms % 1000:03d}Z"


def from_rfc3339(text: str) -> int:
    """Return the milliseconds of a text that :func:`rfc3339` wrote."""
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def subscribe_time(ms: int) -> str:
    """Return ``2024-05-13 05:24:57``: contract 2.4."""
    return datetime.fromtimestamp(ms // 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def http_date(ms: int) -> str:
    """Return the value of a ``Date`` header; drivers measure our clock by it."""
    return _http_date(ms // 1000)


def created_ms(text: str) -> int | None:
    """Return the milliseconds of a ``Created`` attribute, ``None`` unless it reads ``2018-02-12T15:30:20Z``."""
    try:
        parsed = datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ")  # noqa: DTZ007 - the literal Z says UTC
    except ValueError:
        return None
    return int(parsed.replace(tzinfo=UTC).timestamp()) * 1000

"""Flow control per app and the block of source addresses that keep failing authentication."""

from __future__ import annotations

from collections import deque


class Bucket:
    """Admits at most ``burst + rate * T`` requests in any window of T seconds. Times are monotonic seconds."""

    __slots__ = ("_at", "_level", "burst", "rate")

    def __init__(self, rate: float, burst: float) -> None:
        self.rate = rate
        self.burst = burst
        self._level = burst
        self._at: float | None = None

    def admit(self, now: float) -> bool:
        """Take one token, or leave the bucket as it is and refuse."""
        if self._at is not None:
            self._level = min(self.burst, self._level + (now - self._at) * self.rate)
        self._at = now
        if self._level < 1:
            return False
        self._level -= 1
        return True


class SourceBlock:
    """Counts bad digests per address on the emulator's clock: 403/1020176 blocks the address, not the app."""

    def __init__(self, *, after: int, window_s: float, block_s: float) -> None:
        self._after = after
        self._window_ms = window_s * 1000
        self._block_ms = block_s * 1000
        self._failures: dict[str, deque[int]] = {}
        self._blocked: dict[str, float] = {}

    def blocked(self, source: str, now_ms: int) -> bool:
        """Say whether every request of ``source`` is to be refused now."""
        if not self._blocked:
            return False
        until = self._blocked.get(source)
        if until is None:
            return False
        if now_ms < until:
            return True
        del self._blocked[source]
        return False

    def failed(self, source: str, now_ms: int) -> bool:
        """Count one bad digest; ``True`` when it is the one that blocks the address."""
        if not self._after:
            return False
        failures = self._failures.setdefault(source, deque(maxlen=self._after))
        failures.append(now_ms)
        if len(failures) < self._after or now_ms - failures[0] > self._window_ms:
            return False
        del self._failures[source]
        self._blocked[source] = now_ms + self._block_ms
        return True

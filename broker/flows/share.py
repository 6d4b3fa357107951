"""How work that can wait gives way to what cannot."""

from __future__ import annotations

from typing import Final

#: Of the time, while more comes than can be worked off anyway.
_LEAST_SHARE: Final = 0.1
_LONGEST_PAUSE_S: Final = 0.5
#: After a small batch the next one waits for company, so many times as long as the batch took, but at most so long.
_COMPANY_TIMES: Final = 10.0
_LONGEST_WAIT_S: Final = 0.1
#: A queue so short is worked off whatever comes.
_SHORT: Final = 1000
#: How fast the memory of how fast it goes, and how much comes, fades: in batches, in seconds.
_BATCHES: Final = 8
_SECONDS: Final = 2.0
_LEAST: Final = 25


class Share:
    """Says how long to pause after a batch of what has been put off, and how large the next one may be.

    As long as the work goes faster than new work comes it only waits for company: few large batches cost less than many
    small ones, and nobody misses an effect for a tenth of a second. When it does not, hurrying would not make the queue
    shorter either: then it gets a tenth of the time, in small batches, and is worked off when the crowd is gone.
    """

    def __init__(self, most: int, now: float) -> None:
        """``most`` items are in a batch."""
        self._most = most
        self._rate = 0.0
        self._took_s = 0.0
        self._done = 0.0
        self._came = 0
        self._since = now
        self.crowded = False

    @property
    def size(self) -> int:
        """How many items the next batch may have."""
        return _LEAST if self.crowded else self._most

    def came(self, number: int) -> None:
        """Take in that there is new work."""
        self._came += number

    def pause_s(self, done: int, took_s: float, waiting: int, now: float) -> float:
        """Take in that a batch is done; return how long to leave everything to others."""
        fade = 1 - 1 / _BATCHES
        self._done = self._done * fade + done
        self._took_s = self._took_s * fade + took_s
        passed_s = max(now - self._since, 1e-6)
        if passed_s >= _SECONDS / 4:
            weight = min(passed_s / _SECONDS, 1.0)
            self._rate += (self._came / passed_s - self._rate) * weight
            self._came, self._since = 0, now
        speed = self._done / self._took_s if self._took_s > 0 else float("inf")
        self.crowded = waiting > _SHORT and self._rate > speed
        if self.crowded:
            return min(took_s * (1 / _LEAST_SHARE - 1), _LONGEST_PAUSE_S)
        return min(took_s * _COMPANY_TIMES, _LONGEST_WAIT_S) if waiting < self._most // 2 else 0.0

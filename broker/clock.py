"""Process clocks. What instances compare among themselves is the database's clock (``broker_now()`` in SQL), not these.

``boottime`` counts the time a machine or process was suspended, which ``time.monotonic`` does not on Linux for a
suspended machine: leases are judged on it.
"""

from __future__ import annotations

import time

if hasattr(time, "CLOCK_BOOTTIME"):

    def boottime() -> float:
        """Seconds since boot, suspension included."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

else:  # pragma: no cover - macOS: its monotonic clock is the nearest thing

    def boottime() -> float:
        """Seconds on the monotonic clock."""
        return time.monotonic()

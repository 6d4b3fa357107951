"""Named places where a test may kill or freeze this process: ``BROKER_TEST_CRASH_AT=place:kill|stop:nth``.

Off (one dictionary look-up) unless the variable is set.
"""

from __future__ import annotations

import os
import signal

PLACES = ("after_commit", "after_send", "after_answer", "before_settle", "mid_drain")


class _Plan:
    def __init__(self, spec: str) -> None:
        place, action, nth = spec.split(":")
        if place not in PLACES or action not in {"kill", "stop"}:
            raise ValueError(f"BROKER_TEST_CRASH_AT must be PLACE:kill|stop:NTH with PLACE of {', '.join(PLACES)}")
        self.place = place
        self.signal = signal.SIGKILL if action == "kill" else signal.SIGSTOP
        self.left = int(nth)


_plan = _Plan(os.environ["BROKER_TEST_CRASH_AT"]) if os.environ.get("BROKER_TEST_CRASH_AT") else None


def crashpoint(place: str) -> None:
    """End or freeze this process if the plan says: at the nth passing of ``place``."""
    if _plan is None or _plan.place != place or _plan.left <= 0:
        return
    _plan.left -= 1
    if _plan.left == 0:
        os.kill(os.getpid(), _plan.signal)

"""Named places where a test may kill or freeze this process: ``BROKER_TEST_CRASH_AT=PLACE:kill|stop:NTH``.

With ``TEST_CRASH_ONCE=FILE`` as well, of all processes that share the file only the first one to get there is hit, and
only once: it makes the file, with its process id in it. While the file is there nobody counts; once it is taken away
all begin anew. Off (one comparison) unless the first variable is set.
"""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

PLACES = (
    "in_batch",
    "after_commit",
    "before_send",
    "after_send",
    "after_answer",
    "before_settle",
    "after_intent",
    "after_outcome",
    "mid_drain",
    "in_sweep",
    "in_audit",
    "in_evacuation",
)


class _Plan:
    def __init__(self, spec: str) -> None:
        place, action, nth = spec.split(":")
        if place not in PLACES or action not in {"kill", "stop"}:
            raise ValueError(f"BROKER_TEST_CRASH_AT must be PLACE:kill|stop:NTH with PLACE of {', '.join(PLACES)}")
        self.place = place
        self.signal = signal.SIGKILL if action == "kill" else signal.SIGSTOP
        self.nth = self.left = int(nth)
        self.once = Path(os.environ["TEST_CRASH_ONCE"]) if os.environ.get("TEST_CRASH_ONCE") else None

    def passed(self) -> None:
        """Count a passing; the nth one hits."""
        if self.once is not None and self.once.exists():
            self.left = self.nth
            return
        self.left -= 1
        if self.left == 0 and self._is_ours():
            os.kill(os.getpid(), self.signal)

    def _is_ours(self) -> bool:
        if self.once is None:
            return True
        try:
            file = os.open(self.once, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return False
        os.write(file, str(os.getpid()).encode())
        os.close(file)
        return True


_plan = _Plan(os.environ["BROKER_TEST_CRASH_AT"]) if os.environ.get("BROKER_TEST_CRASH_AT") else None


def crashpoint_when_written(place: str) -> None:
    """Have this turn of the loop end first, in which what is written now leaves, and then pass ``place``."""
    if _plan is not None:
        asyncio.get_running_loop().call_soon(crashpoint, place)


def crashpoint(place: str) -> None:
    """End or freeze this process if the plan says: at the nth passing of ``place``."""
    if _plan is not None and _plan.place == place:
        _plan.passed()

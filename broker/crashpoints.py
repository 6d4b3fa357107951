"""Named places where a test may kill or freeze this process: ``BROKER_TEST_CRASH_AT=PLACE:kill|stop:NTH[:FLAGFILE]``.

With a flag file, of all processes that share it only the first one to get there is hit, and only once: it makes the
file, with its process id in it. Off (one comparison) unless the variable is set.
"""

from __future__ import annotations

import os
import signal

PLACES = ("after_commit", "after_send", "after_answer", "before_settle", "mid_drain")


class _Plan:
    def __init__(self, spec: str) -> None:
        place, action, nth, *flag = spec.split(":", 3)
        if place not in PLACES or action not in {"kill", "stop"}:
            raise ValueError(
                "BROKER_TEST_CRASH_AT must be PLACE:kill|stop:NTH[:FLAGFILE] with PLACE of " + ", ".join(PLACES)
            )
        self.place = place
        self.signal = signal.SIGKILL if action == "kill" else signal.SIGSTOP
        self.left = int(nth)
        self.flag = flag[0] if flag else None

    def is_ours(self) -> bool:
        """Tell whether this process is the one to be hit."""
        if self.flag is None:
            return True
        try:
            file = os.open(self.flag, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return False
        os.write(file, str(os.getpid()).encode())
        os.close(file)
        return True


_plan = _Plan(os.environ["BROKER_TEST_CRASH_AT"]) if os.environ.get("BROKER_TEST_CRASH_AT") else None


def crashpoint(place: str) -> None:
    """End or freeze this process if the plan says: at the nth passing of ``place``."""
    if _plan is None or _plan.place != place or _plan.left <= 0:
        return
    _plan.left -= 1
    if _plan.left == 0 and _plan.is_ours():
        os.kill(os.getpid(), _plan.signal)

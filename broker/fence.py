"""Ends this process rather than let a request leave that it has lost the right to send.

Between the last look at a lease and the kernel's having the bytes lies the rest of one turn of the loop. A process that
is frozen right there and wakes when others have carried its call out would send it all the same: no look of its own at
a clock can prevent that. A timer of the kernel can: its signal is delivered before a stopped process runs on.
"""

from __future__ import annotations

import asyncio
import signal


class Fence:
    """A timer that kills this process; it runs from the look at a lease until the loop has turned once.

    It counts running time: of a whole machine that was suspended in just that turn it knows nothing.
    """

    def __init__(self, after_s: float) -> None:
        """``after_s``: less than the lease that the look demands. SIGALRM must be nobody else's."""
        self._after_s = after_s
        self._armed = False

    def arm(self) -> None:
        """Call it before the look: what is written in this turn of the loop leaves in time, or never."""
        if self._armed:
            return  # the turn's first look counts
        self._armed = True
        signal.setitimer(signal.ITIMER_REAL, self._after_s)
        # What is written now is handed to the kernel at the end of this turn, before anything of the next one.
        asyncio.get_running_loop().call_soon(self._disarm)

    def _disarm(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._armed = False

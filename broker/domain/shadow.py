"""Shadow: another system binds, and our lines are predictions. What tells them, and how fresh one's belief must be."""

from __future__ import annotations

from typing import Final

#: How the id of a prediction begins; no platform gives out such a one.
PREFIX: Final = "shadow-"
#: Why an app is suspended while it goes into shadow or leaves it; the schema knows the word, too.
SWITCHING: Final = "cut-over"
#: Nothing goes out by a process that has not confirmed its configuration for so long.
FRESH_S: Final = 10.0
#: How long an app is suspended before it is switched: whoever may send by then knows of that, and a moment more.
SETTLE_S: Final = FRESH_S + 2.0
#: Modes in which a prediction means something: we choose, and the platform holds.
MODES: Final = frozenset({"axb", "ax", "axe"})


def predicted(subscription_id: str | None) -> bool:
    """Tell whether a line was never bound."""
    return subscription_id is not None and subscription_id.startswith(PREFIX)

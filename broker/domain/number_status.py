"""What the platform says of an X number (contract 6.7, 7.4), and what follows from all that it has said.

Pushes arrive up to five hours late and in any order, so the standing of a number is a function of the set of its
statuses, never of the order in which they came. A "normal" counts only when it was created six hours or more after the
newest other one: closer together nobody can tell which was the later.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Final

#: Pushes are repeated for five hours, and may be signed anew.
LATEST: Final = timedelta(hours=6)

#: Longest of what a push may name; anything longer is cut.
MOST_CHARACTERS: Final = 16

_NORMAL: Final = "5"
_UNAVAILABLE: Final = "10"
_LIFTED: Final = "6"
_WORDS: Final = {"9": "suspended", "10": "unavailable", "11": "binding frozen", "5": "normal"}
_CAUSES: Final = {
    "1": "deleted",
    "2": "arrears",
    "3": "service stopped",
    "5": "restricted by the operator",
    "6": "restriction lifted",
    "7": "unconditional forwarding is active",
}


class Effect(Enum):
    """What one status does to a number."""

    OPENS = "open"
    SUSPENDS = "suspended"  # binding, calls and SMS are refused: whoever is on it must go
    FREEZES = "frozen"  # no new binding; what is there goes on
    NONE = "none"  # of no consequence that we know; kept and shown


@dataclass(frozen=True, slots=True, order=True)
class Status:
    """One push: ``created`` is that of its signature, ``cause`` is empty but with status 10."""

    created: datetime
    status: str
    cause: str = ""

    @property
    def effect(self) -> Effect:
        """What it does. "Restriction lifted" ends nothing by itself: the 5 that follows does."""
        match self.status:
            case "5":
                return Effect.OPENS
            case "9":
                return Effect.SUSPENDS
            case "10":
                return Effect.NONE if self.cause == _LIFTED else Effect.SUSPENDS
            case "11":
                return Effect.FREEZES
            case _:
                return Effect.NONE

    @property
    def words(self) -> str:
        """For people."""
        words = f"platform status {self.status} ({_WORDS.get(self.status, 'not known')}"
        if self.status == _UNAVAILABLE:
            words += f", cause {self.cause or 'not given'}: {_CAUSES.get(self.cause, 'not known')}"
        return words + ")"


@dataclass(frozen=True, slots=True)
class Standing:
    """What follows: the state ``open``, ``frozen`` or ``suspended``; ``reason`` is for people, None when open.

    ``evacuate``: calls to the number are refused, so its bindings must move.
    """

    state: str
    reason: str | None = None
    evacuate: bool = False


def standing(statuses: Iterable[Status], *, since: datetime | None = None) -> Standing:
    """Return what all statuses of a number come to; those created before ``since`` do not count."""
    counted = [one for one in statuses if since is None or one.created >= since]
    closing = max((one for one in counted if one.effect in {Effect.SUSPENDS, Effect.FREEZES}), default=None)
    if closing is None:
        return Standing(Effect.OPENS.value)
    normal = max((one.created for one in counted if one.status == _NORMAL), default=None)
    if normal is not None and normal - closing.created >= LATEST:
        return Standing(Effect.OPENS.value)
    reason = closing.words
    if normal is not None and normal > closing.created:
        reason += f"; normal {_span(normal - closing.created)} later, which is too soon to be sure of the order"
    return Standing(closing.effect.value, reason, evacuate=closing.effect is Effect.SUSPENDS)


def _span(gap: timedelta) -> str:
    minutes = int(gap.total_seconds() // 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"  # noqa: PLR2004 - an hour


#: Result codes that close the X of a bind: it is not the app's (contract 7.4).
NOT_OURS: Final = frozenset({"1011001", "1012001"})
#: One that says of the X, or of a party, that it is on the blacklist.
BLACKLISTED: Final = "1012102"
#: One that closes the app: the account is frozen.
ACCOUNT_FROZEN: Final = "1010029"

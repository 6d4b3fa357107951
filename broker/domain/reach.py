"""Who is reached through an X: the rules of every mode, and why nobody is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from broker.domain.phone import PhoneNumber


class Why(StrEnum):
    """Why somebody is reached, or nobody. The values are stable."""

    BOUND = "bound"
    TEMPORARY_CALLEE = "temporary_callee"
    NO_SUCH_X = "no_such_x"
    NOT_BOUND = "not_bound"
    EXPIRED = "expired"
    PARTY_UNKNOWN = "party_unknown"
    DIRECTION = "direction"
    NO_CALLEE = "no_callee"
    DIGITS_MISSING = "digits_missing"
    OWN_NUMBER = "own_number"
    PENDING = "pending"
    RELEASING = "releasing"
    LAST_CALLER = "last_caller"
    CALLEE_NOT_KEPT = "callee_not_kept"
    NOT_KEPT = "not_kept"
    SHADOW = "shadow"


WORDS: Final = {
    Why.BOUND: "is bound",
    Why.TEMPORARY_CALLEE: "A has named somebody to reach for a while",
    Why.NO_SUCH_X: "this is no X number of ours",
    Why.NOT_BOUND: "nobody is behind this X",
    Why.EXPIRED: "what was behind this X has expired",
    Why.PARTY_UNKNOWN: "the caller is none of those who share this X",
    Why.DIRECTION: "calls in this direction are not allowed",
    Why.NO_CALLEE: "A dials its own X and has named nobody to reach",
    Why.DIGITS_MISSING: "an extension must be dialled",
    Why.OWN_NUMBER: "A dials its own X",
    Why.PENDING: "the platform has not confirmed it yet",
    Why.RELEASING: "it is being released; the platform has not confirmed that yet",
    Why.LAST_CALLER: "A dials X and reaches whoever called last: that the platform knows",
    Why.CALLEE_NOT_KEPT: "A's own call went to a temporary callee, if it had one: that is not kept",
    Why.NOT_KEPT: "what was so long ago is not kept any more",
    Why.SHADOW: "another system binds here: that knows",
}
#: What only the platform, or nobody, can tell.
UNKNOWN: Final = frozenset({Why.PENDING, Why.RELEASING, Why.LAST_CALLER, Why.CALLEE_NOT_KEPT, Why.NOT_KEPT, Why.SHADOW})

#: Cause of the hang-up as the platform would name it in mode X (contract 8.1); 8014 unless it has a better one.
_NO_BINDING: Final = 8014
_STATE_CODES: Final = {Why.DIRECTION: 8016, Why.NO_CALLEE: 8013}


_MOMENT: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?([Zz]|[+-][0-9]{2}:[0-9]{2})", re.ASCII
)


def moment(text: str) -> datetime:
    """Read a time of RFC 3339.

    Raises:
        ValueError: it is none; the message shows the right form.
    """
    try:
        if _MOMENT.fullmatch(text):
            return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise ValueError("must be a time with its zone, as 2026-11-22T12:00:00Z")


def state_code(why: Why) -> int:
    """Return the platform's word for a call of mode X that is refused."""
    return _STATE_CODES.get(why, _NO_BINDING)


@dataclass(frozen=True, slots=True)
class Behind:
    """A line at a moment. ``state`` is empty where the moment is past: it was bound then.

    ``over``: past the line's own end. ``live``: it has bindings that are not; ``bindings`` are those, ``user_data``
    their words. ``ended``: why the last of those that have ended did. ``callee`` is set while it lives.
    """

    pool_id: int
    line_id: UUID
    state: str
    direction: str
    a: PhoneNumber
    b: PhoneNumber | None
    callee: PhoneNumber | None = None
    callee_user_data: str | None = None
    options: str | None = None
    over: bool = False
    live: bool = True
    ended: str | None = None
    bindings: tuple[UUID, ...] = ()
    user_data: tuple[str | None, ...] = ()

    def is_party(self, caller: str) -> bool:
        """Tell whether the caller is one of a pair; a key that matches alone selects nobody."""
        return caller == self.a.reveal() or (self.b is not None and caller == self.b.reveal())


@dataclass(frozen=True, slots=True)
class Reached:
    """Somebody is: ``role`` is a, b or callee (temporary)."""

    line: Behind
    role: str
    party: PhoneNumber

    @property
    def why(self) -> Why:
        """What makes it so."""
        return Why.TEMPORARY_CALLEE if self.role == "callee" else Why.BOUND


def who(line: Behind, caller: str, mode: str) -> Reached | Why:
    """Return whom ``caller`` reaches through the line, or why nobody.

    In mode X we are the platform: a binding that is over reaches nobody. Elsewhere the platform connects for as long
    as the line lives there.
    """
    if line.b is not None and not line.is_party(caller):
        return Why.PARTY_UNKNOWN
    if (not_now := _state(line, ours=mode == "x")) is not None:
        return not_now
    outwards = caller == line.a.reveal()
    if line.direction == ("b_to_a" if outwards else "a_to_b"):
        return Why.DIRECTION
    if not outwards:
        return Reached(line, "a", line.a)
    if line.b is not None:
        return Reached(line, "b", line.b)
    return _own_call(line, mode)


def _state(line: Behind, *, ours: bool) -> Why | None:
    match line.state:
        case "pending":
            return Why.NOT_BOUND if ours else Why.PENDING
        case "releasing":
            return Why.NOT_BOUND if ours else Why.RELEASING
        case "released" | "failed":
            return Why.EXPIRED if line.ended == "expired" else Why.NOT_BOUND
        case _:
            return Why.EXPIRED if (not line.live if ours else line.over) else None


def _own_call(line: Behind, mode: str) -> Reached | Why:
    """A dials its own X, and nobody shares it."""
    match mode:
        case "axe":
            return Why.LAST_CALLER
        case "axyb":
            return Why.OWN_NUMBER
        case _ if line.callee is not None:
            return Reached(line, "callee", line.callee)
        case _:
            return Why.NO_CALLEE if line.state else Why.CALLEE_NOT_KEPT

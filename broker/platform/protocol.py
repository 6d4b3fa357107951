"""What any platform can do for the AXB mode, in the broker's own words.

A driver turns each request into one HTTP call and each answer, or the lack of one, into one :class:`Answer`. It never
raises for what the platform or the network does, never sends a request twice by itself, and never decides what
happens next: that is :class:`Verdict`'s reader.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from broker.domain.options import DEFAULT, CallOptions, modifiable


class Direction(StrEnum):
    """Who may call whom through X."""

    BOTH = "both"
    A_TO_B = "a_to_b"
    B_TO_A = "b_to_a"


class Verdict(StrEnum):
    """What an answer means for the call that was made, whatever the platform's codes look like."""

    DONE = "done"  # it happened
    NOT_FOUND = "not_found"  # nothing is bound there; an unbind counts as done
    CONFLICT = "conflict"  # the platform holds a binding that this one collides with
    CAPACITY = "capacity"  # this X (or city) is full: another X may do
    NUMBER_REFUSED = "number_refused"  # this X is unusable (blacklisted, not owned): another X may do
    BAD_REQUEST = "bad_request"  # refused because of what the order system sent
    CONFIGURATION = "configuration"  # refused because of how we are set up: an operator must act
    APP_SUSPENDED = "app_suspended"  # the application or account is suspended (arrears, frozen)
    FLOW_CONTROL = "flow_control"  # too fast: certainly not executed
    BAD_DIGEST = "bad_digest"  # wrong secret: certainly not executed
    SOURCE_BLOCKED = "source_blocked"  # this source address is locked out for 30 minutes
    CLOCK_SKEW = "clock_skew"  # our `Created` is too far from the platform's clock: certainly not executed
    NOT_SENT = "not_sent"  # no byte of the request left this process
    WITHHELD = "withheld"  # the permit said no at the last moment: no byte left this process
    UNKNOWN = "unknown"  # it may have happened, or may still happen


@dataclass(frozen=True, slots=True)
class AxbBind:
    """Ask for the pair A, B behind X. ``ttl_s`` 0 = no expiry; ``token`` is echoed by the platform as ``userData``."""

    x: str
    a: str
    b: str
    direction: Direction
    ttl_s: int
    token: str
    options: CallOptions = DEFAULT


@dataclass(frozen=True, slots=True)
class AxbModify:
    """Change one binding; ``None`` leaves a thing as it is. ``ttl_s`` counts anew from the change, 0 = no expiry.

    ``options`` is the whole set the line has afterwards and ``was`` the set it has now: what differs is sent, and what
    nobody asks for any more gets the platform's default. Raises ``ValueError`` for options that are not ``modifiable``.
    """

    subscription_id: str
    token: str
    a: str | None = None
    b: str | None = None
    direction: Direction | None = None
    ttl_s: int | None = None
    options: CallOptions | None = None
    was: CallOptions = DEFAULT

    def __post_init__(self) -> None:
        """Refuse what no modification can bring about."""
        if self.options is not None and not modifiable(self.was, self.options):
            raise ValueError("the hint tone of a bound line cannot be changed")


@dataclass(frozen=True, slots=True)
class AxbBinding:
    """A binding as the platform reports it. ``ttl_s`` is the lifetime given, not what is left.

    ``direction`` is ``None`` when it was not reported.
    """

    subscription_id: str
    x: str
    a: str = ""
    b: str = ""
    token: str = ""
    ttl_s: int = 0
    direction: Direction | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """One call's outcome: the verdict, the platform's own words for the record, and what came back.

    ``bindings`` holds the created binding after a bind and the matches after a query. ``date_skew_s`` is the
    platform's ``Date`` header minus our clock, when the verdict is ``CLOCK_SKEW`` and the header was there.
    """

    verdict: Verdict
    http: int | None = None
    code: str | None = None
    detail: str = ""
    bindings: tuple[AxbBinding, ...] = ()
    total: int = 0
    date_skew_s: float | None = None


#: Asked synchronously after signing and connecting, directly before the first byte is written; ``False`` withholds.
Permit = Callable[[], bool]


class AxbPlatform(Protocol):
    """One application's access to a platform that has the AXB mode.

    ``timeout_s`` covers connecting, sending and the whole answer. After it the verdict is ``UNKNOWN`` if any byte
    was written and ``NOT_SENT`` otherwise.
    """

    async def bind(self, request: AxbBind, *, permit: Permit, timeout_s: float) -> Answer:
        """Create the binding; ``bindings`` has exactly one element when the verdict is ``DONE``."""
        ...

    async def modify(self, request: AxbModify, *, permit: Permit, timeout_s: float) -> Answer:
        """Change that one binding in place; ``CONFLICT`` when a new A or B is in use on its X. No ``bindings``."""
        ...

    async def unbind(self, subscription_id: str, *, permit: Permit, timeout_s: float) -> Answer:
        """End that one binding, and only it."""
        ...

    async def query(
        self, *, x: str, a: str = "", b: str = "", page: int = 1, permit: Permit, timeout_s: float
    ) -> Answer:
        """List bindings on ``x``, narrowed to those of ``a`` and ``b`` when given, at most 100 a page."""
        ...

    async def lookup(self, subscription_id: str, *, permit: Permit, timeout_s: float) -> Answer:
        """List the one binding with this id."""
        ...

    def set_clock_offset(self, seconds: float) -> None:
        """Sign with our clock plus this much from now on."""
        ...

    async def close(self) -> None:
        """Close idle connections; running calls end with their own verdict first."""
        ...

"""What any platform can do for an application, in the broker's own words, whatever the application's mode.

A driver turns each request into one HTTP call and each answer, or the lack of one, into one :class:`Answer`. It never
raises for what the platform or the network does, never sends a request twice by itself, and never decides what
happens next: that is :class:`Verdict`'s reader.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from broker.domain.options import DEFAULT, CallOptions


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
    PARTY_LIMIT = "party_limit"  # A has as many X as the platform allows: no other X will do
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


class NotOffered(Exception):
    """The application's mode has no such interface; the table of modes keeps requests from getting here."""


@dataclass(frozen=True, slots=True)
class BindLine:
    """Ask for the parties behind X. ``ttl_s`` 0 = no expiry; ``token`` is echoed by the platform as ``userData``.

    ``b`` is empty where the mode has no B, ``extension`` the digits where it has one. ``callback`` is whom A reaches
    who dials X when nobody has called (AXE). Where the platform picks X itself (AXYB), ``x`` is empty and
    ``area_code`` says where, ``relaxed`` whether the province or any place will do.
    """

    x: str
    a: str
    b: str = ""
    direction: Direction = Direction.BOTH
    ttl_s: int = 0
    token: str = ""
    options: CallOptions = DEFAULT
    extension: str = ""
    callback: str = ""
    area_code: str = ""
    relaxed: bool = False


@dataclass(frozen=True, slots=True)
class ModifyLine:
    """Change one binding; ``None`` leaves a thing as it is. ``ttl_s`` counts anew from the change, 0 = no expiry.

    ``options`` is the whole set the line has afterwards and ``was`` the set it has now: what differs is sent, and what
    nobody asks for any more gets the platform's default. ``callback``: "" takes it away.
    """

    subscription_id: str
    token: str
    a: str | None = None
    b: str | None = None
    direction: Direction | None = None
    ttl_s: int | None = None
    options: CallOptions | None = None
    was: CallOptions = DEFAULT
    callback: str | None = None


@dataclass(frozen=True, slots=True)
class BindPeer:
    """Ask for a Y for ``b`` under the AX ``subscription_id`` (AXYB). ``ttl_s`` 0 = as long as that."""

    subscription_id: str
    b: str
    ttl_s: int
    token: str
    area_code: str = ""
    relaxed: bool = False
    tone: str | None = None


@dataclass(frozen=True, slots=True)
class PlatformLine:
    """A binding as the platform reports it. ``ttl_s`` is the lifetime given, not what is left.

    ``direction`` is ``None`` when it was not reported; ``y`` is set, with ``b``, for a relation of AXYB.
    """

    subscription_id: str
    x: str
    a: str = ""
    b: str = ""
    token: str = ""
    ttl_s: int = 0
    direction: Direction | None = None
    extension: str = ""
    y: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """One call's outcome: the verdict, the platform's own words for the record, and what came back.

    ``bindings`` holds the created binding after a bind and the matches after a query. ``date_skew_s`` is the
    platform's ``Date`` header minus our clock, when the verdict is ``CLOCK_SKEW`` and the header was there.
    ``location`` is a recording's address.
    """

    verdict: Verdict
    http: int | None = None
    code: str | None = None
    detail: str = ""
    bindings: tuple[PlatformLine, ...] = ()
    total: int = 0
    date_skew_s: float | None = None
    location: str = ""


#: Asked synchronously after signing and connecting, directly before the first byte is written; ``False`` withholds.
Permit = Callable[[], bool]


class Platform(Protocol):
    """One application's access to a platform.

    ``timeout_s`` covers connecting, sending and the whole answer. After it the verdict is ``UNKNOWN`` if any byte
    was written and ``NOT_SENT`` otherwise. What the application's mode does not have raises ``NotOffered``.
    """

    async def bind(self, request: BindLine, *, permit: Permit, timeout_s: float) -> Answer:
        """Create the binding; ``bindings`` has exactly one element when the verdict is ``DONE``."""
        ...

    async def modify(self, request: ModifyLine, *, permit: Permit, timeout_s: float) -> Answer:
        """Change that one binding in place; ``CONFLICT`` when a new party is in use on its X. No ``bindings``.

        Raises ``ValueError`` for options that are not ``modifiable``.
        """
        ...

    async def unbind(self, subscription_id: str, *, permit: Permit, timeout_s: float) -> Answer:
        """End that one binding, and only it; in AXYB with all its peers."""
        ...

    async def query(
        self,
        *,
        x: str,
        a: str = "",
        b: str = "",
        extension: str = "",
        page: int = 1,
        permit: Permit,
        timeout_s: float,
    ) -> Answer:
        """List bindings on ``x`` (of AXE: the one on ``x`` and ``extension``), narrowed to those of ``a`` and ``b``.

        Of AX without ``x``: all of ``a``'s. At most 100 a page; a mode that cannot narrow lists them all.
        """
        ...

    async def lookup(self, subscription_id: str, *, permit: Permit, timeout_s: float) -> Answer:
        """List the one binding with this id; in AXYB one element for each of its peers, too."""
        ...

    async def set_callee(
        self, subscription_id: str, *, callee: str, ttl_s: int, token: str, permit: Permit, timeout_s: float
    ) -> Answer:
        """Set whom A reaches who dials X (AX), for ``ttl_s`` seconds; overwrites. No ``bindings``."""
        ...

    async def bind_peer(self, request: BindPeer, *, permit: Permit, timeout_s: float) -> Answer:
        """Give B a Y (AXYB); ``bindings[0].y`` is the Y."""
        ...

    async def unbind_peer(self, subscription_id: str, *, y: str, permit: Permit, timeout_s: float) -> Answer:
        """Take that one peer's Y away (AXYB)."""
        ...

    async def stop_call(self, session_id: str, *, permit: Permit, timeout_s: float) -> Answer:
        """Hang a call up; ``NOT_FOUND`` when it is over."""
        ...

    async def recording(self, file_name: str, domain: str, *, permit: Permit, timeout_s: float) -> Answer:
        """Ask for a recording's address: ``location``; ``NOT_FOUND`` when it is not, or no longer, there."""
        ...

    def set_clock_offset(self, seconds: float) -> None:
        """Sign with our clock plus this much from now on."""
        ...

    async def close(self) -> None:
        """Close idle connections; running calls end with their own verdict first."""
        ...

"""A platform call in this process's hands: what is sent, the proof that it is ours, and what became of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol
from uuid import UUID

from broker.domain.change import LineChange
from broker.domain.options import DEFAULT, CallOptions
from broker.domain.phone import PhoneNumber
from broker.store.calls import CallKey
from broker.store.failing import Try


@dataclass(frozen=True, slots=True)
class Active:
    """The platform confirmed: calls to ``x`` reach the parties."""

    x: str
    subscription_id: str
    confirmed_at: datetime


@dataclass(frozen=True, slots=True)
class Failed:
    """It will not be bound. ``reason`` is a stable code; ``http`` and ``code`` are the platform's last words."""

    reason: str
    detail: str = ""
    http: int | None = None
    code: str | None = None


@dataclass(frozen=True, slots=True)
class Released:
    """Nobody is behind X any more."""

    at: datetime


@dataclass(frozen=True, slots=True)
class Changed:
    """The line is as it was asked to become."""


Settled = Active | Failed | Released | Changed


@dataclass(slots=True)
class Trouble:
    """Failures of one call in this process's hands.

    ``answers``: how often the platform had answered the app at the last of them; ``tries``: those not yet written down.
    """

    key: CallKey
    answers: int
    since: float = 0.0
    count: int = 0
    written_at: float | None = None
    tries: list[Try] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class PlatformCall:
    """One durable call while this process owns it.

    ``lease_until`` is on :func:`broker.clock.boottime`; it was counted from before the statement that gave the lease,
    so it never ends later than the database's. ``maybe_sent``: an attempt may have reached the platform.
    ``first_sent_at`` (boottime): when the first attempt left that may have had an effect; None = not yet, or unknown.
    ``x_id`` is None, and ``x`` empty, while the platform has not picked X. ``extension`` is what the line has of X,
    None for a pair. ``ttl_s`` is what the platform is told of the line. ``change`` is what a modify wants, in the
    line's own roles. ``caller_id`` is whose share of the limit it takes; 0 = nobody's in particular.
    ``urgency`` (boottime seconds, the requester's deadline) orders the lane. ``lost``: somebody else owns it now.
    ``unwanted``: the line is being released, so a bind or modify is not to be sent anew. ``asked``: the interface
    that was called last for it. ``trouble``: its failures, if its key is this one's.
    ``moves``: nobody waits for this bind: its parties have an X, which they are to leave.
    """

    key: CallKey
    op: str
    app_id: int
    x_id: int | None
    x: str
    a: PhoneNumber
    b: PhoneNumber | None
    a_key: int
    b_key: int | None
    direction: str
    ttl_s: int
    lease_until: float
    urgency: float
    caller_id: int = 0
    options: CallOptions = DEFAULT
    extension: int | None = None
    callback: PhoneNumber | None = None
    change: LineChange | None = None
    subscription_id: str | None = None
    attempt: int = 0
    maybe_sent: bool = False
    last_unknown_at: float = 0.0
    first_sent_at: float | None = None
    lost: bool = False
    unwanted: bool = False
    asked: str = ""
    trouble: Trouble | None = field(default=None, repr=False)
    moves: bool = False
    done: asyncio.Future[Settled | None] | None = field(default=None, repr=False)

    @property
    def pool_id(self) -> int:
        """The pool of the line."""
        return self.key.pool_id

    @property
    def line_id(self) -> UUID:
        """The line this call is about."""
        return self.key.line_id

    @property
    def token(self) -> str:
        """Our mark in the platform's ``userData``: line and attempt; of a modify line, number and attempt."""
        return f"{self.mark}.{self.attempt}"

    @property
    def mark(self) -> str:
        """What the marks of all attempts begin with."""
        return f"{self.key.line_id.hex}.{self.key.no}" if self.op == "modify" else self.key.line_id.hex

    def settle(self, outcome: Settled) -> None:
        """Tell who waits."""
        if self.done is not None and not self.done.done():
            self.done.set_result(outcome)


class Dispatch(Protocol):
    """Takes calls and carries them out."""

    def start(self, call: PlatformCall) -> None:
        """Begin; the outcome arrives in ``call.done``, if somebody waits there."""
        ...

    @property
    def running(self) -> int:
        """How many calls this process has in hand."""
        ...

    @property
    def leaving(self) -> bool:
        """Whether this process is about to end: nobody should wait for outcomes any more."""
        ...

    def backlog_s(self, app_id: int, caller_id: int = 0) -> float:
        """Return how long the caller's bind would wait for its turn by today's rate; infinite when the lane is shut."""
        ...

"""What an order asks for, and what it was given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from broker.domain.choice import Policy
from broker.domain.modes import MODES, Allocation, Mode
from broker.domain.options import DEFAULT, CallOptions
from broker.domain.phone import PhoneNumber
from broker.store.registry import App, Pool
from broker.store.sharing import Joined


@dataclass(frozen=True, slots=True)
class BindOrder:
    """What an order system asked for, checked. ``pools`` are tried in order.

    ``b`` is None for a sole line: of one party. ``extension``: the one asked for. ``callback``: whom A reaches who
    dials X when nobody has called. ``binding_id`` is the id that the binding is to have, if that is settled before.
    """

    app: App
    caller_id: int
    a: PhoneNumber
    b: PhoneNumber | None
    a_key: int
    b_key: int | None
    pools: tuple[Pool, ...]
    ttl_s: int
    direction: str
    policy: Policy
    options: CallOptions = DEFAULT
    share: bool = True
    explain: bool = False
    order_id: str | None = None
    user_data: str | None = None
    metadata: str | None = None
    key_hash: bytes | None = None
    key_token: int | None = None
    extension: int | None = None
    callback: PhoneNumber | None = None
    binding_id: UUID | None = None

    @property
    def other(self) -> PhoneNumber:
        """B, of a pair."""
        if self.b is None:
            raise ValueError("a sole line has no B")
        return self.b

    @property
    def other_key(self) -> int:
        """B's key, of a pair."""
        if self.b_key is None:
            raise ValueError("a sole line has no B")
        return self.b_key

    @property
    def mode(self) -> Mode:
        """The app's mode."""
        return MODES[self.app.mode]

    @property
    def allocation(self) -> Allocation:
        """How it gets its X: of a mode that has both, one party takes a place."""
        asked = self.mode.allocation
        return Allocation.PLACE if asked is Allocation.PAIR and self.b is None else asked

    @property
    def line_ttl_s(self) -> int:
        """The lifetime that the platform is told."""
        return self.mode.platform_ttl(self.ttl_s)


@dataclass(slots=True)
class Allocated:
    """A committed claim; ``asked_at`` (boottime) lies before its lease began.

    ``x_id`` is None where the platform picks X. ``joined``: it shares a line that was there; then the bind is somebody
    else's call, or has been confirmed. ``explanation`` tells why this X, if the order asked.
    ``at_once``: it is active, nobody had to be asked. ``number`` is the X where the database chose it: the pool as this
    process knows it may not have it yet.
    """

    pool: Pool
    binding_id: UUID
    line_id: UUID
    created_at: datetime
    asked_at: float
    x_id: int | None = None
    extension: int | None = None
    joined: Joined | None = None
    at_once: bool = False
    explanation: Mapping[str, Any] | None = None
    number: str | None = None

    @property
    def x(self) -> str:
        """The X number; empty while the platform has not picked one."""
        if self.number is not None:
            return self.number
        return self.pool.numbers[self.x_id] if self.x_id is not None else ""

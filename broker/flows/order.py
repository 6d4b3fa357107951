"""What an order asks for, and what it was given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from broker.domain.choice import Policy
from broker.domain.options import DEFAULT, CallOptions
from broker.domain.phone import PhoneNumber
from broker.store.allocation import Claim
from broker.store.registry import App, Pool
from broker.store.sharing import Joined

#: Longest lifetime that the platform takes (contract 2.1); a binding that lasts longer has its line renewed.
PLATFORM_TTL_S: Final = 7_776_000
#: Longest lifetime of a binding that has one.
LONGEST_TTL_S: Final = 31_536_000


@dataclass(frozen=True, slots=True)
class BindOrder:
    """What an order system asked for, checked. ``pools`` are tried in order."""

    app: App
    caller_id: int
    a: PhoneNumber
    b: PhoneNumber
    a_key: int
    b_key: int
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

    @property
    def line_ttl_s(self) -> int:
        """The lifetime that the platform is told."""
        return min(self.ttl_s, PLATFORM_TTL_S)


@dataclass(slots=True)
class Allocated:
    """A committed claim; ``asked_at`` (boottime) lies before its lease began.

    ``joined``: it shares a line that was there; then the bind is somebody else's call, or has been confirmed.
    ``explanation`` tells why this X, if the order asked.
    """

    claim: Claim
    pool: Pool
    created_at: datetime
    asked_at: float
    joined: Joined | None = None
    explanation: Mapping[str, Any] | None = None

    @property
    def x(self) -> str:
        """The X number."""
        return self.pool.numbers[self.claim.x_id]

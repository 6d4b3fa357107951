"""What an order asks for, and what it was given."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from broker.domain.choice import Policy
from broker.domain.phone import PhoneNumber
from broker.store.allocation import Claim
from broker.store.registry import App, Pool


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
    order_id: str | None = None
    user_data: str | None = None
    metadata: str | None = None
    key_hash: bytes | None = None
    key_token: int | None = None


@dataclass(frozen=True, slots=True)
class Allocated:
    """A committed claim; ``asked_at`` (boottime) lies before its lease began."""

    claim: Claim
    pool: Pool
    created_at: datetime
    asked_at: float

    @property
    def x(self) -> str:
        """The X number."""
        return self.pool.numbers[self.claim.x_id]

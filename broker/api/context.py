"""What the handlers work with, and one request on its way through them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from aiohttp import web

from broker.domain.admission import Gate, Work
from broker.flows.allocators import Claims
from broker.flows.asking import Asking
from broker.flows.batching import Batcher
from broker.flows.calls import Dispatch
from broker.flows.change import Changer
from broker.flows.exports import Exports
from broker.flows.feed import Feeds
from broker.flows.inbound import Inbound
from broker.flows.peers import Peers
from broker.flows.pool_figures import PoolFigures
from broker.flows.reach import Books
from broker.flows.succession import Successions
from broker.store.bindings import Binding, ReleaseAsk, Releasing
from broker.store.crypto import Vault
from broker.store.idempotency import Finish, KeyAsk, KeyState
from broker.store.listing import Page, Wanted
from broker.store.registry import App, Key, Registry

#: Statuses by which the broker says no for a reason of its own: conflicts, limits, nothing left, not now.
_OURS = frozenset({409, 429, 502, 503})


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request may take: seconds and bytes."""

    default_deadline_s: float = 3.0
    longest_deadline_s: float = 30.0
    body_bytes: int = 64 * 1024
    batch_bytes: int = 4 * 1024 * 1024
    lease_s: float = 8.0


@dataclass(slots=True)
class Services:
    """The parts of this process that handlers use."""

    vault: Vault
    registry: Callable[[], Registry]
    allocator: Claims
    dispatch: Dispatch
    begin_key: Batcher[KeyAsk, KeyState]
    finish_key: Batcher[Finish, bool]
    forget_key: Batcher[tuple[KeyAsk, int], None]
    show: Batcher[tuple[int, UUID], Binding | None]
    begin_release: Batcher[ReleaseAsk, Releasing | None]
    release_later: Callable[[ReleaseAsk, int], Awaitable[bool]]
    live_of_orders: Callable[[int, Sequence[str], int], Awaitable[list[tuple[int, int, UUID]]]]
    find: Callable[[Wanted], Awaitable[Page]]
    pool_figures: PoolFigures
    reach: Books
    changer: Changer
    successions: Successions
    asking: Asking
    peers: Peers
    limits: Limits
    inbound: Inbound
    gate: Gate
    #: What apps in shadow refuse, by (app id, what).
    shadowed: Counter[tuple[int, str]]
    feeds: Feeds
    exports: Exports
    draining: bool = False

    def refused(self, app: App, status: int, code: str) -> None:
        """Count what an app in shadow refuses by itself; who asked wrongly is no matter of the app."""
        if app.shadow and status in _OURS:
            self.shadowed[app.id, f"refused.{code}"] += 1


SERVICES: web.AppKey[Services] = web.AppKey("services", Services)


@dataclass(slots=True)
class Heard:
    """What is known of a request before its handler runs. ``deadline`` is on boottime."""

    request_id: str
    key: Key
    deadline: float
    respond_async: bool
    body: bytes
    work: Work
    notes: dict[str, object] = field(default_factory=dict)
    key_ask: KeyAsk | None = None
    key_token: int | None = None
    made: tuple[int, UUID] | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """A handler's answer: ``body`` is JSON."""

    status: int
    body: bytes
    location: str | None = None
    replayed: bool = False
    retry_after_s: int | None = None
    problem: str | None = None
    keep: bool = True
    next_page: str | None = None
    etag: str | None = None

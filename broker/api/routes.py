"""The table of routes for order systems, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from broker.api import (
    batch,
    bindings,
    call_operations,
    callee,
    calls,
    changing,
    event_operations,
    events,
    listing,
    operations,
    peer_operations,
    peers,
    pools,
    reach,
    rebinding,
    summary,
    told,
)
from broker.api.idempotent import Handler, Reader
from broker.api.operations import Operation


@dataclass(frozen=True, slots=True)
class Route:
    """One operation; ``scope`` is what the API key must allow, ``operation`` what /openapi.json says of it.

    ``batch``: the larger limit of bodies counts.
    """

    method: str
    path: str
    scope: str
    handler: Handler | Reader
    operation: Operation | None = None
    batch: bool = False

    @property
    def kind(self) -> str:
        """What requests of it have in common when it comes to how long they take."""
        return f"{self.method} {self.path}"


ROUTES: tuple[Route, ...] = (
    Route("POST", "/v1/bindings", "bind", bindings.create, operations.CREATE),
    Route("GET", "/v1/bindings", "read", listing.show_some, operations.LIST),
    Route("POST", "/v1/bindings:search", "read", listing.search, operations.SEARCH),
    Route("POST", "/v1/bindings:batch", "bind", batch.create, operations.BATCH, batch=True),
    Route("POST", "/v1/bindings:batch-release", "bind", batch.batch_release, operations.BATCH_RELEASE, batch=True),
    Route("POST", "/v1/orders/{order_id}:release", "bind", batch.release_order, operations.RELEASE_ORDER),
    Route("POST", "/v1/bindings:hand-over", "bind", changing.hand_over, operations.HAND_OVER),
    Route("POST", "/v1/bindings/{id}:rebind-in", "bind", rebinding.rebind_in, operations.REBIND_IN),
    Route("POST", "/v1/calls/{session_id}:stop", "bind", calls.stop, call_operations.STOP_CALL),
    Route("GET", "/v1/recordings", "reveal", calls.recording, call_operations.RECORDING),
    Route("POST", "/v1/recordings:locate", "reveal", calls.locate, call_operations.LOCATE),
    Route("GET", "/v1/calls:summary", "read", summary.show, call_operations.SUMMARY),
    Route("GET", "/v1/calls", "read", told.listed("call", "/v1/calls"), call_operations.CALLS),
    Route("POST", "/v1/calls:search", "read", told.searched("call"), call_operations.SEARCH_CALLS),
    Route("GET", "/v1/cdrs", "read", told.listed("cdr", "/v1/cdrs"), call_operations.CDRS),
    Route("POST", "/v1/cdrs:search", "read", told.searched("cdr"), call_operations.SEARCH_CDRS),
    Route("GET", "/v1/sms", "read", told.listed("sms", "/v1/sms"), call_operations.MESSAGES),
    Route("POST", "/v1/sms:search", "read", told.searched("sms"), call_operations.SEARCH_MESSAGES),
    Route("GET", "/v1/pools", "read", pools.show_all, operations.POOLS),
    Route("GET", "/v1/pools/{name}", "read", pools.show, operations.POOL),
    Route("POST", "/v1/reach:query", "read", reach.query, operations.REACH),
    Route("GET", "/v1/reach", "read", reach.show, operations.REACH_NOW),
    Route("GET", "/v1/events", "read", events.show, event_operations.EVENTS),
    Route("GET", "/v1/bindings/{id}", "read", bindings.show, operations.SHOW),
    Route("PATCH", "/v1/bindings/{id}", "bind", changing.change, operations.CHANGE),
    Route("PUT", "/v1/bindings/{id}/callee", "bind", callee.put, operations.CALLEE),
    Route("DELETE", "/v1/bindings/{id}", "bind", bindings.delete, operations.DELETE),
    Route("POST", "/v1/bindings/{id}/peers", "bind", peers.create, peer_operations.CREATE),
    Route("GET", "/v1/bindings/{id}/peers", "read", peers.show_all, peer_operations.LIST),
    Route("GET", "/v1/bindings/{id}/peers/{peer_id}", "read", peers.show, peer_operations.SHOW),
    Route("DELETE", "/v1/bindings/{id}/peers/{peer_id}", "bind", peers.delete, peer_operations.DELETE),
)

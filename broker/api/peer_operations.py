"""What the operations on peers are, for the OpenAPI document. No logic."""

from __future__ import annotations

from typing import Any

from broker.api import answers, peers
from broker.api.operations import Answer, Operation

_ACTIVE: dict[str, Any] = {
    "id": "per_06f3ls2c9t7qv0e8k1m4p5r6a2b3c4d5",
    "binding": "bnd_06f3ls2c9t7qv0e8k1m4p5r6a2b3c4d5",
    "state": "active",
    "reason": None,
    "b": "+86*******0002",
    "y": "+8617075500013",
    "ttl_s": 0,
    "tone": None,
    "made_by_platform": False,
    "created_at": "2026-11-22T12:00:00.250Z",
    "expires_at": "2026-11-22T13:00:00.412Z",
    "ended_at": None,
}
_PENDING = _ACTIVE | {"state": "pending", "y": None, "expires_at": None}
_RELEASED = _ACTIVE | {"state": "released", "reason": "released", "ended_at": "2026-11-22T12:30:00.000Z"}
_PLACE = ("Location", "Idempotency-Replayed")
_TAG = "peers"

CREATE = Operation(
    id="createPeer",
    tag=_TAG,
    summary="Give a B its own number",
    description=(
        "Mode axyb. The platform picks Y: A dials Y and reaches B, who sees X. A lifetime longer than the binding's is"
        " cut to it. A B that has a live Y under this binding is answered with that one, whatever is asked for."
    ),
    request=peers.PeerRequest,
    example={"b": "+8613900000002", "ttl_s": 3600},
    parameters=("Idempotency-Key", "Request-Timeout", "Prefer"),
    answers={
        200: Answer("B has this one already.", answers.Peer, _PLACE, _ACTIVE),
        201: Answer("The platform has confirmed: calls to `y` are connected.", answers.Peer, _PLACE, _ACTIVE),
        202: Answer("Committed, not yet confirmed: `y` is null.", answers.Peer, _PLACE, _PENDING),
    },
    problems=(404, 409, 502),
)
LIST = Operation(
    id="listPeers",
    tag=_TAG,
    summary="List a binding's peers",
    description=(
        "With those that the platform has made by itself when their B dialled X: it is asked for them, and names a few."
    ),
    parameters=("Request-Timeout",),
    answers={200: Answer("The peers.", answers.Peers, (), {"items": [_ACTIVE], "complete": True})},
    problems=(404, 409),
)
SHOW = Operation(
    id="showPeer",
    tag=_TAG,
    summary="Show a peer",
    description="Its state now.",
    parameters=("Request-Timeout",),
    answers={200: Answer("The peer.", answers.Peer, (), _ACTIVE)},
    problems=(404, 409),
)
DELETE = Operation(
    id="releasePeer",
    tag=_TAG,
    summary="Take a B's number away",
    description="A and B no longer reach each other by this Y. One that has ended stays as it is.",
    parameters=("Idempotency-Key", "Request-Timeout", "Prefer"),
    answers={
        200: Answer("It is over.", answers.Peer, ("Idempotency-Replayed",), _RELEASED),
        202: Answer("Begun, not yet over.", answers.Peer, ("Idempotency-Replayed",), _ACTIVE | {"state": "releasing"}),
    },
    problems=(404, 409),
)

"""Events as order systems see them: ids that are cursors, types and filters, CloudEvents attributes."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from broker.domain.ids import public_id

#: Every type there is, as a filter may name it.
TYPES: Final = (
    "binding.active",
    "binding.failed",
    "binding.released",
    "binding.expired",
    "binding.renewed",
    "binding.moved",
    "binding.conflict",
    "party.unreachable",
    "call.started",
    "call.ringing",
    "call.answered",
    "call.ended",
    "cdr.created",
    "recording.ready",
    "sms.forwarded",
    "sms.failed",
    "number.status",
    "pool.low",
    "pool.exhausted",
    "limit.flow_control",
    "audit.drift",
)
_KINDS: Final = frozenset(name.split(".")[0] + ".*" for name in TYPES)
_STATES: Final = {
    "binding.active": "active",
    "binding.failed": "failed",
    "binding.released": "released",
    "binding.expired": "released",
    "binding.renewed": "active",
    "binding.moved": "active",
}
_ID = re.compile(r"evt_[0-9a-v]{20}")
_MOST = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Event:
    """One event at its position in its app's feed; ``data`` is what its type adds."""

    pos: int
    at: datetime
    type: str
    pool_id: int | None
    binding_id: UUID | None
    x: str | None
    extension: int | None
    expires_at: datetime | None
    reason: str | None
    data: Mapping[str, Any]
    order_id: str | None
    user_data: str | None
    metadata: Any


def event_id(app_id: int, pos: int) -> str:
    """Return the public id of the event at a position: unique for ever, sorts as the feed does, is a cursor."""
    packed = base64.b32hexencode(app_id.to_bytes(4, "big") + pos.to_bytes(8, "big"))
    return "evt_" + packed.decode().rstrip("=").lower()


def parse_event_id(text: str, app_id: int) -> int | None:
    """Return the position that an id of this app names; None if it is no such id."""
    if _ID.fullmatch(text) is None:
        return None
    packed = base64.b32hexdecode(text[4:].upper() + "====")
    pos = int.from_bytes(packed[4:], "big")
    return pos if int.from_bytes(packed[:4], "big") == app_id and pos <= _MOST else None


def expand(filters: Iterable[str]) -> list[str] | None:
    """Return the types that ``filters`` mean (``.*`` at the end: all of a kind); None if one means nothing."""
    found: set[str] = set()
    for one in filters:
        if one in _KINDS:
            found.update(name for name in TYPES if name.startswith(one[:-1]))
        elif one in TYPES:
            found.add(one)
        else:
            return None
    return [name for name in TYPES if name in found]


def cloud_event(event: Event, app_id: int, app: str) -> dict[str, Any]:
    """Return the event with CloudEvents 1.0 attribute names; data that do not apply are left out."""
    binding = None if event.binding_id is None else public_id(event.pool_id or 0, event.binding_id)
    told = {
        "binding_id": binding,
        "order_id": event.order_id,
        "user_data": event.user_data,
        "metadata": event.metadata,
        "state": _STATES.get(event.type),
        "reason": event.reason,
        "x": event.x,
        "extension": None if event.extension is None else str(event.extension),
        "expires_at": event.expires_at,
    }
    return {
        "specversion": "1.0",
        "id": event_id(app_id, event.pos),
        "type": event.type,
        "source": f"/apps/{app}",
        "subject": binding,
        "time": event.at,
        "datacontenttype": "application/json",
        "data": {**{key: value for key, value in told.items() if value is not None}, **event.data},
    }

"""The ledger of what the emulator told: each event, record, message and status, and what became of its pushes.

A row is one thing, however the pushes packed it: the records of a parcel are rows of their own, and a thing that was
pushed seven times is one row. It is kept in memory, the newest ``keep_told`` rows; a restart forgets all.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice
from typing import Any

import orjson

from broker.emulator.times import rfc3339


class Kind(StrEnum):
    """The kinds of pushes (contract 6.1)."""

    EVENTS = "events"
    CDR = "cdr"
    SMS = "sms"
    SMS_CONTROL = "sms-control"
    NUMBER_STATUS = "number-status"


class State(StrEnum):
    """What became of telling it."""

    WAITING = "waiting"
    DELIVERED = "delivered"  # a 200 was heard
    GIVEN_UP = "given_up"  # no 200 to any of the pushes
    UNADDRESSED = "unaddressed"  # the app has no address for this kind


@dataclass(slots=True, eq=False)
class Thing:
    """One row. ``body`` is the JSON of the thing itself, without the envelope of a push."""

    seq: int
    at_ms: int
    kind: Kind
    app_key: str
    type: str
    x: str
    session_id: str | None
    subscription_id: str | None
    user_data: str | None
    body: bytes = field(repr=False)
    state: State = State.WAITING
    pushes: int = 0
    status: int | None = None
    """The last answer's HTTP status."""
    delivered_ms: int | None = None

    def shown(self) -> dict[str, Any]:
        """Return the row as the admin port has it."""
        return {
            "seq": self.seq,
            "at": rfc3339(self.at_ms),
            "kind": self.kind,
            "app_key": self.app_key,
            "type": self.type,
            "x": self.x,
            "session_id": self.session_id,
            "subscription_id": self.subscription_id,
            "user_data": self.user_data,
            "body": orjson.Fragment(self.body),
            "state": self.state,
            "pushes": self.pushes,
            "status": self.status,
            "delivered_at": None if self.delivered_ms is None else rfc3339(self.delivered_ms),
        }


class Told:
    """The rows that are kept, in order."""

    def __init__(self, most: int) -> None:
        self._rows: deque[Thing] = deque(maxlen=most)
        self.last = 0

    def add(self, thing: Thing) -> None:
        """Keep a row that carries the next number."""
        self._rows.append(thing)
        self.last = thing.seq

    def read(self, after: int, limit: int) -> tuple[list[Thing], int | None]:
        """Return up to ``limit`` rows numbered above ``after``, and the cursor if there are more."""
        first = self.last - len(self._rows) + 1
        start = max(after + 1 - first, 0)
        page = list(islice(self._rows, start, start + limit))
        more = bool(page) and page[-1].seq < self.last
        return page, page[-1].seq if more else None

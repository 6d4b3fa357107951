"""A platform's pushes of all kinds, and a ledger of what must come of them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

Json = dict[str, Any]

MOST_TIMES: Final = 7
_STEPS: Final = ("callin", "callout", "alerting", "answer", "disconnect")
TOLD: Final = {
    "callin": "call.started", "alerting": "call.ringing", "answer": "call.answered", "disconnect": "call.ended"
}  # fmt: skip
#: Statuses that leave bindings where they are: normal, and frozen.
_STATUSES: Final = ("5", "11")
_PARCEL: Final = 50


@dataclass(frozen=True, slots=True)
class Push:
    """One that is delivered at least once. ``wanted`` is in the answer to a question; ``created`` signs a status."""

    mode: str
    kind: str
    body: Json = field(repr=False)
    wanted: bytes = b""
    created: datetime | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """A binding of an app, as its order system knows it."""

    mode: str
    id: str
    line: str
    x: str
    a: str
    b: str


@dataclass(frozen=True, slots=True)
class Call:
    """What a session is in the end; ``steps`` by name, since those of one second have no order."""

    binding: str
    steps: tuple[str, ...]
    began: datetime
    ended: datetime | None


@dataclass(frozen=True, slots=True)
class Message:
    """What became of a short message."""

    binding: str
    result: int
    at: datetime


@dataclass(slots=True)
class Ledger:
    """What is pushed, in order, and its effects.

    ``events`` by type and binding; ``calls`` and ``records`` (binding, talk_s) by mode and session, ``messages`` by
    mode and identifier; ``statuses`` are number, time and status.
    """

    dice: random.Random
    pushes: list[Push] = field(default_factory=list)
    events: Counter[tuple[str, str]] = field(default_factory=Counter)
    calls: dict[tuple[str, str], Call] = field(default_factory=dict)
    records: dict[tuple[str, str], tuple[str, int]] = field(default_factory=dict)
    messages: dict[tuple[str, str], Message] = field(default_factory=dict)
    statuses: set[tuple[str, datetime, str]] = field(default_factory=set)
    questions: int = 0

    @property
    def things(self) -> int:
        """How many things were told of."""
        return len(self.pushes)

    def fill(self, count: int, orders: list[Order], numbers: list[str]) -> None:
        """Make ``count`` pushes or a few more: calls of orders in turn, states of ``numbers`` that nobody uses."""
        number = 0
        while len(self.pushes) < count:
            self._call(orders[number % len(orders)], number)
            if number % 20 == 0 and numbers:
                self._status(numbers[number // 20 % len(numbers)], number // 20)
            number += 1

    def deliveries(self) -> list[Push]:
        """Return every push one to seven times, records also in parcels with others, all in disorder."""
        found = [push for push in self.pushes for _ in range(self.dice.randint(1, MOST_TIMES))]
        for mode in {push.mode for push in self.pushes}:
            records = [push.body["feeLst"][0] for push in self.pushes if push.kind == "cdr" and push.mode == mode]
            for _ in range(max(len(records) // 10, 1) if records else 0):
                some = self.dice.sample(records, min(len(records), _PARCEL))
                found.append(Push(mode, "cdr", {"eventType": "fee", "feeLst": some}))
        self.dice.shuffle(found)
        return found

    def _call(self, order: Order, number: int) -> None:
        """One answered call through an order's X, its record, and at times a message."""
        session, began = f"s-{number}", datetime.now(UTC).replace(microsecond=0)
        mark = {"userData": f"{order.line.replace('-', '')}.1"}
        caller, other = self.dice.sample((order.a, order.b), 2)
        asks = order.mode == "x"
        for place, step in enumerate(_STEPS):
            told: Json = {
                "sessionId": session, "timestamp": _stamp(began + timedelta(seconds=place)), "caller": caller,
                "called": order.x if step == "callin" else other, "stateCode": 0,
            }  # fmt: skip
            question = asks and step == "callin"
            told |= {"notifyMode": "Block"} if question else mark
            wanted = f'"calleeNum":"{other}"'.encode() if question else b""
            self.questions += question
            self._told(order, "events", {"eventType": step, "statusInfo": told}, wanted)
            if step in TOLD:
                self.events[TOLD[step], order.id] += 1
        self.calls[order.mode, session] = Call(
            order.id, tuple(sorted(_STEPS)), began, began + timedelta(seconds=len(_STEPS) - 1)
        )
        self._record(order, session, began, number, mark)
        if number % 3 == 0:
            self._message(order, (caller, other), began, number, mark)

    def _record(self, order: Order, session: str, began: datetime, number: int, mark: Json) -> None:
        talk_s = number % 60
        record: Json = {
            "direction": 1, "icid": f"icid.{session}", "sessionId": session, "bindNum": order.x, "callerNum": order.a,
            "callInTime": _stamp(began), "fwdAnswerTime": _stamp(began + timedelta(seconds=3)),
            "callEndTime": _stamp(began + timedelta(seconds=3 + talk_s)), "fwdUnaswRsn": 0, "ulFailReason": 0,
            "recordFlag": number % 2, **mark,
        }  # fmt: skip
        if number % 2:
            record |= {"recordObjectName": f"{number}.wav", "recordDomain": "d.example"}
            self.events["recording.ready", order.id] += 1
        self._told(order, "cdr", {"eventType": "fee", "feeLst": [record]})
        self.events["cdr.created", order.id] += 1
        self.records[order.mode, session] = (order.id, talk_s)

    def _message(self, order: Order, ends: tuple[str, str], began: datetime, number: int, mark: Json) -> None:
        identifier, result = f"sms-{number}", number % 2
        told: Json = {
            "smsIdentifier": identifier, "notificationMode": "Notify", "calling": ends[0], "virtualNumber": order.x,
            "event": "Text SMS ", "timeStamp": began.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        }  # fmt: skip
        if order.mode == "x":
            asked = told | {"notificationMode": "Block"}
            self._told(order, "sms-control", {"smsEvent": asked}, f'"called":"{ends[1]}"'.encode())
            self.questions += 1
        told |= {"called": ends[1], "sendResult": result, **mark}
        self._told(order, "sms", {"smsEvent": told})
        self.events["sms.failed" if result else "sms.forwarded", order.id] += 1
        self.messages[order.mode, identifier] = Message(order.id, result, began)

    def _status(self, number: str, place: int) -> None:
        created = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=place % 3600)
        status = _STATUSES[place % len(_STATUSES)]
        if (number, created, status) in self.statuses:
            return
        self.statuses.add((number, created, status))
        body = {"eventType": "numStatus", "numInfo": [{"number": number, "status": status}]}
        self.pushes.append(Push("axb", "number-status", body, created=created))

    def _told(self, order: Order, kind: str, body: Json, wanted: bytes = b"") -> None:
        self.pushes.append(Push(order.mode, kind, body, wanted))


#: What is in the books of pushes.
PROJECTED: Final = ("events", "calls", "records", "messages", "rows")
ALL: Final = (*PROJECTED, "statuses", "kept")


def differences(ledger: Ledger, books: Mapping[str, Any], names: Collection[str] = ALL) -> list[str]:
    """Return what the books (of :func:`bench.pushed.books`) have otherwise than the ledger; none = all is right."""
    wanted: dict[str, Any] = {
        "events": ledger.events, "calls": ledger.calls, "records": ledger.records, "messages": ledger.messages,
        "rows": len(ledger.calls) + len(ledger.records) + len(ledger.messages), "statuses": ledger.statuses,
        "kept": ledger.things,
    }  # fmt: skip
    found = [_difference(name, wanted[name], books[name]) for name in names if wanted[name] != books[name]]
    return [line for lines in found for line in lines]


def _difference(name: str, wanted: Any, found: Any) -> list[str]:
    if isinstance(wanted, int):
        return [f"{name}: {found:,} instead of {wanted:,}"]
    if isinstance(wanted, set):
        return [f"{name}: {len(wanted - found)} missing, {len(found - wanted)} that nobody told of"]
    missing = sum(key not in found for key in wanted)
    surplus = sum(key not in wanted for key in found)
    other = [key for key in wanted if key in found and found[key] != wanted[key]]
    text = f"{name}: {missing} missing, {surplus} that nobody told of, {len(other)} different"
    return [text + (f", as {other[0]}: {found[other[0]]} instead of {wanted[other[0]]}" if other else "")]


def _stamp(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M:%S")

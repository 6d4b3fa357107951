"""Ledger rows: every effect, and every request that passed authentication, whatever became of it.

Rows of one request share ``request``; what the platform did by itself (an expiry, a number taken away) has none.
``at`` is when it took effect, ``received_at`` when the request arrived: distinct requests in an interval are distinct
``request`` values whose ``received_at`` lies in it. The row of a change (a modification, a temporary callee, a caller
to call back) has the state after it and, under ``was``, the former values of what it changed; ``since`` is the time of
the binding where that is not the row's own. ``delay_ms`` is by how much a delay makes its answer later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from broker.emulator.binding import Binding, NextCallee
from broker.emulator.mode import Mention, Op
from broker.emulator.times import from_rfc3339, rfc3339


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a row exists: the request it answers, or what else ended a binding; ``delay_ms`` of a fault that delays."""

    request: int | None = None
    received_ms: int | None = None
    fault: str | None = None
    reason: str | None = None
    delay_ms: int | None = None

    def delay(self) -> dict[str, int]:
        """Return the part of a row that those of delayed answers have."""
        return {} if self.delay_ms is None else {"delay_ms": self.delay_ms}


def effect_row(
    seq: int, at_ms: int, op: Op, binding: Binding, cause: Cause, *, http: int | None, old: Binding | None = None
) -> bytes:
    """Return the line for something that happened to ``binding`` (as it is afterwards, or was when it ended).

    ``old`` is the binding before a change.
    """
    return (
        orjson.dumps(
            {
                "seq": seq,
                "at": rfc3339(at_ms),
                "received_at": None if cause.received_ms is None else rfc3339(cause.received_ms),
                "request": cause.request,
                "op": op,
                "app_key": binding.app_key,
                "mode": binding.mode,
                "subscription_id": binding.subscription_id,
                "x": binding.x,
                "y": binding.y,
                "extension": binding.extension,
                "a": binding.a,
                "b": binding.b,
                "result_code": "0",
                "http": http,
                "user_data": binding.user_data,
                "duration": binding.duration,
                "expires_at": None if binding.expires_ms is None else rfc3339(binding.expires_ms),
                "call_direction": binding.call_direction,
                "max_duration": binding.max_duration,
                "extras": binding.extras,
                "serial": binding.serial,
                "fault": cause.fault,
                "reason": cause.reason,
                **cause.delay(),
                **_rarely(at_ms, binding, old),
            }
        )
        + b"\n"
    )


def _rarely(at_ms: int, binding: Binding, old: Binding | None) -> dict[str, Any]:
    """Return the parts of an effect row that few rows have."""
    parts: dict[str, Any] = {}
    if binding.callee is not None:
        parts["callee"] = callee_record(binding.callee)
    if binding.callback_s is not None:
        parts["callback_s"] = binding.callback_s
    if old is not None:
        parts["was"] = _replaced(old, binding)
        if binding.since_ms != at_ms:
            parts["since"] = rfc3339(binding.since_ms)
    return parts


def callee_record(callee: NextCallee | None) -> dict[str, Any] | None:
    """Return how the ledger and the admin port show whom A reaches next."""
    if callee is None:
        return None
    return {
        "number": callee.number,
        "at": rfc3339(callee.since_ms),
        "expires_at": None if callee.until_ms is None else rfc3339(callee.until_ms),
        "user_data": callee.user_data,
    }


def _callee_of(record: dict[str, Any] | None) -> NextCallee | None:
    if record is None:
        return None
    until = record["expires_at"]
    return NextCallee(
        record["number"],
        from_rfc3339(record["at"]),
        None if until is None else from_rfc3339(until),
        record["user_data"],
    )


def _replaced(old: Binding, new: Binding) -> dict[str, Any]:
    former, latter = _terms(old), _terms(new)
    return {name: value for name, value in former.items() if value != latter[name]}


def _terms(binding: Binding) -> dict[str, Any]:
    """Return what a modification may change, by the names of the row."""
    return {
        "a": binding.a,
        "b": binding.b,
        "user_data": binding.user_data,
        "duration": binding.duration,
        "expires_at": None if binding.expires_ms is None else rfc3339(binding.expires_ms),
        "call_direction": binding.call_direction,
        "max_duration": binding.max_duration,
        "extras": binding.extras,
        "callee": callee_record(binding.callee),
        "callback_s": binding.callback_s,
    }


def other_row(
    seq: int, at_ms: int, op: Op, app_key: str, mention: Mention, cause: Cause, *, code: str | None, http: int | None
) -> bytes:
    """Return the line for a request without effect: a query, a refusal, a fault."""
    return (
        orjson.dumps(
            {
                "seq": seq,
                "at": rfc3339(at_ms),
                "received_at": None if cause.received_ms is None else rfc3339(cause.received_ms),
                "request": cause.request,
                "op": op,
                "app_key": app_key,
                "subscription_id": mention.subscription_id,
                "x": mention.x,
                "a": mention.a,
                "b": mention.b,
                "result_code": code,
                "http": http,
                "user_data": mention.user_data,
                "duration": None,
                "fault": cause.fault,
                "reason": cause.reason,
                **cause.delay(),
            }
        )
        + b"\n"
    )


def binding_of(row: dict[str, Any]) -> Binding:
    """Return the binding an effect row or a ``live`` record describes."""
    return Binding(
        serial=row["serial"],
        subscription_id=row["subscription_id"],
        app_key=row["app_key"],
        mode=row["mode"],
        x=row["x"],
        a=row["a"],
        b=row["b"],
        since_ms=from_rfc3339(row.get("since", row["at"])),
        expires_ms=None if row["expires_at"] is None else from_rfc3339(row["expires_at"]),
        duration=row["duration"],
        call_direction=row["call_direction"],
        max_duration=row["max_duration"],
        user_data=row["user_data"],
        y=row["y"],
        extension=row["extension"],
        extras=row["extras"],
        callee=_callee_of(row.get("callee")),
        callback_s=row.get("callback_s"),
    )


def live_record(binding: Binding) -> dict[str, Any]:
    """Return what compaction writes for a live binding: its effect row without a number."""
    row: dict[str, Any] = orjson.loads(effect_row(0, binding.since_ms, Op.BIND, binding, Cause(), http=None))
    del row["seq"]
    return {"t": "live", **row}

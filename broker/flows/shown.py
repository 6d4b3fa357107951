"""Calls, records and messages as they are shown, with what is encrypted in them opened as far as one may see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from broker.domain import hangup
from broker.domain.ids import public_id
from broker.domain.phone import is_e164, mask
from broker.store import told
from broker.store.crypto import Vault
from broker.store.told import Row, Table

#: The columns of the two who spoke or wrote.
SIDES: Final[Mapping[Table, tuple[str, str]]] = {
    "call": ("caller", "callee"),
    "cdr": ("caller", "callee"),
    "sms": ("sender", "receiver"),
}


class Opened:
    """A row of a table, opened."""

    def __init__(self, table: Table, row: Row, vault: Vault, *, may_see: bool) -> None:
        """``may_see``: numbers in clear."""
        self.row = row
        self._table = table
        self._vault = vault
        self._may_see = may_see

    def shape(self) -> dict[str, Any]:
        """Return the row as it is shown."""
        return _SHAPES[self._table](self)

    def plain(self, column: str) -> str | None:
        """Return what is encrypted in a column, for comparisons."""
        kept = told.sealed(self.row, column)
        return None if kept is None else self._vault.open(self._table, column, 0, UUID(self.row["id"]), kept)

    def masked(self, column: str) -> str | None:
        """Return a number as it may be seen."""
        number = self.plain(column)
        if number is None or self._may_see:
            return number
        return mask(number) if is_e164(number) else "*" * len(number)

    def secret(self, column: str) -> str | None:
        """Return what is only for who may see numbers."""
        return self.plain(column) if self._may_see else None

    @property
    def session(self) -> str | None:
        """The platform's id of the call; one that is made of numbers is for who may see these."""
        session = self.plain("session")
        return session if session is None or self._may_see or "+" not in session else None

    @property
    def common(self) -> dict[str, Any]:
        """Whose it was."""
        pool_id = self.row["pool_id"]
        bindings = [public_id(pool_id, UUID(one)) for one in self.row["bindings"]] if pool_id is not None else []
        return {"bindings": bindings, "found_by": self.row["found_by"], "x": self.row["x"]}


def _call(shown: Opened) -> dict[str, Any]:
    row = shown.row
    steps = (("ended_at", "ended"), ("answered_at", "answered"), ("ringing_at", "ringing"))
    return {
        "id": public_id(0, UUID(row["id"]), "cal_"),
        "session_id": shown.session,
        "state": next((state for name, state in steps if row[name] is not None), "started"),
        **shown.common,
        "extension": row["extension"],
        "caller": shown.masked("caller"),
        "callee": shown.masked("callee"),
        **{name: _moment(row[name]) for name in ("started_at", "ringing_at", "answered_at", "ended_at")},
        "state_code": row["state_code"],
        "reason": hangup.cause(row["state_code"]),
        "released_by": row["released_by"],
        "timeline": row["timeline"],
    }


def _cdr(shown: Opened) -> dict[str, Any]:
    row = shown.row
    times = ("call_in_at", "forward_at", "ringing_at", "answered_at", "ended_at")
    recorded = {"file_name": row["record_name"], "record_domain": row["record_domain"], "at": _moment(row["record_at"])}
    return {
        "id": public_id(0, UUID(row["id"]), "cdr_"),
        "call": public_id(0, UUID(row["call_id"]), "cal_") if row["call_id"] is not None else None,
        "session_id": shown.session,
        **shown.common,
        "extension": row["extension"],
        "direction": row["direction"],
        "caller": shown.masked("caller"),
        "callee": shown.masked("callee"),
        "at": _moment(row["at"]),
        **{name: _moment(row[name]) for name in times},
        "talk_s": row["talk_s"],
        "release_code": row["release_code"],
        "q850": row["q850"],
        "sip": row["sip"],
        "reason": hangup.release(row["release_code"], row["q850"]),
        "released_by": row["released_by"],
        "recording": recorded if row["record_name"] is not None else None,
    }


def _sms(shown: Opened) -> dict[str, Any]:
    row = shown.row
    return {
        "id": public_id(0, UUID(row["id"]), "sms_"),
        **shown.common,
        "direction": row["direction"],
        "sender": shown.masked("sender"),
        "receiver": shown.masked("receiver"),
        "at": _moment(row["at"]),
        "result": row["result"],
        "reason": hangup.sending(row["result"]),
        "segments": row["segments"],
        "content": shown.secret("content"),
    }


_SHAPES: Final[Mapping[Table, Callable[[Opened], dict[str, Any]]]] = {"call": _call, "cdr": _cdr, "sms": _sms}


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)

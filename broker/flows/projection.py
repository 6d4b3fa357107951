"""What a notification becomes in our books: one row of a function that brings all its effects about, or none."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any
from uuid import UUID

from broker.domain import hangup
from broker.domain.ids import dated_id, public_id
from broker.domain.notice import CallEvent, Cdr, Sms
from broker.store.crypto import Vault
from broker.store.inbox import Found

#: Session ids may be made of the numbers that spoke; such a one is not told in events, only to who asks for the call.
_NUMBERS = re.compile(r"\+[0-9]{7}")


def notice_id(vault: Vault, app_id: int, at: datetime, identity: tuple[str, ...]) -> UUID:
    """Return the id that a notification has whoever takes it in."""
    parts = (part.encode() for part in identity)
    return dated_id(at, vault.request_hash(b"notice", b"%d" % app_id, *parts))


def call_id(vault: Vault, app_id: int, session: str) -> UUID:
    """Return the id of a call."""
    return UUID(bytes=vault.request_hash(b"session", b"%d" % app_id, session.encode())[:16])


def item_of(
    vault: Vault, app_id: int, row_id: UUID, notice: CallEvent | Cdr | Sms, found: Found | None
) -> dict[str, Any]:
    """Return the row for the function of the notification's kind."""
    whose: dict[str, Any] = {"at": notice.at, "id": row_id, "app_id": app_id}
    if found is not None:
        whose |= {"pool_id": found.pool_id, "line_id": found.line_id, "found_by": found.found_by}
        whose["bindings"] = found.bindings
    elif isinstance(notice, CallEvent):
        whose["subscription"] = notice.subscription
    match notice:
        case CallEvent():
            return whose | _event(vault, app_id, notice)
        case Cdr():
            return whose | _cdr(vault, app_id, row_id, notice)
        case Sms():
            return whose | _sms(vault, row_id, notice)


def _event(vault: Vault, app_id: int, event: CallEvent) -> dict[str, Any]:
    call = call_id(vault, app_id, event.session)
    sealed = _Sealed(vault, "call", call)
    return {
        "call_id": call,
        "lock": int.from_bytes(call.bytes[:8], "big", signed=True),
        "type": event.type,
        "x": event.x,
        "digits": event.digits,
        "state_code": event.state_code,
        "released_by": event.released_by,
        "session": None if _NUMBERS.search(event.session) else event.session,
        "call": public_id(0, call, "cal_"),
        "reason": hangup.cause(event.state_code),
        **sealed.of("session", event.session),
        **sealed.party("caller", event.caller),
        **sealed.party("callee", event.callee),
    }


def _cdr(vault: Vault, app_id: int, row_id: UUID, cdr: Cdr) -> dict[str, Any]:
    call = call_id(vault, app_id, cdr.session) if cdr.session is not None else None
    sealed = _Sealed(vault, "cdr", row_id)
    told = {
        "cdr": public_id(0, row_id, "cdr_"),
        "call": public_id(0, call, "cal_") if call is not None else None,
        "at": cdr.at,
        "x": cdr.x,
        "direction": cdr.direction,
        "answered_at": cdr.answered_at,
        "talk_s": cdr.talk_s,
        "reason": hangup.release(cdr.release_code, cdr.q850),
        "recorded": cdr.recorded,
    }
    return {
        "call_id": call,
        "x": cdr.x,
        "extension": cdr.digits,
        "direction": cdr.direction,
        "call_in_at": cdr.call_in_at,
        "forward_at": cdr.forward_at,
        "ringing_at": cdr.ringing_at,
        "answered_at": cdr.answered_at,
        "ended_at": cdr.ended_at,
        "talk_s": cdr.talk_s,
        "release_code": cdr.release_code,
        "q850": cdr.q850,
        "sip": cdr.sip,
        "released_by": cdr.released_by,
        "recorded": cdr.recorded,
        "record_name": cdr.record_name,
        "record_domain": cdr.record_domain,
        "record_at": cdr.record_at,
        "told": told,
        **sealed.of("session", cdr.session),
        **sealed.party("caller", cdr.caller),
        **sealed.party("callee", cdr.callee),
    }


def _sms(vault: Vault, row_id: UUID, sms: Sms) -> dict[str, Any]:
    sealed = _Sealed(vault, "sms", row_id)
    told = {
        "sms": public_id(0, row_id, "sms_"),
        "at": sms.at,
        "x": sms.x,
        "direction": sms.direction,
        "segments": sms.segments,
        "reason": hangup.sending(sms.result),
    }
    return {
        "question": sms.question,
        "x": sms.x,
        "result": sms.result,
        "segments": sms.segments,
        "direction": sms.direction,
        "told": told,
        **sealed.party("sender", sms.sender),
        **sealed.party("receiver", sms.receiver),
        **sealed.of("content", sms.content),
    }


class _Sealed:
    """Encrypts what one row holds of people, in the form that PostgreSQL reads bytes in."""

    def __init__(self, vault: Vault, table: str, row_id: UUID) -> None:
        self._vault = vault
        self._table = table
        self._row_id = row_id

    def of(self, column: str, plain: str | None) -> dict[str, Any]:
        if plain is None:
            return {}
        return {f"{column}_sealed": "\\x" + self._vault.seal(self._table, column, 0, self._row_id, plain).hex()}

    def party(self, column: str, number: str | None) -> dict[str, Any]:
        if number is None:
            return {}
        return {f"{column}_key": self._vault.party_key(number), **self.of(column, number)}

"""``/v1/calls``, ``/v1/cdrs`` and ``/v1/sms``: what the platform told of an app, newest first, page by page."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from aiohttp import web

from broker.api import parse
from broker.api.context import Heard, Reply, Services
from broker.api.idempotent import Handler
from broker.api.reply import pack
from broker.domain import hangup
from broker.domain.ids import parse_public_id, public_id
from broker.domain.phone import is_e164, mask
from broker.errors import FieldError, Invalid
from broker.store import told
from broker.store.told import BEGINNING, END, NEWEST, Row, Sought, Table

_MAC_BYTES = 16
_STEP = timedelta(microseconds=1)
_SIDES: dict[Table, tuple[str, str]] = {
    "call": ("caller", "callee"),
    "cdr": ("caller", "callee"),
    "sms": ("sender", "receiver"),
}


def listed(table: Table, path: str) -> Handler:
    """Return the handler of ``GET path``."""

    async def show(request: web.Request, services: Services, heard: Heard) -> Reply:
        items, cursor = await _page(table, parse.told_query(request), None, services, heard)
        following = None
        if cursor is not None:
            given = {name: value for name, value in request.query.items() if name != "cursor"}
            following = f"{path}?{urlencode({**given, 'cursor': cursor})}"
        return Reply(200, pack({"items": items, "next_cursor": cursor}), next_page=following)

    return show


def searched(table: Table) -> Handler:
    """Return the handler of ``POST path:search``."""

    async def search(_request: web.Request, services: Services, heard: Heard) -> Reply:
        asked = parse.body_as(parse.ToldSearch, heard.body)
        party = asked.party.reveal() if asked.party is not None else None
        items, cursor = await _page(table, asked, party, services, heard)
        return Reply(200, pack({"items": items, "next_cursor": cursor}))

    return search


async def _page(
    table: Table, asked: parse.ToldQuery, party: str | None, services: Services, heard: Heard
) -> tuple[list[dict[str, Any]], str | None]:
    """Return a page and the cursor of the next one. A page may be short, even empty, while there are more."""
    app_id, vault = heard.key.app.id, services.vault
    filters = (asked.binding_id, asked.order_id, asked.x, asked.since, asked.until, party)
    query = vault.request_hash(table.encode(), b"%d" % app_id, *(str(value or "").encode() for value in filters))
    rows = await told.page(
        services.reach.db,
        table,
        Sought(
            app_id=app_id,
            limit=asked.limit,
            before=_opened(asked.cursor, query) if asked.cursor is not None else NEWEST,
            since=asked.since or BEGINNING,
            until=asked.until or END,
            bindings=await _bindings(asked, services, app_id),
            x=asked.x,
            party_key=vault.party_key(party) if party is not None else None,
        ),
    )
    items = []
    for row in rows:
        shown = _Shown(table, row, services, may_see="reveal" in heard.key.scopes)
        # Its key may be another one's, too.
        if party is None or party in [shown.plain(side) for side in _SIDES[table]]:
            items.append(_SHAPES[table](shown))
    heard.notes["items"] = len(items)
    last = rows[-1] if len(rows) == asked.limit else None
    return items, _sealed(datetime.fromisoformat(last["at"]), UUID(last["id"]), query) if last is not None else None


async def _bindings(asked: parse.ToldQuery, services: Services, app_id: int) -> tuple[UUID, ...] | None:
    found: tuple[UUID, ...] | None = None
    if asked.order_id is not None:
        found = await told.bindings_of_order(services.reach.db, app_id, asked.order_id)
    if asked.binding_id is not None:
        key = parse_public_id(asked.binding_id)
        one = (key[1],) if key is not None else ()
        found = one if found is None else tuple(binding for binding in found if binding in one)
    return found


class _Shown:
    """A row, with what is encrypted in it opened as far as the key may see it."""

    def __init__(self, table: Table, row: Row, services: Services, *, may_see: bool) -> None:
        self.row = row
        self._table = table
        self._vault = services.vault
        self._may_see = may_see

    def plain(self, column: str) -> str | None:
        kept = told.sealed(self.row, column)
        return None if kept is None else self._vault.open(self._table, column, 0, UUID(self.row["id"]), kept)

    def masked(self, column: str) -> str | None:
        number = self.plain(column)
        if number is None or self._may_see:
            return number
        return mask(number) if is_e164(number) else "*" * len(number)

    def secret(self, column: str) -> str | None:
        return self.plain(column) if self._may_see else None

    @property
    def session(self) -> str | None:
        """The platform's id of the call; one that is made of numbers is for who may see these."""
        session = self.plain("session")
        return session if session is None or self._may_see or "+" not in session else None

    @property
    def common(self) -> dict[str, Any]:
        pool_id = self.row["pool_id"]
        bindings = [public_id(pool_id, UUID(one)) for one in self.row["bindings"]] if pool_id is not None else []
        return {"bindings": bindings, "found_by": self.row["found_by"], "x": self.row["x"]}


def _call(shown: _Shown) -> dict[str, Any]:
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


def _cdr(shown: _Shown) -> dict[str, Any]:
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


def _sms(shown: _Shown) -> dict[str, Any]:
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


_SHAPES: dict[Table, Callable[[_Shown], dict[str, Any]]] = {"call": _call, "cdr": _cdr, "sms": _sms}


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _sealed(at: datetime, row_id: UUID, query: bytes) -> str:
    raw = ((at - BEGINNING) // _STEP).to_bytes(8, "big") + row_id.bytes
    return base64.urlsafe_b64encode(raw + hmac.digest(query, raw, "sha256")[:_MAC_BYTES]).rstrip(b"=").decode()


def _opened(cursor: str, query: bytes) -> tuple[datetime, UUID]:
    """Return where the page before ended.

    Raises:
        Invalid: the cursor is not ours, or belongs to another app or other filters.
    """
    try:
        raw = base64.b64decode(cursor.encode() + b"=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    place, mac = raw[:24], raw[24:]
    if not hmac.compare_digest(mac, hmac.digest(query, place, "sha256")[:_MAC_BYTES]):
        raise Invalid(
            "Some fields are wrong; see errors.",
            errors=(FieldError("/cursor", "is not a cursor of this query; begin again without it"),),
        )
    return BEGINNING + int.from_bytes(place[:8], "big") * _STEP, UUID(bytes=place[8:])

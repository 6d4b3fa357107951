"""``/v1/calls``, ``/v1/cdrs`` and ``/v1/sms``: what the platform told of an app, newest first, by pages or whole."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from aiohttp import web

from broker.api import parse
from broker.api.context import Heard, Reply, Services
from broker.api.idempotent import Handler, Reader
from broker.api.reach import who_is
from broker.api.reply import pack
from broker.domain import tabular
from broker.domain.ids import parse_public_id
from broker.domain.tabular import Format
from broker.errors import FieldError, Invalid, Problem
from broker.flows.inwork import aside
from broker.flows.shown import SIDES, Opened
from broker.store import told
from broker.store.crypto import SealBroken
from broker.store.told import BEGINNING, END, NEWEST, Sought, Table

_MAC_BYTES = 16
_STEP = timedelta(microseconds=1)
_FORMATS: dict[str, Format] = {"text/csv": "csv", "application/x-ndjson": "ndjson"}
#: Rows of one look into the database while everything is sent; who takes nothing for so long is cut off.
_SLICE = 200
_SLOW_S = 10.0
#: Nobody is sent more than what goes in this time.
_LONGEST_S = 3600.0


def listed(table: Table, path: str) -> Reader:
    """Return the handler of ``GET path``."""

    async def show(request: web.Request, services: Services, heard: Heard) -> Reply | web.StreamResponse:
        asked = parse.told_query(request)
        accepted = request.headers.get("Accept", "").partition(",")[0].partition(";")[0].strip()
        if accepted in _FORMATS and request.method == "GET":
            with services.exports.one_more(heard.key.app.id):
                return await _export(table, accepted, asked, request, services, heard)
        items, cursor = await _page(table, asked, None, services, heard)
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


async def _export(
    table: Table, accepted: str, asked: parse.ToldQuery, request: web.Request, services: Services, heard: Heard
) -> web.StreamResponse:
    """Send everything from the cursor on, slice by slice; an answer that is cut off has no last chunk."""
    form = _FORMATS[accepted]
    # What is wrong with the question is told by the first look, before anything is sent.
    slice_ = asked.model_copy(update={"limit": _SLICE})
    items, cursor = await _page(table, slice_, None, services, heard)
    headers = {"Content-Type": accepted, "Cache-Control": "no-store", "X-Request-Id": heard.request_id}
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    sent = 0
    try:
        async with asyncio.timeout(_LONGEST_S):
            await _write(response, tabular.head(table, form))
            while True:
                await _write(response, tabular.lines(table, form, items))
                sent += len(items)
                if cursor is None:
                    break
                slice_ = slice_.model_copy(update={"cursor": cursor})
                items, cursor = await _page(table, slice_, None, services, heard)
        with aside():
            async with asyncio.timeout(_SLOW_S):
                await response.write_eof()
    except (Problem, SealBroken, ConnectionError, TimeoutError):
        # The status has been sent: what is missing is told by how the connection ends.
        if request.transport is not None:
            request.transport.abort()
    heard.notes["items"] = sent
    return response


async def _write(response: web.StreamResponse, text: bytes) -> None:
    if text:
        with aside():
            async with asyncio.timeout(_SLOW_S):
                await response.write(text)


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
    may_see = "reveal" in heard.key.scopes
    if may_see and rows:
        await told.audit(services.reach.db, who_is(heard.key), app_id, table, rows)
    items = []
    for row in rows:
        opened = Opened(table, row, vault, may_see=may_see)
        # Its key may be another one's, too.
        if party is None or party in [opened.plain(side) for side in SIDES[table]]:
            items.append(opened.shape())
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

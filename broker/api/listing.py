"""``GET /v1/bindings`` and ``POST /v1/bindings:search``: the caller's bindings, newest first, page by page."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
from urllib.parse import urlencode
from uuid import UUID

from aiohttp import web

from broker.api import parse
from broker.api.context import Heard, Reply, Services
from broker.api.reply import pack
from broker.api.shape import shape
from broker.errors import FieldError, Invalid
from broker.store.bindings import Binding
from broker.store.listing import NEWEST, Page, Place, Wanted
from broker.store.registry import Registry

_MAC_BYTES = 16


async def show_some(request: web.Request, services: Services, heard: Heard) -> Reply:
    """``GET /v1/bindings``."""
    asked = parse.list_query(request)
    items, cursor = await _page(asked, None, services, heard)
    following = None
    if cursor is not None:
        filters = asked.model_dump(exclude_none=True, include={"order_id", "x", "state", "limit"})
        following = f"/v1/bindings?{urlencode({**filters, 'cursor': cursor})}"
    return Reply(200, _body(items, cursor, services), next_page=following)


async def search(_request: web.Request, services: Services, heard: Heard) -> Reply:
    """``POST /v1/bindings:search``."""
    asked = parse.body_as(parse.SearchRequest, heard.body)
    items, cursor = await _page(asked, asked.party.reveal() if asked.party is not None else None, services, heard)
    return Reply(200, _body(items, cursor, services))


def _body(items: list[Binding], cursor: str | None, services: Services) -> bytes:
    registry = services.registry()
    return pack({"items": [shape(binding, registry) for binding in items], "next_cursor": cursor})


async def _page(
    asked: parse.ListRequest, party: str | None, services: Services, heard: Heard
) -> tuple[list[Binding], str | None]:
    """Return a page and the cursor of the next one. A page may be short, even empty, while there are more."""
    registry, app_id = services.registry(), heard.key.app.id
    query = services.vault.request_hash(
        b"cursor", b"%d" % app_id, *((value or "").encode() for value in (asked.order_id, asked.x, asked.state, party))
    )
    before = _opened(asked.cursor, query) if asked.cursor is not None else NEWEST
    pools = tuple(pool.id for pool in registry.app_pools.get(app_id, ()))
    place = _place_of(asked.x, pools, registry) if asked.x is not None else None
    if asked.x is not None and place is None:
        return [], None
    page = await services.find(
        Wanted(
            app_id=app_id, pools=pools, limit=asked.limit, before=before, order_id=asked.order_id, x=place,
            state=asked.state, party_key=services.vault.party_key(party) if party is not None else None,
        )
    )  # fmt: skip
    items = [binding for binding in await _read(page, services) if _fits(binding, asked, party, app_id)]
    heard.notes["items"] = len(items)
    return items, _sealed(page.next_before, query) if page.next_before is not None else None


async def _read(page: Page, services: Services) -> list[Binding]:
    found = await asyncio.gather(*(services.show.enqueue(row) for row in page.rows))
    return [binding for binding in found if binding is not None]


def _fits(binding: Binding, asked: parse.ListRequest, party: str | None, app_id: int) -> bool:
    """Apply every filter to what was read: an index may know some of them only, and a party's key may collide."""
    return (
        binding.app_id == app_id
        and (asked.order_id is None or binding.order_id == asked.order_id)
        # While a bind is pending its X is no news to tell, but who asks for that X may know.
        and (asked.x is None or binding.x == asked.x)
        and (asked.state is None or binding.state == asked.state)
        and (party is None or party in binding.parties)
    )


def _place_of(x: str, pools: tuple[int, ...], registry: Registry) -> Place | None:
    for pool_id in pools:
        numbers = registry.pools[pool_id].numbers
        if x in numbers:
            return Place(pool_id, numbers.index(x))
    return None


def _sealed(before: UUID, query: bytes) -> str:
    mac = hmac.digest(query, before.bytes, "sha256")[:_MAC_BYTES]
    return base64.urlsafe_b64encode(before.bytes + mac).rstrip(b"=").decode()


def _opened(cursor: str, query: bytes) -> UUID:
    """Return where the page before ended.

    Raises:
        Invalid: the cursor is not ours, or belongs to another app or other filters.
    """
    try:
        raw = base64.b64decode(cursor.encode() + b"=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        before = UUID(bytes=raw[:16])
    except (binascii.Error, ValueError):
        raw, before = b"", NEWEST
    if not hmac.compare_digest(raw[16:], hmac.digest(query, before.bytes, "sha256")[:_MAC_BYTES]):
        raise Invalid(
            "Some fields are wrong; see errors.",
            errors=(FieldError("/cursor", "is not a cursor of this query; begin again without it"),),
        )
    return before

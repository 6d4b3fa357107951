"""``GET /v1/calls:summary``: calls and messages by day, and what they cost."""

from __future__ import annotations

from aiohttp import web

from broker.api import parse
from broker.api.context import Heard, Reply, Services
from broker.api.reply import pack
from broker.errors import FieldError, Invalid
from broker.store.summary import MOST_ROWS, Period, summary


async def show(request: web.Request, services: Services, heard: Heard) -> Reply:
    """``GET /v1/calls:summary``."""
    asked = parse.summary_query(request)
    items = await summary(services.reach.db, heard.key.app.id, Period(asked.first, asked.last, asked.zone, asked.by))
    if items is None:
        wrong = FieldError("/by", f"gives more than {MOST_ROWS} rows for these days; ask for fewer days")
        raise Invalid("The answer would be too large; see errors.", errors=(wrong,))
    heard.notes["items"] = len(items)
    return Reply(200, pack({"zone": asked.zone, "items": items}))

"""Webhooks of an app, deliveries that wait or were given up, and sending again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

import orjson
from pydantic import AfterValidator, Field, PlainValidator

from broker.domain.events import event_id, expand, parse_event_id
from broker.domain.ids import public_id
from broker.domain.reach import moment
from broker.domain.webhook import is_secret, new_secret
from broker.errors import Conflict, FieldError, Invalid, NotFound
from broker.flows.operate.desk import Desk, Shown, app_id
from broker.flows.operate.fields import Given, Name
from broker.log import scrubbed
from broker.store import events
from broker.store.statements import statements
from broker.store.webhooks import sealed

#: Of one app.
MOST_WEBHOOKS: Final = 20
#: Events that one replay sends again at most.
MOST_REPLAYED: Final = 10_000
_SPAN: Final = 2000
_LONG_S: Final = 60.0
_TEST: Final = "webhook.test"
_LOOK_S: Final = 0.2


def _url(value: str) -> str:
    try:
        parts = urlsplit(value)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or not value.isascii() or not value.isprintable() or " " in value or parts.username or parts.fragment:
        raise ValueError("must be an address as https://orders.example.com/events, without user and fragment")
    return value


def _types(value: list[str]) -> list[str]:
    types = expand(value)
    if types is None:
        raise ValueError("names a type that there is not; binding.* is all of a kind")
    return types


def _key(value: str) -> str:
    if not is_secret(value):
        raise ValueError("must be whsec_ and 24 to 64 bytes in base64")
    return value


def _moment(value: object) -> datetime:
    return moment(value if isinstance(value, str) else "")


Time = Annotated[datetime, PlainValidator(_moment)]
Types = Annotated[list[str], Field(min_length=1, max_length=50), AfterValidator(_types)]
Key = Annotated[str, AfterValidator(_key)]


class NewWebhook(Given):
    """Where to send which events; without ``types`` all, without ``secret`` signed with a new one."""

    name: Name
    url: Annotated[str, Field(max_length=2000), AfterValidator(_url)]
    types: Types | None = None
    secret: Annotated[Key | None, Field(repr=False)] = None


class Rotation(Given):
    """A new secret, and how long the old one signs too."""

    secret: Annotated[Key | None, Field(repr=False)] = None
    overlap_s: Annotated[int, Field(ge=0, le=2_592_000)] = 86_400


class Replay(Given):
    """Which events to send again: from ``since`` to before ``until``, of ``types``, or those of ``ids``."""

    since: Time | None = None
    until: Time | None = None
    types: Types | None = None
    ids: Annotated[list[str], Field(min_length=1, max_length=1000)] | None = None
    after: str | None = None


class DeliveryFilter(Given):
    """Which deliveries to list."""

    state: Literal["waiting", "dead"] | None = None
    after: str | None = None
    limit: Annotated[int, Field(ge=1, le=10_000)] = 50


async def every(desk: Desk, app: str) -> list[Shown]:
    """Return the webhooks of an app, and how they do."""
    return [_shown(row) for row in await desk.db.fetch(statements("webhooks")["every"], await app_id(desk, app), None)]


async def show(desk: Desk, app: str, name: str) -> Shown:
    """Return one webhook.

    Raises:
        NotFound: there is no such app or webhook.
    """
    row = await desk.db.fetchrow(statements("webhooks")["every"], await app_id(desk, app), name)
    if row is None:
        raise _no_webhook(name)
    return _shown(row)


async def add(desk: Desk, app: str, new: NewWebhook) -> Shown:
    """Begin to send what happens from now on; the answer alone shows the secret.

    Raises:
        NotFound: there is no such app.
        Conflict: it has a webhook of this name, or as many as it may have.
    """
    secret = new.secret or new_secret()
    row = await desk.db.fetchrow(
        statements("webhooks")["add"], await app_id(desk, app), new.name, new.url, new.types,
        sealed(desk.vault, app, new.name, secret), MOST_WEBHOOKS,
    )  # fmt: skip
    if row is None:
        raise Conflict(f"There is a webhook of this name, or the app has {MOST_WEBHOOKS} already.")
    return {**await show(desk, app, new.name), "secret": secret}


async def rotate(desk: Desk, app: str, name: str, wanted: Rotation) -> Shown:
    """Sign with a new secret and, for a while, with the old one too; the answer alone shows the new one."""
    secret = wanted.secret or new_secret()
    await _change(desk, app, name, "rotate", sealed(desk.vault, app, name, secret), wanted.overlap_s)
    return {**await show(desk, app, name), "secret": secret}


async def enable(desk: Desk, app: str, name: str) -> Shown:
    """Send again, beginning with what happened meanwhile, as far as it is kept."""
    await _change(desk, app, name, "turn", "enabled", None)
    return await show(desk, app, name)


async def disable(desk: Desk, app: str, name: str) -> Shown:
    """Send nothing; the position is kept."""
    await _change(desk, app, name, "turn", "disabled", "operator")
    return await show(desk, app, name)


async def remove(desk: Desk, app: str, name: str) -> Shown:
    """Forget a webhook and what waits for it."""
    await _change(desk, app, name, "remove")
    return {"name": name, "removed": True}


async def test(desk: Desk, app: str, name: str, *, wait_s: float) -> Shown:
    """Send an event of type ``webhook.test`` the way that all go, and tell what came of it.

    Raises:
        NotFound: there is no such app or webhook.
        Conflict: it is disabled, or its app keeps no events.
    """
    owner = await app_id(desk, app)
    before = await show(desk, app, name)
    if before["state"] != "enabled":
        raise Conflict(f"The webhook '{name}' is disabled.")
    told = orjson.dumps({"webhook": name}).decode()
    if await desk.db.fetchrow(statements("webhooks")["tell_test"], owner, _TEST, told) is None:
        raise Conflict(f"The app '{app}' keeps no events (event_days 0).")
    loop = asyncio.get_running_loop()
    deadline = loop.time() + wait_s
    now = before
    while loop.time() < deadline:
        await asyncio.sleep(_LOOK_S)
        now = await show(desk, app, name)
        if now["delivered_at"] != before["delivered_at"] or now["failed_at"] != before["failed_at"]:
            break
    accepted = now["delivered_at"] != before["delivered_at"]
    failed = now["failed_at"] != before["failed_at"]
    return {
        "name": name,
        "accepted": accepted,
        "error": now["error"] if failed else None if accepted else "not sent yet",
    }


async def deliveries(desk: Desk, app: str, name: str, wanted: DeliveryFilter) -> list[Shown]:
    """Return what waits for a webhook and what was given up, oldest first."""
    owner = await app_id(desk, app)
    await show(desk, app, name)
    after = 0 if wanted.after is None else _pos(wanted.after, owner, "/after")
    rows = await desk.db.fetch(statements("webhooks")["parked"], owner, name, wanted.state, after, wanted.limit)
    return [
        {
            "id": event_id(owner, row["pos"]),
            "type": row["type"],
            "binding_id": None if row["about"] is None else public_id(row["pool_id"] or 0, row["about"]),
            "state": row["state"],
            "attempts": row["attempts"],
            "tried_at": row["tried_at"],
            "due_at": row["due_at"] if row["state"] == "waiting" else None,
            "error": row["error"],
        }
        for row in rows
    ]


async def revive(desk: Desk, app: str, name: str) -> Shown:
    """Send dead letters again."""
    owner = await app_id(desk, app)
    await show(desk, app, name)
    rows = await desk.db.fetch(statements("webhooks")["revive"], owner, name, MOST_REPLAYED)
    return {"name": name, "replayed": len(rows), "after": None}


async def replay(desk: Desk, app: str, name: str, wanted: Replay) -> Shown:
    """Send events again that the webhook has had; ``after`` in the answer = there are more, ask again with it."""
    owner = await app_id(desk, app)
    await show(desk, app, name)
    if wanted.ids is not None:
        return {"name": name, "replayed": await _replay_ids(desk, owner, name, wanted.ids), "after": None}
    feed = await events.feed(desk.db, owner)
    at = feed.swept if wanted.after is None else _pos(wanted.after, owner, "/after")
    replayed = 0
    while at < feed.upto and replayed <= MOST_REPLAYED - _SPAN:
        replayed += await _replay(desk, owner, name, at, _SPAN, wanted)
        at += _SPAN
    return {"name": name, "replayed": replayed, "after": event_id(owner, at) if at < feed.upto else None}


async def _replay_ids(desk: Desk, owner: int, name: str, ids: Sequence[str]) -> int:
    places = [_pos(one, owner, f"/ids/{place}") for place, one in enumerate(ids)]
    return sum([await _replay(desk, owner, name, pos - 1, 1, Replay()) for pos in sorted(set(places))])


async def _replay(desk: Desk, owner: int, name: str, after: int, span: int, wanted: Replay) -> int:
    rows = await desk.db.fetch(
        statements("webhooks")["replay"], owner, name, after, span, wanted.since, wanted.until, wanted.types,
        timeout_s=_LONG_S,
    )  # fmt: skip
    return len(rows)


def _pos(text: str, owner: int, pointer: str) -> int:
    pos = parse_event_id(text, owner)
    if pos is None:
        raise Invalid("Some fields are wrong; see errors.", errors=(FieldError(pointer, "is no event of this app"),))
    return pos


async def _change(desk: Desk, app: str, name: str, statement: str, *values: object) -> None:
    if await desk.db.fetchrow(statements("webhooks")[statement], await app_id(desk, app), name, *values) is None:
        raise _no_webhook(name)


def _shown(row: object) -> Shown:
    shown = dict(row)  # type: ignore[call-overload] # a record is a mapping
    del shown["id"]
    return shown  # type: ignore[no-any-return]


def _no_webhook(name: str) -> NotFound:
    return NotFound(f"There is no webhook '{scrubbed(name)}' in this app.")

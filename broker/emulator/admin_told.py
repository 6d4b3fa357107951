"""The admin port's messages and states of numbers, and what apps were told of everything."""

from __future__ import annotations

from typing import Annotated, Any, Final

from aiohttp import web
from pydantic import Field, StringConstraints

from broker.emulator.admin_http import Input, paging, read, refuse, reply
from broker.emulator.calls import Calls
from broker.emulator.core import Core
from broker.emulator.messages import Messages
from broker.emulator.pushing import Pusher
from broker.emulator.told import Kind
from broker.emulator.trouble import Trouble

_BARRING: Final = frozenset({"9", "10"})
"""Suspended, unavailable: neither calls nor messages (contract 6.7)."""


class _MessageIn(Input):
    sender: Annotated[str, Field(alias="from", max_length=31)]
    to: Annotated[str, Field(max_length=31)]
    content: Annotated[str, Field(max_length=2_000)] = ""


class _StatusIn(Input):
    number: Annotated[str, Field(max_length=31)]
    status: Annotated[str, StringConstraints(pattern=r"^(5|9|10|11)$")]
    cause: Annotated[str, StringConstraints(pattern=r"^[0-9]{1,2}$")] | None = None


class _StatusesIn(Input):
    items: Annotated[list[_StatusIn], Field(min_length=1, max_length=100)]


class ToldRoutes:
    """Handlers of messages, states of numbers, and of the ledger of what was told."""

    def __init__(self, core: Core, calls: Calls, messages: Messages, pusher: Pusher) -> None:
        self._core = core
        self._calls = calls
        self._messages = messages
        self._pusher = pusher

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.post("/emulator/sms", self.send),
            web.post("/emulator/number-status", self.set_status),
            web.get("/emulator/told", self.told),
            web.get("/emulator/traffic", self.traffic),
            web.get("/emulator/trouble", self.trouble),
            web.put("/emulator/trouble", self.set_trouble),
        ]

    async def send(self, request: web.Request) -> web.Response:
        """Send a message to a number of the platform; the answer says who got it (contract 6.6)."""
        given = await read(request, _MessageIn)
        return reply(await self._messages.send(given.sender, given.to, given.content))

    async def set_status(self, request: web.Request) -> web.Response:
        """Give numbers a status and tell their apps (contract 6.7)."""
        given = await read(request, _StatusesIn)
        if any(item.number not in self._core.registry.owners for item in given.items):
            raise refuse(422, "a number belongs to no app")
        for item in given.items:
            app = self._core.registry.owners[item.number]
            (app.barred.add if item.status in _BARRING else app.barred.discard)(item.number)
            body = {"number": item.number, "status": item.status}
            if item.cause is not None:
                body["cause"] = item.cause
            self._pusher.tell(app.config, Kind.NUMBER_STATUS, "numStatus", item.number, body)
        return reply({"told": len(given.items)})

    async def told(self, request: web.Request) -> web.Response:
        """List everything apps were told, in order: the truth that receivers are compared with.

        ``GET /emulator/told?after=&limit=&app_key=&kind=`` answers ``{"items": [...], "next": N or null}``; ``next``
        is the ``after`` of the next page (a page of a filter may be short, or empty, and still have a next). One item
        is one thing, however often and however packed it was pushed:

        ``seq``; ``at`` (when it happened, RFC 3339); ``kind`` (``events``, ``cdr``, ``sms``, ``sms-control``,
        ``number-status``); ``app_key``; ``type`` (of an event ``callin`` ... ``disconnect``, else ``fee``, ``Notify``,
        ``Block``, ``numStatus``); ``x``; ``session_id``, ``subscription_id`` and ``user_data`` if there are any, also
        where ``missing_fields`` kept them from the push; ``body`` (``statusInfo``, ``FeeInfo``, ``smsEvent`` or
        ``numInfo`` as pushed, without the envelope); ``state`` (``waiting``, ``delivered``: a 200 was heard,
        ``given_up``, ``unaddressed``: the app has no such address); ``pushes`` (requests that carried it); ``status``
        (the last answer's); ``delivered_at``. The newest ``keep_told`` rows are kept, of this process.
        """
        after, limit = paging(request)
        app_key, kind = request.query.get("app_key"), request.query.get("kind")
        rows, cursor = self._pusher.told.read(after, limit)
        wanted = (row for row in rows if app_key in {None, row.app_key} and kind in {None, row.kind})
        return reply({"items": [row.shown() for row in wanted], "next": cursor})

    async def traffic(self, request: web.Request) -> web.Response:
        """Count calls by release cause, messages by result, pushes by what became of them, in this process.

        ``pushes``: ``sent`` requests, of them ``failed``; ``retried`` by the schedule, ``repeated`` without need;
        things ``delivered``, ``given_up``, ``unaddressed``. ``waiting``: pushes under way. ``told``: the ledger's end.
        """
        del request
        pusher = self._pusher
        return reply(
            {
                "calls": dict(self._calls.counts),
                "messages": dict(self._messages.counts),
                "pushes": dict(pusher.counts),
                "waiting": pusher.waiting,
                "told": pusher.told.last,
            }
        )

    async def trouble(self, request: web.Request) -> web.Response:
        """Show how pushes go wrong at present."""
        del request
        return reply(self._shown())

    async def set_trouble(self, request: web.Request) -> web.Response:
        """Have pushes go wrong from now on as told; ``{}`` ends all of it."""
        self._pusher.dice.trouble = await read(request, Trouble)
        return reply(self._shown())

    def _shown(self) -> dict[str, Any]:
        return self._pusher.dice.trouble.model_dump()

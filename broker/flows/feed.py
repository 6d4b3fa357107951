"""The feed of an app's events: reading on from a cursor, and waiting for what is not there yet.

Whoever waits is woken by one look at the database for all of this process, so a thousand waiters cost what one costs.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from broker.domain.events import Event
from broker.errors import FieldError, Gone, Invalid, Unavailable
from broker.store import events
from broker.store.database import Database
from broker.store.events import Feed

_LOOK_S: Final = 0.1
_SPAN: Final = 500
#: Most spans that one request reads in search of what its filters let through.
_SPANS: Final = 10
_MOST_WAITERS: Final = 1000
_MOST_OF_APP: Final = 200


@dataclass(frozen=True, slots=True)
class Slice:
    """Some events, and the position up to which the feed has been looked through; ``more`` may follow at once."""

    items: list[Event]
    upto: int
    more: bool


class Feeds:
    """How far every app's feed goes, as this process last saw it."""

    def __init__(self, db: Database) -> None:
        """Nothing is looked at before somebody waits."""
        self._db = db
        self._known: dict[int, Feed] = {}
        self._waiting: Counter[int] = Counter()
        self._moved = asyncio.Condition()
        self._closed = False

    @property
    def waiting(self) -> int:
        """How many wait or listen."""
        return self._waiting.total()

    def close(self) -> None:
        """Let everybody go who waits, now and from now on."""
        self._closed = True

    @property
    def closed(self) -> bool:
        """Whether this process is about to end."""
        return self._closed

    async def look(self) -> bool:
        """See how far the feeds go, if anybody wants to know; a service calls this again and again."""
        if self._closed or self._waiting:
            if not self._closed:
                self._known = dict(await events.feeds(self._db))
            async with self._moved:
                self._moved.notify_all()
        return False

    @property
    def look_s(self) -> float:
        """How often to look."""
        return _LOOK_S

    def upto(self, app_id: int) -> int:
        """Return how far an app's feed went when last seen."""
        return self._known.get(app_id, Feed()).upto

    @asynccontextmanager
    async def waiter(self, app_id: int) -> AsyncIterator[None]:
        """Be one of those who may wait.

        Raises:
            Unavailable: there are as many as there may be.
        """
        if self._waiting.total() >= _MOST_WAITERS or self._waiting[app_id] >= _MOST_OF_APP:
            raise Unavailable("Too many wait for events.", code="overloaded")
        self._waiting[app_id] += 1
        try:
            yield
        finally:
            self._waiting[app_id] -= 1
            if not self._waiting[app_id]:
                del self._waiting[app_id]

    async def beyond(self, app_id: int, pos: int, wait_s: float) -> bool:
        """Wait until an app's feed goes beyond ``pos``; whether it does. Not longer than ``wait_s``."""
        try:
            async with asyncio.timeout(max(wait_s, 0)), self._moved:
                await self._moved.wait_for(lambda: self._closed or self.upto(app_id) > pos)
        except TimeoutError:
            return False
        return not self._closed

    async def read(
        self, app_id: int, after: int, *, limit: int, types: Sequence[str] | None, binding_id: UUID | None
    ) -> Slice:
        """Read up to ``limit`` of what is asked for after a position, looking through a bounded part of the feed."""
        upto = (await events.feed(self._db, app_id)).upto
        found: list[Event] = []
        for _ in range(_SPANS):
            if after >= upto:
                break
            some = await events.read(
                self._db, app_id, after, span=min(_SPAN, upto - after), types=types, binding_id=binding_id
            )
            room = limit - len(found)
            if len(some) > room:
                found += some[:room]
                return Slice(found, found[-1].pos, more=True)
            found += some
            after = min(after + _SPAN, upto)
            if len(found) == limit:
                break
        return Slice(found, after, more=after < upto)

    async def begin(self, app_id: int, after: int | None) -> int:
        """Return where to begin: after a cursor, or (None) with the oldest event that is kept.

        Raises:
            Gone: events after the cursor are kept no more.
            Invalid: the feed does not go that far.
        """
        feed = await events.feed(self._db, app_id)
        if after is None:
            return feed.swept
        if after < feed.swept:
            raise Gone("Events after this cursor are kept no more; begin again without it.", code="cursor_too_old")
        if after > feed.upto:
            raise Invalid(
                "A parameter is wrong; see errors.",
                errors=(FieldError("/after", "names an event that is yet to come"),),
            )
        return after

    async def end(self, app_id: int) -> int:
        """Return the newest position."""
        return (await events.feed(self._db, app_id)).upto

"""Taking an existing state of the platform into empty books: place by place, resumable, with every cost said before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass

from broker.domain.drift import Kind, Policy, compare
from broker.domain.ids import new_id
from broker.errors import Conflict
from broker.store import drift as store
from broker.store.crypto import Vault
from broker.store.database import Database
from broker.store.drift import Place, Run, Tally
from broker.store.registry import App
from broker.workers.audit import cursor
from broker.workers.compare import adopt
from broker.workers.looking import Look, Looker, Pace
from broker.workers.sender import Sender

#: An import whose process has died may be gone on with after this.
_LEASE_S = 60.0
#: Places asked about at once; the pace is the limit's.
WIDTH = 8

#: Told how many places have been looked at.
Progress = Callable[[int], None]


@dataclass(slots=True)
class Imported:
    """What an import came to: bindings that the platform shows, of these new in our books, known, and left out."""

    places: int = 0
    calls: int = 0
    shown: int = 0
    adopted: int = 0
    known: int = 0
    left_out: int = 0


class Importer:
    """One app's import. ``places``: those to ask about; None = all that the app has (of AXE: every extension)."""

    def __init__(
        self, db: Database, vault: Vault, sender: Sender, app: App, *, per_s: float, places: Sequence[Place] | None
    ) -> None:
        """``per_s``: platform calls a second, at most."""
        self._db = db
        self._vault = vault
        self._sender = sender
        self._app = app
        self._pace = Pace(per_s)
        self._places = places
        self._owner = new_id()

    async def count(self) -> int:
        """Return how many places there are to ask about: so many calls at least, and one more for a further page."""
        if self._places is not None:
            return len(self._places)
        return await store.count(self._db, self._app.id, self._app.mode, run_id=0, sweep=1)

    async def probe(self, told: Progress) -> Imported:
        """Only look; nothing is written down.

        Raises:
            Stopped: the platform does not answer.
        """
        return await self._walk(_DRY, None, told)

    async def carry_out(self, caller_id: int, steps: int, told: Progress) -> Imported:
        """Enter everything, from where the last import of the app stopped.

        Raises:
            Conflict: another process imports for this app, or it is in shadow.
            Stopped: the platform does not answer; what is entered stays.
        """
        if self._app.shadow:
            raise Conflict("This app is in shadow: cut it over, then import.")
        await store.begin_import(self._db, self._app.id, steps)
        run = await store.take(self._db, self._app.id, self._owner, lease_s=_LEASE_S, importing=True)
        if run is None:
            raise Conflict("Another process imports for this app, or was stopped less than a minute ago.")
        told(run.steps_done)
        imported = await self._walk(run, caller_id, told)
        await store.finish(self._db, run, self._owner)
        return imported

    async def _walk(self, run: Run, caller_id: int | None, told: Progress) -> Imported:
        total = Imported()
        async for places in self._batches(run.at):
            tally = Tally(steps=len(places))
            looker = Looker(self._sender, self._vault, self._app, self._pace, tally)
            look = Look(self._db, self._vault, self._app, run, looker, tally)
            before = total.shown
            await asyncio.gather(*(self._place(look, place, caller_id, total) for place in places))
            total.places += len(places)
            total.calls += tally.calls
            tally.compared = total.shown - before
            if caller_id is not None and not await store.progress(
                self._db, run, self._owner, lease_s=_LEASE_S, at=cursor(places[-1]), tally=tally
            ):
                raise Conflict("Another process has taken this import over.")
            told(len(places))
        return total

    async def _batches(self, at: tuple[int, int, int]) -> AsyncIterator[Sequence[Place]]:
        if self._places is not None:
            rest = [place for place in self._places if cursor(place) > at]
            for first in range(0, len(rest), WIDTH):
                yield rest[first : first + WIDTH]
            return
        while places := await store.steps(self._db, self._app.id, self._app.mode, at, run_id=0, sweep=1, limit=WIDTH):
            yield places
            at = cursor(places[-1])

    async def _place(self, look: Look, place: Place, caller_id: int | None, total: Imported) -> None:
        lines = await look.looker.shown(place)
        ours = await store.ours(self._db, self._app.mode, place)
        differ = compare(ours, [look.looker.theirs(line) for line in lines])
        unknown = {one.subscription_id for one in differ if one.kind is Kind.UNKNOWN_HERE}
        new = [(place, line) for line in lines if line.subscription_id in unknown]
        done = len(new) if caller_id is None else await adopt(look, caller_id, new)
        total.shown += len(lines)
        total.known += len(lines) - len(new)
        total.adopted += done
        total.left_out += len(new) - done


_DRY = Run(id=0, why="import", at=(0, 0, 0), steps=0, steps_done=0, policy=Policy(), every_s=0)


def places_named(named: Sequence[tuple[str, int]], known: Mapping[str, tuple[int, int]]) -> list[Place]:
    """Return the places of (X, extension) pairs in the order of a run; ``known`` says where each X is."""
    places = {(*known[x], extension): Place(*known[x], extension, x) for x, extension in named}
    return [places[key] for key in sorted(places)]

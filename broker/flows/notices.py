"""The way of a notification: kept, answered, projected; by whoever received it, or any other instance after a while."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import structlog

from broker.clock import boottime
from broker.domain.notice import CallEvent, Cdr, Notice, NumberStatus, Sms, Told, read
from broker.flows.attribution import Attribution
from broker.flows.batching import Batcher
from broker.flows.number_status import apply_number_status
from broker.flows.projection import item_of, notice_id
from broker.flows.share import Share
from broker.store import inbox
from broker.store.crypto import SealBroken, Vault
from broker.store.database import Database, DatabaseAway
from broker.store.inbox import Arrived, Found
from broker.store.registry import Registry

log = structlog.get_logger()

_SLICE = 200
#: The platform sends its pushes over few connections, each waiting for its answer: a longer gap would hold it up.
_GAP_S = 0.01
#: Beyond this many that wait here, they are taken up from the database, by whoever finds the time.
_MOST_WAITING = 5000
#: After this long whoever looks takes a notification up: its receiver has died, or is too busy. The more wait for their
#: receiver, the more time it has.
_LEASE_S = 10.0
_A_SECOND = 250


@dataclass(slots=True)
class Whose:
    """Whose line a question is about, or that it is nobody's; known once it has been ``answered``."""

    answered: bool = False
    found: Found | None = None


@dataclass(frozen=True, slots=True)
class _Pending:
    at: datetime
    id: UUID
    app_id: int
    notice: Notice
    whose: Whose | None = None

    @property
    def answered(self) -> Whose | None:
        """Whose it is, if that is known."""
        return self.whose if self.whose is not None and self.whose.answered else None


class Notices:
    """Takes notifications in.

    ``counts`` are by (kind, what became of it), for whoever reads and clears them; ``backlog`` is how many wait for
    their effects, and the age of the oldest in seconds.
    """

    def __init__(self, db: Database, vault: Vault, registry: Callable[[], Registry]) -> None:
        """``registry`` returns the newest configuration."""
        self._db = db
        self._vault = vault
        self._registry = registry
        self._attribution = Attribution(db, vault, registry)
        self._keeping: Batcher[Arrived, bool] = Batcher(
            "keep_notices", self._commit, size=_SLICE, queue_limit=10_000, gap_s=_GAP_S
        )
        # Somebody is on the line: these wait for no company.
        self._keeping_questions: Batcher[Arrived, bool] = Batcher(
            "keep_questions", self._commit, size=_SLICE, queue_limit=10_000, hurried=True
        )
        self._waiting: deque[_Pending] = deque()
        self._share = Share(_SLICE, boottime())
        self._woken = asyncio.Event()
        self._ahead = timedelta()
        self.counts: Counter[tuple[str, str]] = Counter()
        self.backlog = (0, 0.0)

    @property
    def now(self) -> datetime:
        """The time on the database's clock, as far as :meth:`look` knows it."""
        return datetime.now(UTC) + self._ahead

    async def look(self) -> bool:
        """Learn the database's time, and how many notifications wait there for how long."""
        number, oldest_s, now = await inbox.look(self._db)
        self.backlog = (number, oldest_s)
        self._ahead = now - datetime.now(UTC)
        return False

    async def keep(self, app_id: int, told: Sequence[Told], signed_at: datetime, whose: Whose | None = None) -> None:
        """Commit what a notification tells of; its effects follow. ``whose``: it is a question.

        Raises:
            Unavailable: too many wait for the database.
            DatabaseAway: it did not answer; whether anything is kept is unknown.
        """
        arrived = [self._arrived(app_id, one, signed_at) for one in told]
        for one, row, new in zip(told, arrived, await self._kept(arrived, at_once=whose is not None), strict=True):
            self.counts[row.kind, "kept" if new else "repeated"] += 1
            if one.notice is not None and new:
                self._note_foreign(app_id, one.notice)
                self._share.came(1)
                if len(self._waiting) < _MOST_WAITING:
                    self._waiting.append(_Pending(row.at, row.id, app_id, one.notice, whose))
        self._woken.set()

    def key_of(self, app_id: int, told: Told) -> tuple[datetime, UUID]:
        """Return where what it tells of is kept, now or already."""
        row = self._arrived(app_id, told, self.now)
        return row.at, row.id

    async def turn(self) -> bool:
        """Project what has been received here; waits until there is something. True: there is more."""
        await self._woken.wait()
        began = boottime()
        batch = [self._waiting.popleft() for _ in range(min(self._share.size, len(self._waiting)))]
        if not self._waiting:
            self._woken.clear()
        await self._project(batch)
        now = boottime()
        pause_s = self._share.pause_s(len(batch), now - began, len(self._waiting), now)
        if pause_s:
            await asyncio.sleep(pause_s)
        return bool(self._waiting)

    async def rescue(self) -> bool:
        """Project what nobody has brought to its end. True: there may be more, and time for it."""
        due = await inbox.claim_due(self._db, limit=_SLICE, lease_s=_LEASE_S)
        pending: list[_Pending] = []
        for one in due:
            try:
                raw = self._vault.open("inbox", "raw", 0, one.id, one.raw_sealed).encode("latin-1")
            except SealBroken:
                await self._set_aside(one.at, one.id, "seal_broken")
                continue
            told = read(raw, one.at)
            ids = [self._arrived(one.app_id, part, one.at).id for part in told]
            if ids == [one.id] and told[0].notice is not None:
                pending.append(_Pending(one.at, one.id, one.app_id, told[0].notice))
            elif all(part.notice is None for part in told):
                await inbox.set_aside(self._db, one.at, one.id, "unreadable", "unreadable")
            else:
                # What could not be read when it came is taken apart now.
                await self.keep(one.app_id, told, one.at)
                await inbox.settle(self._db, one.at, one.id)
        await self._project(pending)
        return len(due) == _SLICE and not self._share.crowded

    def _arrived(self, app_id: int, told: Told, signed_at: datetime) -> Arrived:
        notice = told.notice
        at = notice.at if notice is not None else signed_at
        identity = notice.identity if notice is not None else ("unreadable", told.raw.decode("latin-1"))
        row_id = notice_id(self._vault, app_id, at, identity)
        sealed = self._vault.seal("inbox", "raw", 0, row_id, told.raw.decode("latin-1"))
        return Arrived(at, row_id, app_id, notice.kind if notice is not None else "unreadable", sealed)

    async def _kept(self, arrived: Sequence[Arrived], *, at_once: bool = False) -> list[bool]:
        batcher = self._keeping_questions if at_once else self._keeping
        if len(arrived) == 1:
            return [await batcher.enqueue(arrived[0])]
        return list(await asyncio.gather(*(batcher.enqueue(row) for row in arrived)))

    async def _commit(self, arrived: Sequence[Arrived]) -> list[bool]:
        return await inbox.keep(self._db, arrived, lease_s=_LEASE_S + len(self._waiting) / _A_SECOND)

    def _note_foreign(self, app_id: int, notice: Notice) -> None:
        if notice.x is None:
            return
        registry = self._registry()
        place = registry.places.get(notice.x)
        if place is None or registry.pools[place[0]].app.id != app_id:
            self.counts[notice.kind, "foreign_number"] += 1

    async def _project(self, batch: Sequence[_Pending]) -> None:
        kinds: dict[str, list[_Pending]] = {}
        for one in batch:
            kinds.setdefault(one.notice.kind, []).append(one)
        for kind, some in kinds.items():
            await self._bring_about(kind, some)

    async def _bring_about(self, kind: str, batch: Sequence[_Pending]) -> None:
        """Project a batch; one that fails is halved until what spoils it stands alone and is set aside."""
        try:
            for one in batch:
                if isinstance(one.notice, NumberStatus):
                    await self._take_status(one, one.notice)
            entered = [(one, one.notice) for one in batch if not isinstance(one.notice, NumberStatus)]
            if entered:
                found = await self._whose(entered)
                items = [
                    item_of(self._vault, one.app_id, one.id, notice, whose)
                    for (one, notice), whose in zip(entered, found, strict=True)
                ]
                self.counts[kind, "projected"] += await inbox.project(self._db, kind, items)
        except DatabaseAway:
            log.warning("projection_waits", kind=kind, notices=len(batch))
        except Exception as error:  # noqa: BLE001 - whatever it is, it stops this one only
            if len(batch) == 1:
                await self._set_aside(batch[0].at, batch[0].id, type(error).__name__)
                return
            half = len(batch) // 2
            await self._bring_about(kind, batch[:half])
            await self._bring_about(kind, batch[half:])

    async def _whose(self, entered: Sequence[tuple[_Pending, CallEvent | Cdr | Sms]]) -> list[Found | None]:
        # Answers come meanwhile, too: what is known is looked at once.
        answers = [one.answered for one, _ in entered]
        sought = [(one.app_id, notice) for (one, notice), known in zip(entered, answers, strict=True) if known is None]
        others = iter(await self._attribution.find(sought))
        return [next(others) if known is None else known.found for known in answers]

    async def _take_status(self, one: _Pending, status: NumberStatus) -> None:
        # Harmless again and in any order: so its effects may be there before it is noted that they are.
        await apply_number_status(self._db, one.app_id, status.x, status.status, status.cause or "", status.at)
        await inbox.settle(self._db, one.at, one.id)
        self.counts[status.kind, "projected"] += 1

    async def _set_aside(self, at: datetime, row_id: UUID, error: str) -> None:
        log.warning("notice_stuck", error=error)
        self.counts["any", "stuck"] += 1
        await inbox.set_aside(self._db, at, row_id, "stuck", error)

"""Delivering an app's events to one webhook.

Events are read on from the webhook's position into lanes, one for each binding. A lane is sent one by one, lanes beside
each other. What fails is put by with all of its binding behind it, and everything else goes on; so the position moves
with the receiver's best bindings, not with its worst. What came of it is written down in bulk: an instance that is
killed leaves a window of events that are sent once more, under the same ids.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import orjson
import structlog

from broker.clock import boottime
from broker.domain.events import Event, cloud_event, event_id
from broker.domain.webhook import retry_after
from broker.errors import Problem
from broker.flows.feed import Feeds
from broker.metrics import Metrics
from broker.store import events, webhooks
from broker.store.crypto import Vault
from broker.store.database import Database
from broker.store.webhooks import Park, Progress, Target, Webhook
from broker.workers.webhook_client import Answer, WebhookClient

log = structlog.get_logger()

#: Events in memory that are not finished yet.
_WINDOW: Final = 500
_READ: Final = 200
#: No more is read while so many wait.
_MOST_PARKED: Final = 10_000
#: Sent to the webhook that it names, whatever types that takes.
_TEST: Final = "webhook.test"
_DUE: Final = 50
_NOTE_S: Final = 0.2
_LOOK_S: Final = 0.25
#: Failures in a row after which a receiver is left alone for a while.
_TRIPS: Final = 5
_IDLE_S: Final = 20.0
#: Who is paused for longer gives the webhook back.
_LONG_PAUSE_S: Final = 20.0
_LONGEST_BACKOFF: Final = 10


@dataclass(frozen=True, slots=True)
class Delivery:
    """How webhooks are delivered to, of all webhooks of this process."""

    schedule: tuple[float, ...]
    most_at_once: int
    longest_pause_s: float
    lease_s: float = 20.0


@dataclass(slots=True)
class _Item:
    event: Event
    attempts: int = 0
    parked: bool = False
    tried_s_ago: float | None = None


class Deliverer:
    """Delivers to one webhook while it is ours."""

    def __init__(
        self, db: Database, vault: Vault, webhook: Webhook, client: WebhookClient, feeds: Feeds, delivery: Delivery,
        metrics: Metrics,
    ) -> None:  # fmt: skip
        """Take over from the position that is written down."""
        self._db, self._vault, self._webhook, self._client, self._feeds = db, vault, webhook, client, feeds
        self._delivery, self._metrics = delivery, metrics
        self._target: Target | None = webhook.target
        self._ours_until = boottime() + delivery.lease_s
        self._read_upto = webhook.at_position
        #: Positions read and neither delivered nor put by, in order.
        self._open: dict[int, None] = {}
        self._lanes: dict[UUID | int, deque[_Item]] = {}
        self._ready: deque[UUID | int] = deque()
        self._running: dict[asyncio.Task[None], UUID | int] = {}
        self._waiting: Counter[UUID | None] = Counter()
        self._failures = webhook.failures
        self._paused_until = 0.0
        self._width = float(delivery.most_at_once)
        self._gone = False
        self._stopping = False
        #: What came of some events could not be written down: they are sent again from where it was.
        self._lost = False
        self._due_at = self._look_at = 0.0
        self._error: str | None = None
        self._delivered = self._missed = 0
        self._done: list[int] = []
        self._parks: dict[int, Park] = {}
        self._wake = asyncio.Event()

    def stop(self) -> None:
        """Finish what is being sent, and no more."""
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Deliver until there has been nothing to do for a while, or the webhook is not ours any more."""
        self._waiting.update(await webhooks.waiting(self._db, self._webhook.id))
        noted, busy = boottime(), boottime()
        try:
            async with self._feeds.waiter(self._webhook.app_id):
                while self._target is not None and not self._over():
                    if self._lanes or self._dirty() or self._read_upto < self._feeds.upto(self._webhook.app_id):
                        busy = boottime()
                    if boottime() - busy > _IDLE_S or self._paused_until - boottime() > _LONG_PAUSE_S:
                        break
                    if not self._paused():
                        await self._read_on()
                        await self._take_due()
                        self._begin()
                    await self._rest()
                    if (
                        self._dirty() and boottime() - noted > _NOTE_S
                    ) or boottime() - noted > self._delivery.lease_s / 4:
                        await self._note(self._delivery.lease_s)
                        noted = boottime()
        except Problem as problem:
            log.warning("webhook_left", webhook=self._webhook.id, code=problem.code)
        finally:
            await self._give_back()

    # -- what there is to send ---------------------------------------------------------------------------------------

    async def _read_on(self) -> None:
        app_id = self._webhook.app_id
        upto = self._feeds.upto(app_id)
        if self._read_upto >= upto or len(self._open) > _WINDOW - _READ or self._waiting.total() >= _MOST_PARKED:
            return
        swept = (await events.feed(self._db, app_id)).swept
        if self._read_upto < swept:
            self._missed += swept - self._read_upto
            self._read_upto = swept
            log.error("webhook_missed", webhook=self._webhook.id, missed=self._missed)
        span = min(_READ, upto - self._read_upto)
        types = self._target.types if self._target is not None else None
        asked = None if types is None else (*types, _TEST)
        found = await events.read(self._db, app_id, self._read_upto, span=span, types=asked)
        for event in found:
            if event.type == _TEST and event.data.get("webhook") != self._webhook.name:
                continue
            self._open[event.pos] = None
            if self._waiting[event.binding_id] and event.binding_id is not None:
                self._park(_Item(event), 0.0)
            else:
                self._enter(_Item(event))
        self._read_upto += span

    async def _take_due(self) -> None:
        """Take events whose time has come from those that wait."""
        await self._look_for_replays()
        if not self._waiting or boottime() < self._due_at:
            return
        self._due_at = boottime() + _LOOK_S
        if self._dirty():
            await self._note(self._delivery.lease_s)
        abouts = [key for key in self._lanes if isinstance(key, UUID)]
        found = await webhooks.due(
            self._db, self._webhook.id, limit=_DUE,
            but=[*(key for key in self._lanes if isinstance(key, int)), *self._done, *self._parks], but_about=abouts,
        )  # fmt: skip
        if not found:
            return
        there = await webhooks.events_at(self._db, self._webhook.app_id, [one.pos for one in found])
        for one in found:
            event = there.get(one.pos)
            if event is None:
                self._missed += 1
                self._done.append(one.pos)
            elif one.pos not in self._parks and one.pos not in self._done:
                self._enter(_Item(event, one.attempts, parked=True, tried_s_ago=one.tried_s_ago))

    async def _look_for_replays(self) -> None:
        """See, now and then, whether events wait that we know nothing of: operators have some sent again."""
        now = boottime()
        if self._waiting or self._done or self._parks or now < self._look_at:
            return
        if any(item.parked for lane in self._lanes.values() for item in lane):
            return
        self._look_at = now + self._delivery.lease_s / 4
        self._waiting.update(await webhooks.waiting(self._db, self._webhook.id))

    def _enter(self, item: _Item) -> None:
        key = item.event.binding_id or item.event.pos
        lane = self._lanes.get(key)
        if lane is None:
            self._lanes[key] = deque((item,))
            self._ready.append(key)
        else:
            lane.append(item)

    # -- sending -----------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Begin as many lanes as may be sent beside each other; one alone after too many failures."""
        width = 1 if self._failures >= _TRIPS else int(self._width)
        while self._ready and len(self._running) < width and not self._stopping:
            key = self._ready.popleft()
            task = asyncio.create_task(self._send(key), name=f"webhook {self._webhook.id}")
            self._running[task] = key
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        key = self._running.pop(task)
        if self._lanes[key]:
            self._ready.append(key)
        else:
            del self._lanes[key]
        self._wake.set()
        if not task.cancelled() and task.exception() is not None:
            log.error("webhook_broken", webhook=self._webhook.id, exc_info=task.exception())
            self._stopping = True

    async def _send(self, key: UUID | int) -> None:
        lane = self._lanes[key]
        while lane and not self._paused() and not self._stopping and self._target is not None:
            if boottime() >= self._ours_until:
                self._stopping = True
                return
            item, target, webhook = lane[0], self._target, self._webhook
            began = boottime()
            body = orjson.dumps(cloud_event(item.event, webhook.app_id, webhook.app), option=orjson.OPT_UTC_Z)
            answer = await self._client.post(target.url, target.secrets, event_id(webhook.app_id, item.event.pos), body)
            self._metrics.webhook_seconds.observe(boottime() - began)
            if answer.gone:
                self._gone, self._stopping, self._error = True, True, answer.error
                return
            lane.popleft()
            if answer.error is None:
                self._accepted(item)
                continue
            self._refused(item, answer)
            for behind in lane:
                if not behind.parked:
                    self._park(behind, 0.0)
            lane.clear()

    def _accepted(self, item: _Item) -> None:
        pos = item.event.pos
        self._failures = 0
        self._width = min(float(self._delivery.most_at_once), self._width + 0.1)
        self._delivered += 1
        self._metrics.webhook_deliveries.labels("accepted").inc()
        self._open.pop(pos, None)
        if item.parked:
            self._done.append(pos)
            self._due_at = 0.0
            self._unpark(item)

    def _refused(self, item: _Item, answer: Answer) -> None:
        self._error = answer.error
        schedule = self._delivery.schedule
        if answer.wait_s is not None:
            # It lives and asks for time: no failure, unless it has done so for as long as there are retries.
            self._width = max(1.0, self._width / 2)
            self._pause(answer.wait_s)
            attempts, wait_s = item.attempts, answer.wait_s
            dead = (item.tried_s_ago or 0.0) > sum(schedule)
        else:
            self._failures += 1
            attempts = item.attempts + 1
            following = retry_after(schedule, attempts)
            dead, wait_s = following is None, following or 0.0
            if self._failures >= _TRIPS:
                backoff = 2.0 ** min(self._failures - _TRIPS, _LONGEST_BACKOFF)
                self._pause(min(backoff, self._delivery.longest_pause_s) * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
        self._metrics.webhook_deliveries.labels("dead" if dead else "refused").inc()
        self._park(item, wait_s, attempts=attempts, dead=dead, error=answer.error)

    def _park(
        self, item: _Item, due_s: float, *, attempts: int = 0, dead: bool = False, error: str | None = None
    ) -> None:
        event = item.event
        self._open.pop(event.pos, None)
        self._parks[event.pos] = Park(event.pos, event.binding_id, attempts, due_s, dead, error)
        if dead and item.parked:
            self._unpark(item)
        elif not dead and not item.parked:
            self._waiting[event.binding_id] += 1

    def _unpark(self, item: _Item) -> None:
        about = item.event.binding_id
        self._waiting[about] -= 1
        if self._waiting[about] <= 0:
            del self._waiting[about]

    def _pause(self, wait_s: float) -> None:
        self._paused_until = max(self._paused_until, boottime() + wait_s)

    def _paused(self) -> bool:
        return boottime() < self._paused_until

    # -- writing down ------------------------------------------------------------------------------------------------

    def _over(self) -> bool:
        return self._stopping and not self._running

    def _dirty(self) -> bool:
        return bool(self._delivered or self._done or self._parks or self._missed or self._error)

    async def _rest(self) -> None:
        """Wait until a lane ends, or it is time to look again."""
        self._wake.clear()
        wait_s = 0.05 if self._dirty() or self._lanes else 0.2
        try:
            async with asyncio.timeout(wait_s):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _note(self, lease_s: float) -> None:
        at = next(iter(self._open), self._read_upto + 1) - 1
        done, parks, missed, delivered, error = self._done, self._parks, self._missed, self._delivered, self._error
        pause_s = max(self._paused_until - boottime(), 0.0)
        progress = Progress(
            at, self._failures, pause_s, delivered, missed, error, self._gone, done, _sorted(parks.values())
        )
        self._done, self._parks, self._missed, self._delivered, self._error = [], {}, 0, 0, None
        asked_at = boottime()
        self._lost = True
        self._target = await webhooks.note(self._db, self._vault, self._webhook, progress, lease_s=lease_s)
        self._lost = False
        self._ours_until = asked_at + lease_s
        if self._target is None:
            self._stopping = True

    async def _give_back(self) -> None:
        self._stopping = True
        for task in list(self._running):
            task.cancel()
        if self._running:
            await asyncio.wait(self._running)
        if self._target is None or self._lost:
            return
        try:
            await self._note(0.0)
        except Problem as problem:
            log.warning("webhook_left", webhook=self._webhook.id, code=problem.code)


def _sorted(parks: Iterable[Park]) -> list[Park]:
    return sorted(parks, key=lambda park: park.pos)

"""Pushes: from a thing to be told to a 200, by the documented schedule (contract 6.3), with the trouble in force."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, Final
from zlib import crc32

import orjson

from broker.emulator.customer import Customer
from broker.emulator.registry import AppConfig, Registry
from broker.emulator.schedule import Schedule
from broker.emulator.settings import EmulatorSettings
from broker.emulator.times import EmulatorClock
from broker.emulator.told import Kind, State, Thing, Told
from broker.emulator.trouble import Dice

#: Pushes under way at once. Those of one call take the same lane, so that the first try of each leaves in order.
_LANES: Final = 32
_CUT_AFTER_S: Final = 0.002


@dataclass(slots=True, eq=False)
class _Push:
    """One request: a thing, or records in a parcel."""

    things: list[Thing]
    first_ms: int
    tries: int = 0
    repetition: bool = False
    """It was delivered before: neither its failure nor its success changes anything."""


class Pusher:
    """Tells apps of things and keeps the ledger of it. ``counts``: pushes by what became of each."""

    def __init__(
        self, settings: EmulatorSettings, clock: EmulatorClock, schedule: Schedule, customer: Customer, books: Registry
    ) -> None:
        self.told = Told(settings.keep_told)
        self.dice = Dice(settings.seed)
        self.counts: Counter[str] = Counter()
        self._settings = settings
        self._clock = clock
        self._schedule = schedule
        self._customer = customer
        self._books = books
        self._lanes: list[deque[_Push]] = [deque() for _ in range(_LANES)]
        self._stirred = [asyncio.Event() for _ in range(_LANES)]
        self._parcels: dict[str, list[Thing]] = {}
        self._open = 0

    @property
    def waiting(self) -> int:
        """Pushes that are to be sent, now or later."""
        return self._open

    def tell(self, app: AppConfig, kind: Kind, what: str, x: str, body: dict[str, Any]) -> Thing:
        """Note a thing and have it pushed."""
        whole = body
        body = self.dice.lacking(body) if kind in {Kind.EVENTS, Kind.CDR} else body
        thing = Thing(
            seq=self.told.last + 1,
            at_ms=self._clock.now_ms(),
            kind=kind,
            app_key=app.app_key,
            type=what,
            x=x,
            session_id=whole.get("sessionId"),
            subscription_id=whole.get("subscriptionId"),
            user_data=whole.get("userData"),
            body=orjson.dumps(body),
        )
        self.told.add(thing)
        if kind is Kind.CDR and self.dice.trouble.cdr_batch > 1:
            self._gather(thing)
        else:
            self._begin([thing])
        return thing

    async def ask(self, app: AppConfig, kind: Kind, what: str, x: str, body: dict[str, Any]) -> object:
        """Ask about a call or a message, once and without trouble; returns the reply's JSON, ``None`` without one."""
        thing = Thing(
            self.told.last + 1, self._clock.now_ms(), kind, app.app_key, what, x, body.get("sessionId"),
            body.get("subscriptionId"), body.get("userData"), orjson.dumps(body),
        )  # fmt: skip
        self.told.add(thing)
        url = _url(app, thing)
        if url is None:
            self._note([thing], State.UNADDRESSED)
            return None
        thing.pushes = 1
        thing.status, reply = await self._customer.ask(app, url, _packed(app, [thing]))
        self._note([thing], State.DELIVERED if thing.status == HTTPStatus.OK else State.GIVEN_UP)
        return reply

    async def run(self) -> None:
        """Push until cancelled."""
        async with asyncio.TaskGroup() as group:
            for number in range(_LANES):
                group.create_task(self._drive(number))

    # --- the way of one push

    def _gather(self, thing: Thing) -> None:
        parcel = self._parcels.setdefault(thing.app_key, [])
        parcel.append(thing)
        if len(parcel) >= self.dice.trouble.cdr_batch:
            self._begin(self._parcels.pop(thing.app_key))
        elif len(parcel) == 1:
            self._schedule.after(self.dice.trouble.cdr_batch_s, lambda: self._close(parcel))

    def _close(self, parcel: list[Thing]) -> None:
        app_key = parcel[0].app_key
        if self._parcels.get(app_key) is parcel:
            self._begin(self._parcels.pop(app_key))

    def _begin(self, things: list[Thing]) -> None:
        self._open += 1
        push = _Push(things, self._clock.now_ms())
        if self._open > self._settings.most_pushes:
            self._end(push, State.GIVEN_UP)
        else:
            self._schedule.after(self.dice.delay_s(), lambda: self._line_up(push))

    def _line_up(self, push: _Push) -> None:
        thing = push.things[0]
        number = crc32((thing.session_id or thing.x).encode()) % _LANES
        self._lanes[number].append(push)
        self._stirred[number].set()

    async def _drive(self, number: int) -> None:
        lane, stirred = self._lanes[number], self._stirred[number]
        while True:
            await stirred.wait()
            stirred.clear()
            while lane:
                await self._try(lane.popleft())

    async def _try(self, push: _Push) -> None:
        app = self._books.apps[push.things[0].app_key].config
        url = _url(app, push.things[0])
        if url is None:
            self._end(push, State.UNADDRESSED)
            return
        push.tries += 1
        status = await self._send(app, url, _packed(app, push.things))
        for thing in push.things:
            thing.pushes += 1
            if not push.repetition:
                thing.status = status
        self.counts["sent"] += 1
        if push.repetition:
            self._open -= 1
        elif status == HTTPStatus.OK:
            self._repeat(push)
            self._end(push, State.DELIVERED)
        else:
            self.counts["failed"] += 1
            self._try_later(push)

    async def _send(self, app: AppConfig, url: str, body: bytes) -> int | None:
        trouble = self.dice.trouble
        secret = f"not {app.secret}" if self.dice.hits(trouble.wrong_signature) else ""
        # Whoever waits no longer closes the connection; what was sent may have been taken in all the same.
        patience_s = _CUT_AFTER_S if self.dice.hits(trouble.cut) else None
        try:
            async with asyncio.timeout(patience_s):
                status, _ = await self._customer.send(app, url, body, secret=secret)
        except TimeoutError:
            return None
        return status

    def _repeat(self, push: _Push) -> None:
        for _ in range(self.dice.again()):
            self._open += 1
            self.counts["repeated"] += 1
            again = _Push(push.things, push.first_ms, repetition=True)
            self._schedule.after(self.dice.delay_s(), partial(self._line_up, again))

    def _try_later(self, push: _Push) -> None:
        intervals = self._settings.push_again_min
        if push.tries > len(intervals):
            self._end(push, State.GIVEN_UP)
            return
        since_ms = self._clock.now_ms() if self._settings.push_again_from == "last" else push.first_ms
        wait_ms = intervals[push.tries - 1] * 60_000 * self._settings.push_again_factor
        self.counts["retried"] += 1
        self._schedule.at(since_ms + round(wait_ms), lambda: self._line_up(push))

    def _end(self, push: _Push, state: State) -> None:
        self._open -= 1
        if not push.repetition:
            self._note(push.things, state)

    def _note(self, things: list[Thing], state: State) -> None:
        for thing in things:
            thing.state = state
            if state is State.DELIVERED:
                thing.delivered_ms = self._clock.now_ms()
        self.counts[state.value] += len(things)


def _url(app: AppConfig, thing: Thing) -> str | None:
    return app.url_of(thing.kind, callin=thing.type == "callin")


def _packed(app: AppConfig, things: list[Thing]) -> bytes:
    """Return the body of a push (contract 6.4 to 6.7)."""
    first = orjson.Fragment(things[0].body)
    match things[0].kind:
        case Kind.EVENTS:
            return orjson.dumps({"eventType": things[0].type, "statusInfo": first})
        case Kind.CDR:
            return orjson.dumps({"eventType": "fee", "feeLst": list(_bodies(things))})
        case Kind.SMS | Kind.SMS_CONTROL:
            return orjson.dumps({"appKey": app.app_key, "smsEvent": first})
        case Kind.NUMBER_STATUS:
            return orjson.dumps({"eventType": "numStatus", "numInfo": list(_bodies(things))})


def _bodies(things: list[Thing]) -> Iterator[orjson.Fragment]:
    return (orjson.Fragment(thing.body) for thing in things)

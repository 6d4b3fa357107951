"""The emulator as the platform that pushes: calls and messages through it, its troubles, its ledger as the truth."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import aiohttp

from bench.ledger import TOLD, Call, Json, Ledger, Message, Order

#: Repeated, in disorder, cut, signed wrongly, in parcels, and incomplete.
_TROUBLE: Final[Json] = {
    "duplicates": 0.5, "at_most": 6, "delay_s": 3, "wrong_signature": 0.05, "cut": 0.05, "missing_fields": 0.1,
    "cdr_batch": 20, "cdr_batch_s": 1,
}  # fmt: skip
_OUTCOMES: Final = ("answer", "answer", "answer", "busy", "no_answer", "rejected")
_AT_ONCE: Final = 16
_PAGE: Final = 1000
_STEP_S: Final = 30
#: Every process has looked at the clock by then.
_LOOKED_S: Final = 1.2


@dataclass(slots=True)
class Traffic:
    """What was done on the emulator: whose each session and message is."""

    http: aiohttp.ClientSession
    emulator: str
    orders: list[Order]
    dice: random.Random
    sessions: dict[str, Order] = field(default_factory=dict)
    messages: dict[str, Order] = field(default_factory=dict)
    placed: int = 0

    async def play(self, calls: int) -> None:
        """Place so many calls, a message for every third, a few at a time, with everything going wrong that can."""
        await self._put("trouble", _TROUBLE)
        numbers = iter(range(calls))
        async with asyncio.TaskGroup() as group:
            for _ in range(_AT_ONCE):
                group.create_task(self._some(numbers))

    async def calm(self, advance: Callable[[float], Any]) -> float:
        """End the trouble, and let the platform's time pass until nothing waits; return how much passed."""
        await self._put("trouble", {})
        passed_s = 0.0
        while (await self._get("traffic"))["waiting"]:
            await asyncio.sleep(_LOOKED_S)
            await advance(_STEP_S)
            passed_s += _STEP_S
        return passed_s

    async def told(self) -> AsyncIterator[Json]:
        """Everything that apps were told."""
        after: int | None = 0
        while after is not None:
            page = await self._get(f"told?after={after}&limit={_PAGE}")
            for row in page["items"]:
                yield row
            after = page["next"]

    async def counts(self) -> Json:
        """Return what became of calls and pushes."""
        found: Json = await self._get("traffic")
        return found

    async def _some(self, numbers: Any) -> None:
        for number in numbers:
            order = self.orders[number % len(self.orders)]
            caller = self.dice.choice((order.a, order.b))
            outcome = self.dice.choice(_OUTCOMES)
            asked = {"from": caller, "to": order.x, "outcome": outcome, "ring_s": 0, "talk_s": self.dice.random() * 4}
            self.sessions[(await self._post("calls", asked))["session_id"]] = order
            if number % 3 == 0:
                sent = await self._post("sms", {"from": caller, "to": order.x, "content": "on my way"})
                self.messages[sent["sms_identifier"]] = order
            self.placed += 1

    async def _get(self, what: str) -> Any:
        async with self.http.get(f"{self.emulator}/emulator/{what}") as answer:
            return await answer.json()

    async def _post(self, what: str, body: Json) -> Any:
        async with self.http.post(f"{self.emulator}/emulator/{what}", json=body) as answer:
            return await answer.json()

    async def _put(self, what: str, body: Json) -> None:
        async with self.http.put(f"{self.emulator}/emulator/{what}", json=body) as answer:
            await answer.read()


async def ledger_of(traffic: Traffic, modes: Mapping[str, str]) -> tuple[Ledger, set[tuple[str, str]], Counter[str]]:
    """Return the emulator's ledger as ours, sessions to leave out, and the rows by state. ``modes`` by APP_Key.

    A question whose process was killed may or may not have been kept, so its session counts for neither.
    """
    rows = [row async for row in traffic.told()]
    states = Counter[str](row["state"] for row in rows)
    unsure = {
        (modes[row["app_key"]], str(row["session_id"]))
        for row in rows
        if row["state"] != "delivered"
        and row["session_id"]
        and modes[row["app_key"]] == "x"
        and row["type"] == "callin"
    }
    ledger, calls = Ledger(traffic.dice), dict[str, list[Json]]()
    for row in rows:
        mode, body = modes[row["app_key"]], row["body"]
        if (mode, row["session_id"]) in unsure:
            continue
        if row["kind"] == "events":
            calls.setdefault(row["session_id"], []).append(row)
        elif row["kind"] == "cdr":
            _record(ledger, mode, traffic.sessions[row["session_id"]], row["session_id"], body)
        elif row["type"] == "Notify":
            order, result = traffic.messages[body["smsIdentifier"]], body.get("sendResult", 0)
            at = datetime.fromisoformat(body["timeStamp"])
            ledger.messages[mode, body["smsIdentifier"]] = Message(order.id, result, at)
            ledger.events["sms.failed" if result else "sms.forwarded", order.id] += 1
    for session, events in calls.items():
        _call(ledger, traffic.sessions[session], session, events)
    return ledger, unsure, states


def _call(ledger: Ledger, order: Order, session: str, events: list[Json]) -> None:
    times = [_time(row["body"]["timestamp"]) for row in events]
    ended = max((_time(row["body"]["timestamp"]) for row in events if row["type"] == "disconnect"), default=None)
    steps = tuple(sorted(row["type"] for row in events))
    ledger.calls[order.mode, session] = Call(order.id, steps, min(times), ended)
    for step in steps:
        if step in TOLD:
            ledger.events[TOLD[step], order.id] += 1


def _record(ledger: Ledger, mode: str, order: Order, session: str, body: Json) -> None:
    answered, ended = body.get("fwdAnswerTime"), body.get("callEndTime")
    talk_s = int((_time(ended) - _time(answered)).total_seconds()) if answered and ended else 0
    ledger.records[mode, session] = (order.id, talk_s)
    ledger.events["cdr.created", order.id] += 1
    if body.get("recordObjectName"):
        ledger.events["recording.ready", order.id] += 1


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)

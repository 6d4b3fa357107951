"""Carries the hour out: binds, releases and phone calls at their times, each judged as it is answered."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Any

import aiohttp
import orjson

from broker.demo.city import Deed, Hour, Kind, Share
from broker.demo.pace import Pace
from broker.demo.report import PoolLook, Tally
from broker.demo.target import NoTarget, Target
from broker.demo.truth import Truth, judge

#: Requests under way at once.
_AT_ONCE = 32
_LOOK_S = 0.1
_POOL_LOOK_S = 1.0
_SETTLE_S = 30.0
_PAGE = 10_000
_TRIES = 20
_PAUSE_S = 0.5
_OK, _CREATED, _ACCEPTED, _REFUSED, _BROKEN = 200, 201, 202, 400, 500

Json = dict[str, Any]
Answer = tuple[int, Any]


class City:
    """One hour against one broker. ``tally`` fills while :meth:`play` runs."""

    def __init__(self, hour: Hour, http: aiohttp.ClientSession, target: Target, pace: Pace, pool: Json) -> None:
        """``pool``: where X numbers come from, as ``GET /v1/pools`` shows it."""
        self.hour = hour
        self.tally = Tally()
        self._http = http
        self._target = target
        self._pace = pace
        self._pool = str(pool["name"])
        self._truth = Truth(pace.slack_s, pace.sweep_s)
        self._ids: dict[int, str] = {}
        self._answered = [asyncio.Event() for _ in hour.shares]
        self._over = [asyncio.Event() for _ in hour.shares]
        self._play_id = secrets.token_hex(8)  # Idempotency-Keys of one play never meet those of another
        self._seats = asyncio.Semaphore(_AT_ONCE)

    def now_s(self) -> float:
        """City seconds since the beginning."""
        return self._pace.now_s()

    async def play(self) -> None:
        """Live through the hour and until what was bound in it has ended."""
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(self._watch_pool())
            async with asyncio.TaskGroup() as deeds:
                for deed in self.hour.deeds:
                    await self._pace.until(deed.at_s)
                    await self._seats.acquire()
                    deeds.create_task(self._seated(deed))
            await self._pace.until(max((share.ends_s for share in self.hour.shares), default=0) + self._pace.slack_s)
            await self._wait_for_expiries()
            watching.cancel()

    async def _seated(self, deed: Deed) -> None:
        try:
            await self._do(deed)
        finally:
            self._seats.release()

    async def _do(self, deed: Deed) -> None:
        share = self.hour.shares[deed.share]
        if deed.kind is Kind.BIND:
            try:
                await self._bind(share)
            finally:
                self._answered[share.no].set()
            return
        await self._answered[share.no].wait()
        if share.no not in self.tally.x:
            return
        if deed.kind is Kind.RELEASE:
            await self._release(share)
        elif not deed.late or not share.released or self._over[share.no].is_set():
            await self._call(deed.caller, self.tally.x[share.no])

    async def _bind(self, share: Share) -> None:
        asked_s, began = self._pace.now_s(), asyncio.get_running_loop().time()
        self._truth.asked(share)
        wanted = {
            "a": share.a,
            "b": share.b,
            "pool": self._pool,
            "order_id": share.order_id,
            "ttl_s": self._pace.ttl_s(share.ttl_s),
        }
        status, told = await self._api("POST", "/v1/bindings", wanted, key=f"{self._play_id}-{share.no}")
        self.tally.bind_ms.append((asyncio.get_running_loop().time() - began) * 1000)
        if status == _ACCEPTED:
            told = await self._until(told["id"], "active", "failed", "released")
            status = {"active": _CREATED, "failed": _REFUSED, "released": _REFUSED}.get(str(told.get("state")), _BROKEN)
        if status == _CREATED:
            self.tally.x[share.no], self._ids[share.no] = told["x"], told["id"]
            self.tally.subscriptions[share.no] = told["platform_binding_id"]
            self._truth.bound(share, told["x"], asked_s, self._pace.now_s())
            return
        self.tally.refused[str(told.get("code", status))] += 1
        if _REFUSED <= status < _BROKEN:
            self._truth.ended(share)

    async def _release(self, share: Share) -> None:
        self._truth.ending(share)
        status, _ = await self._api("DELETE", f"/v1/bindings/{self._ids[share.no]}")
        over = status == _OK
        if status == _ACCEPTED:
            over = (await self._until(self._ids[share.no], "released")).get("state") == "released"
        if over:
            self._truth.ended(share)
            self.tally.released.add(share.no)
            self._over[share.no].set()

    async def _call(self, caller: str, x: str) -> None:
        before = self._truth.reach(caller, x, self._pace.now_s())
        url = f"{self._target.emulator}/emulator/calls"
        async with self._http.post(url, json={"from": caller, "to": x, "talk_s": self._pace.talk_s}) as answer:
            if answer.status != _OK:
                raise NoTarget(f"The emulator places no calls: it answers {answer.status}.")
            told = await answer.json()
        after = self._truth.reach(caller, x, self._pace.now_s())
        self.tally.calls[judge(x, told["connected_to"], told["shown"], before, after)] += 1

    async def _wait_for_expiries(self) -> None:
        """The platform ends what has run out by itself; the broker's sweep follows within seconds."""
        left = [no for no in self._ids if no not in self.tally.released]
        loop = asyncio.get_running_loop()
        give_up = loop.time() + _SETTLE_S
        while left and loop.time() < give_up:
            await self._pace.until(self._pace.now_s() + _LOOK_S)
            for no in left:
                _, told = await self._api("GET", f"/v1/bindings/{self._ids[no]}")
                if told.get("reason") == "expired":
                    self.tally.expired.add(no)
            left = [no for no in left if no not in self.tally.expired]

    async def _watch_pool(self) -> None:
        while True:
            status, told = await self._api("GET", f"/v1/pools/{self._pool}")
            if status == _OK:
                self.tally.look(PoolLook(told["as_of"], told["live"], told["x_in_use"], told["x_needed"]))
            await asyncio.sleep(_POOL_LOOK_S)

    async def _until(self, binding_id: str, *states: str) -> Json:
        loop = asyncio.get_running_loop()
        give_up = loop.time() + _SETTLE_S
        while True:
            _, told = await self._api("GET", f"/v1/bindings/{binding_id}")
            if told.get("state") in states or loop.time() > give_up:
                return dict(told)
            await asyncio.sleep(_LOOK_S)

    async def _api(self, method: str, path: str, body: object = None, *, key: str | None = None) -> Answer:
        """Ask as an order system should: again after no answer or a 5xx, under the same Idempotency-Key."""
        told: Answer = 504, {"code": "no_answer"}
        for _ in range(_TRIES):
            try:
                told = await ask(self._http, self._target, method, path, body, key=key)
            except (TimeoutError, aiohttp.ClientError):
                told = 504, {"code": "no_answer"}
            if told[0] < _BROKEN and told[1].get("code") != "idempotency_in_progress":
                break
            await asyncio.sleep(_PAUSE_S)
        return told


async def ask(
    http: aiohttp.ClientSession,
    target: Target,
    method: str,
    path: str,
    body: object = None,
    *,
    key: str | None = None,
) -> Answer:
    """Ask the broker; ``key`` is the Idempotency-Key.

    Raises:
        NoTarget: what answers is no broker.
    """
    headers = {"Authorization": f"Bearer {target.key}"}
    if key is not None:
        headers["Idempotency-Key"] = key
    payload = None if body is None else orjson.dumps(body)
    try:
        async with http.request(method, target.api + path, data=payload, headers=headers) as answer:
            return answer.status, orjson.loads(await answer.read())
    except orjson.JSONDecodeError:
        raise NoTarget(f"{target.api} is no broker: it does not answer JSON.") from None


async def ledger_end(http: aiohttp.ClientSession, target: Target) -> int:
    """Return the number of the newest row in the platform's ledger."""
    async with http.get(f"{target.emulator}/emulator/health") as answer:
        return int((await answer.json())["ledger"])


async def ledger(http: aiohttp.ClientSession, target: Target, after: int, take: Callable[[Json], None]) -> None:
    """Hand every row after ``after`` to ``take``."""
    cursor: int | None = after
    while cursor is not None:
        url = f"{target.emulator}/emulator/ledger?limit={_PAGE}&after={cursor}"
        async with http.get(url) as answer:
            page = orjson.loads(await answer.read())
        for row in page["items"]:
            take(row)
        cursor = page["next"]

"""P9 in small: pushes of all kinds, repeated and shuffled, over two workers that are killed: each effect once.

``TEST_SESSIONS`` (60) says how many calls there are; each is five events, a record, and now and then a message.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from broker.domain.ids import public_id
from tests.contract.service import Client, Service, client_of, eventually, memory, phone, rows, up
from tests.edge.rig import event, fee, fees, headers, message
from tests.pg import state_folder

pytestmark = pytest.mark.slow

SESSIONS = int(os.environ.get("TEST_SESSIONS", "60"))
ORDERS = 12
SENDERS = 16
MOST_TIMES = 7
_STEPS = ("callin", "callout", "alerting", "answer", "disconnect")
_TOLD = {"callin": "call.started", "alerting": "call.ringing", "answer": "call.answered", "disconnect": "call.ended"}

Push = tuple[str, Any]


class Platform:
    """Pushes until it hears 200, more often than needed, and keeps a list of what must come of it."""

    def __init__(self, service: Service, dice: random.Random) -> None:
        self.app = next(app for app in service.ready["apps"] if app["mode"] == "axb")
        self.url = f"{service.ready['edge']}/n/{self.app['name']}"
        self.dice = dice
        self.pushes: list[Push] = []
        self.effects: Counter[tuple[str, str]] = Counter()
        self.answers: Counter[str] = Counter()

    def call(self, order: dict[str, Any], number: int) -> None:
        """One answered call through an order's X, its record, and at times a message."""
        line, x, a, b = order["line"].replace("-", ""), order["x"], order["a"], order["b"]
        session, began = f"s-{number}", datetime.now(UTC).replace(microsecond=0)
        mark = {"userData": f"{line}.1"}
        for place, step in enumerate(_STEPS):
            called = x if step == "callin" else b
            at = began + timedelta(seconds=place)
            self.pushes.append(("events", event(step, session, at=at, caller=a, called=called, stateCode=0, **mark)))
            if step in _TOLD:
                self.effects[_TOLD[step], order["id"]] += 1
        record = fee(session, at=began + timedelta(seconds=9), talk_s=5, callerNum=a, bindNum=x, **mark)
        if number % 2:
            record |= {"recordFlag": 1, "recordObjectName": f"{number}.wav", "recordDomain": "d.example"}
            self.effects["recording.ready", order["id"]] += 1
        self.pushes.append(("cdr", fees(record)))
        self.effects["cdr.created", order["id"]] += 1
        if number % 3 == 0:
            sent: dict[str, Any] = {"sendResult": number % 2, **mark}
            self.pushes.append(("sms", message(x, a, called=b, **sent)))
            self.effects["sms.failed" if number % 2 else "sms.forwarded", order["id"]] += 1

    def deliveries(self) -> list[Push]:
        """Every push one to seven times, records also in parcels with others, all in disorder."""
        records = [body["feeLst"][0] for kind, body in self.pushes if kind == "cdr"]
        parcels: list[Push] = [("cdr", fees(*self.dice.sample(records, min(len(records), 20)))) for _ in range(20)]
        found = [push for push in self.pushes for _ in range(self.dice.randint(1, MOST_TIMES))] + parcels
        self.dice.shuffle(found)
        return found

    async def push(self, http: aiohttp.ClientSession, kind: str, body: Any) -> None:
        """Push until it is taken; one in twenty connections is cut before the answer."""
        while True:
            cut = self.dice.random() < 0.05
            signed = headers(key=self.app["app_key"], secret=self.app["app_secret"], Connection="close")
            timeout = aiohttp.ClientTimeout(total=0.001 if cut else 30)
            try:
                async with http.post(
                    f"{self.url}/{kind}", data=orjson.dumps(body), headers=signed, timeout=timeout
                ) as answer:
                    await answer.read()
                    self.answers[str(answer.status)] += 1
                    if answer.status == 200:
                        return
                    assert answer.status == 503, answer.status
            except (aiohttp.ClientError, TimeoutError):
                self.answers["cut"] += 1
            await asyncio.sleep(0.02)


async def _orders(client: Client) -> list[dict[str, Any]]:
    made = []
    for _ in range(ORDERS):
        a, b = phone(), phone()
        answer = await client.bind(a=a, b=b)
        assert answer.status == 201, answer.raw
        made.append({**answer.body, "a": a, "b": b})
    return made


async def _killing(service: Service, stop: asyncio.Event) -> int:
    """Kill a worker, again and again, as soon as all are back."""
    killed = 0
    while not stop.is_set():
        children = [int(pid) for pid in _children(service.process.pid) if b"broker.worker" in _command(pid)]
        if len(children) == 2:
            os.kill(children[killed % 2], signal.SIGKILL)
            killed += 1
        try:
            await asyncio.wait_for(stop.wait(), 4)
        except TimeoutError:
            continue
    return killed


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()


def _command(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


async def test_every_effect_once() -> None:
    """Duplicates, disorder, cut connections and killed workers change nothing: each effect once, none lost."""
    dice = random.Random(9)  # noqa: S311 - the same disorder every time
    with state_folder(memory()) as folder, up(folder, "--workers", "2") as service:
        async with client_of(service) as client:
            platform = Platform(service, dice)
            orders = await _orders(client)
            for number in range(SESSIONS):
                platform.call(orders[number % ORDERS], number)
            queue = platform.deliveries()
            stop = asyncio.Event()
            killing = asyncio.create_task(_killing(service, stop))

            async def sender() -> None:
                while queue:
                    await platform.push(client.http, *queue.pop())

            await asyncio.gather(*(sender() for _ in range(SENDERS)))
            stop.set()
            assert await killing > 0

            async def settled() -> bool:
                (left,) = await rows(service, "SELECT count(*) AS n FROM inbox WHERE state <> 'done'")
                return not left["n"]

            await eventually(settled, "every notification has its effects", limit_s=60)
        told = await rows(service, "SELECT type, binding_id::text AS binding, count(*) AS n FROM event GROUP BY 1, 2")
        public = await _public_ids(service)
        ours = [row for row in told if not row["type"].startswith("binding.")]
        effects = Counter({(row["type"], public.get(row["binding"])): row["n"] for row in ours})
        assert effects == platform.effects
        counts = {
            table: (await rows(service, f"SELECT count(*) AS n FROM {table}"))[0]["n"]  # noqa: S608 - our own words
            for table in ("call", "cdr", "sms", "inbox")
        }
        messages = len([push for push in platform.pushes if push[0] == "sms"])
        assert counts == {"call": SESSIONS, "cdr": SESSIONS, "sms": messages, "inbox": len(platform.pushes)}
        whole = await rows(service, "SELECT jsonb_array_length(timeline) AS steps, count(*) AS n FROM call GROUP BY 1")
        assert [(row["steps"], row["n"]) for row in whole] == [(5, SESSIONS)]
    assert platform.answers["cut"] > 0


async def _public_ids(service: Service) -> dict[str, str]:
    found = await rows(service, "SELECT pool_id, id FROM binding")
    return {str(row["id"]): public_id(row["pool_id"], row["id"]) for row in found}

"""Delivering a ledger's pushes as a platform does on a bad day, and what the broker's books have of them."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import asyncpg

from bench.connection import Connection
from bench.ledger import Call, Ledger, Message, Order, Push
from bench.pushing import Signature
from broker.domain.ids import public_id
from broker.flows.projection import call_id, notice_id
from broker.store.crypto import Vault

_ANSWER_S = 30.0
_AGAIN_S = 0.05
_CUT_S = 0.01
_LEFT = "SELECT count(*) FROM inbox WHERE state <> 'done'"
#: The state of a number changes as its statuses come; what it is in the end does not, but how often it is told of does.
_EVENTS = """
SELECT type, binding_id, count(*) AS n FROM event
WHERE split_part(type, '.', 1) IN ('call', 'cdr', 'recording', 'sms')
  AND coalesce(data ->> 'call', '') <> ALL ($1::text[])
GROUP BY 1, 2
"""
_CALLS = """
SELECT app_id, id, bindings, session_sealed, started_at, ended_at,
       ARRAY(SELECT s ->> 'type' FROM jsonb_array_elements(timeline) AS s ORDER BY 1) AS steps
FROM call
"""
_RECORDS = "SELECT app_id, id, bindings, session_sealed, talk_s FROM cdr"
_STATUSES = """
SELECT x.number, s.created, s.status FROM number_status AS s
JOIN x_number AS x ON x.pool_id = s.pool_id AND x.x_id = s.x_id
"""


class WrongAnswer(Exception):
    """The platform was told something that it must not be told."""


class Deliverer:
    """Delivers pushes over a few connections until each is taken; cuts one in twenty before its answer comes."""

    def __init__(self, edge: str, signatures: Mapping[str, Signature], *, cut: float, seed: int) -> None:
        """``signatures`` by the mode of the app."""
        self._address = urlsplit(edge)
        self._signatures = signatures
        self._cut = cut
        self._dice = random.Random(seed)
        self.answers: Counter[str] = Counter()
        self.delivered = 0

    async def deliver(self, queue: list[Push], senders: int) -> None:
        """Empty the queue.

        Raises:
            WrongAnswer: the first one that was given.
        """
        async with asyncio.TaskGroup() as group:
            for _ in range(senders):
                group.create_task(self._send_all(queue))

    async def _send_all(self, queue: list[Push]) -> None:
        line = _Line(self._address.hostname or "", self._address.port or 80)
        while queue:
            push = queue.pop()
            if await self._taken(line, push):
                self.delivered += 1
            else:
                # The platform pushes it again, later.
                queue.insert(self._dice.randrange(len(queue) + 1), push)
                await asyncio.sleep(_AGAIN_S)
        line.close()

    async def _taken(self, line: _Line, push: Push) -> bool:
        """Deliver once; tell whether it was taken."""
        request = self._signatures[push.mode].request(push.kind, push.body, push.created)
        cut = self._dice.random() < self._cut
        status, body = await line.ask(request, self._dice.random() * _CUT_S if cut else _ANSWER_S)
        if not status:
            self.answers["cut" if cut else "lost"] += 1
            return False
        if status != 200:
            self.answers[str(status)] += 1
            if status == 503:
                return False
            raise WrongAnswer(f"{status} for {push.kind}")
        if push.wanted in body:
            self.answers["200"] += 1
        elif b'"close"' in body or b"Discard" in body:
            # The safe default: nobody was reached in time.
            self.answers["no answer in time"] += 1
        else:
            raise WrongAnswer(f"somebody else for a question of {push.kind}")
        return True


class _Line:
    """A connection that is made anew when it is gone."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._connection: Connection | None = None
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None

    async def ask(self, request: bytes, within_s: float) -> tuple[int, bytes]:
        """Return status and body; 0 = the connection was lost, or cut when the time was over."""
        loop = asyncio.get_running_loop()
        try:
            if self._connection is None:
                make = partial(Connection, self._answered, self._lost)
                _, self._connection = await loop.create_connection(make, self._host, self._port)
            self._answer = loop.create_future()
            self._connection.send(request)
            return await asyncio.wait_for(self._answer, within_s)
        except (OSError, TimeoutError):
            self.close()
            return 0, b""

    def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _answered(self, status: int, body: bytes) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((status, body))

    def _lost(self, connection: Connection) -> None:
        if connection is self._connection:
            self._connection = None
            self._answered(0, b"")


async def bound(
    http: aiohttp.ClientSession, api: str, keys: Mapping[str, str], many: int, *, first: int = 0
) -> list[Order]:
    """Bind so many orders of each of these apps (mode: API key), of phones from a ``first`` one on.

    Raises:
        RuntimeError: one could not be bound.
    """
    made: list[Order] = []
    for place in range(many):
        for mode, key in keys.items():
            number = first + len(made)
            a, b = f"+86135{number:08d}", f"+86136{number:08d}"
            async with http.post(
                f"{api}/v1/bindings", json={"a": a, "b": b, "ttl_s": 86_400}, headers={"Authorization": f"Bearer {key}"}
            ) as answer:
                if answer.status != 201:
                    raise RuntimeError(f"order {place} was answered {answer.status}")
                told = await answer.json()
            made.append(Order(mode, told["id"], told["line"], told["x"], a, b))
    return made


async def idle_numbers(db: asyncpg.Connection[Any], app: str) -> list[str]:
    """Return X numbers of an app that no line is on."""
    rows = await db.fetch(
        "SELECT x.number FROM x_number AS x JOIN pool AS p ON p.id = x.pool_id JOIN app AS a ON a.id = p.app_id"
        " WHERE a.name = $1 AND NOT EXISTS (SELECT FROM line AS l WHERE l.pool_id = x.pool_id AND l.x_id = x.x_id)"
        " ORDER BY x.number",
        app,
    )
    return [row["number"] for row in rows]


async def left(db: asyncpg.Connection[Any]) -> int:
    """Return how many notifications have no effects yet."""
    return int(await db.fetchval(_LEFT))


async def undone(db: asyncpg.Connection[Any]) -> dict[str, int]:
    """Return how many notifications have no effects, by kind, state and error."""
    rows = await db.fetch(
        "SELECT concat_ws(' ', kind, state, error) AS what, count(*) AS n FROM inbox WHERE state <> 'done' GROUP BY 1"
    )
    return {row["what"]: row["n"] for row in rows}


async def books(
    db: asyncpg.Connection[Any],
    vault: Vault,
    apps: Mapping[str, str],
    ledger: Ledger,
    unsure: Collection[tuple[str, str]] = (),
) -> dict[str, Any]:
    """Return what the broker has, in the shape of the ledger. ``apps``: names by mode; ``unsure``: without these."""
    ids = {row["name"]: row["id"] for row in await db.fetch("SELECT id, name FROM app")}
    modes = {ids[name]: mode for mode, name in apps.items()}
    named = {
        row["id"]: public_id(row["pool_id"], row["id"]) for row in await db.fetch("SELECT pool_id, id FROM binding")
    }

    def owner(row: asyncpg.Record) -> str:
        return " ".join(named[one] for one in row["bindings"])

    def key(table: str, row: asyncpg.Record) -> tuple[str, str]:
        return modes[row["app_id"]], vault.open(table, "session", 0, row["id"], row["session_sealed"])

    without = [public_id(0, call_id(vault, ids[apps[mode]], session), "cal_") for mode, session in unsure]
    events = Counter(
        {(row["type"], named.get(row["binding_id"], "")): row["n"] for row in await db.fetch(_EVENTS, without)}
    )
    # As many as there are rows: a session or a record that is two is one too many.
    calls = [(key("call", row), row) for row in await db.fetch(_CALLS)]
    records = [(key("cdr", row), row) for row in await db.fetch(_RECORDS)]
    names = {
        notice_id(vault, ids[apps[mode]], sms.at, ("sms", identifier, "Notify")): (mode, identifier)
        for (mode, identifier), sms in ledger.messages.items()
    }
    messages = await db.fetch("SELECT id, at, bindings, result FROM sms")
    return {
        "events": events,
        "calls": {
            one: Call(owner(row), tuple(row["steps"]), row["started_at"], row["ended_at"])
            for one, row in calls
            if one not in unsure
        },
        "records": {one: (owner(row), row["talk_s"]) for one, row in records if one not in unsure},
        "messages": {
            names.get(row["id"], ("", str(row["id"]))): Message(owner(row), row["result"], row["at"])
            for row in messages
        },
        "rows": sum(one not in unsure for one, _ in [*calls, *records]) + len(messages),
        "statuses": {(row["number"], row["created"], row["status"]) for row in await db.fetch(_STATUSES)},
        "kept": await db.fetchval("SELECT count(*) FROM inbox"),
    }

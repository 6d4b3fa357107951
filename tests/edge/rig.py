"""An edge listener over a shop's books, and a platform that pushes to it as the contract's examples do."""

from __future__ import annotations

import itertools
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import asyncpg
import orjson
from aiohttp import web

from broker.edge.listener import EdgeRunner
from broker.edge.receiver import Receiver
from broker.flows.notices import Notices
from broker.flows.questions import Questions
from broker.flows.reach import Books
from broker.flows.route import Router
from broker.platform.huawei.sign import aksk_digest, wsse_digest
from broker.store import registry
from broker.store.database import Database
from broker.store.registry import Registry
from broker.workers.service import Periodic
from tests.contract.service import eventually
from tests.store.pairs import VAULT, Pairs
from tests.store.shop import Shop, open_shop

SECRET = "secret"
_serial = itertools.count(1)

Json = dict[str, Any]


def headers(
    *, key: str = "key", secret: str = SECRET, scheme: str = "aksk", at: datetime | None = None, **other: str
) -> dict[str, str]:
    """The two headers of a push (contract 6.2)."""
    nonce = uuid.uuid4().hex
    created = (at or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%SZ")
    digest = (aksk_digest if scheme == "aksk" else wsse_digest)(secret, nonce, created)
    name = scheme.upper()
    return {
        "Content-Type": "application/json;charset=UTF-8",
        "Authorization": f'{name} realm="SDP",profile="UsernameToken",type="Appkey"',
        f"X-{name}": f'UsernameToken Username="{key}",PasswordDigest="{digest}",Nonce="{nonce}",Created="{created}"',
    } | other


def stamp(at: datetime | None = None) -> str:
    """A time of an event."""
    return (at or datetime.now(UTC)).strftime("%Y-%m-%d %H:%M:%S")


def session_id() -> str:
    """A session of the platform's form that no other test uses."""
    return f"1200_{next(_serial)}_0_20261122091514@node1"


def event(kind: str, session: str, *, at: datetime | None = None, **fields: Any) -> Json:
    """A call event (contract 6.4)."""
    return {"eventType": kind, "statusInfo": {"sessionId": session, "timestamp": stamp(at), **fields}}


def fee(session: str, *, at: datetime | None = None, talk_s: int = 65, **fields: Any) -> Json:
    """A record of an answered call (contract 6.5)."""
    ended = at or datetime.now(UTC)
    answered = ended - timedelta(seconds=talk_s)
    return {
        "direction": 1, "spId": "customer01", "appKey": "key", "icid": f"icid.{session}", "sessionId": session,
        "callInTime": stamp(answered - timedelta(seconds=22)), "fwdAnswerTime": stamp(answered),
        "callEndTime": stamp(ended), "fwdUnaswRsn": 0, "ulFailReason": 0, "sipStatusCode": 0, "recordFlag": 0, **fields,
    }  # fmt: skip


def fees(*records: Json) -> Json:
    """A push of records."""
    return {"eventType": "fee", "feeLst": list(records)}


def message(x: str, sender: str, *, mode: str = "Notify", at: datetime | None = None, **fields: Any) -> Json:
    """A short message (contract 6.6)."""
    told = {
        "smsIdentifier": f"sms-{next(_serial)}", "notificationMode": mode, "calling": sender, "virtualNumber": x,
        "event": "Text SMS ", "timeStamp": (at or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%S.000Z"), **fields,
    }  # fmt: skip
    return {"appKey": "key", "smsEvent": told}


@dataclass
class Tallied:
    """Counts of pushes and questions."""

    pushes: Counter[tuple[str, str]] = field(default_factory=Counter)
    questions: Counter[tuple[str, str]] = field(default_factory=Counter)

    def pushed(self, kind: str, outcome: str, seconds: float) -> None:
        """Count one."""
        del seconds
        self.pushes[kind, outcome] += 1

    def asked(self, kind: str, answer: str) -> None:
        """Count one."""
        self.questions[kind, answer] += 1


class Edge:
    """The listener, its books, and the platform's side of it."""

    def __init__(self, shop: Shop, http: aiohttp.ClientSession, database_url: str) -> None:
        self.shop = shop
        self.database_url = database_url
        self.pairs = Pairs(shop)
        self.http = http
        self.counts = Tallied()
        self.books: Registry | None = None
        self.notices = Notices(shop.db, VAULT, self.registry)
        self.url = ""
        self.served = self.receiver()

    def registry(self) -> Registry:
        """The configuration."""
        assert self.books is not None
        return self.books

    async def configure(self, statement: str = "SELECT 1", *arguments: Any) -> None:
        """Change the app and have everybody know it."""
        await self.shop.run(statement, *arguments)
        self.books = await registry.load(self.shop.db, VAULT)

    def receiver(self, *, question_s: float = 20.0) -> Receiver:
        """What serves the listener."""
        db = self.shop.db
        router = Router(db, VAULT, self.registry)
        questions = Questions(Books(db, VAULT), router, self.registry, question_s)
        return Receiver(self.notices, questions, self.registry, self.counts)

    def x(self, x_id: int = 0) -> str:
        """A number of the first pool."""
        return self.registry().pools[self.shop.pool].numbers[x_id]

    async def push(
        self, kind: str, body: object, *, signed: Mapping[str, str] | None = None, app: str = "shop"
    ) -> tuple[int, bytes]:
        """Push, and return status and body of the answer."""
        sent = body if isinstance(body, bytes) else orjson.dumps(body)
        async with self.http.post(
            f"{self.url}/n/{app}/{kind}", data=sent, headers=headers() if signed is None else signed
        ) as answer:
            return answer.status, await answer.read()

    async def told(self, kind: str, body: object) -> None:
        """Push something that is taken, and wait for its effects."""
        assert await self.push(kind, body) == (200, b"")
        await self.settled()

    async def settled(self) -> None:
        """Wait until nothing that is readable waits for its effects."""

        async def settled() -> bool:
            return not await self.shop.value("SELECT count(*) FROM inbox WHERE state = 'new'")

        await eventually(settled, "everything has its effects")

    @asynccontextmanager
    async def holding(self, table: str) -> AsyncIterator[None]:
        """Keep everybody from a table until the block ends."""
        connection = await asyncpg.connect(self.database_url)
        try:
            async with connection.transaction():
                await connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
                yield
        finally:
            await connection.close()

    async def kept_from(self, table: str) -> None:
        """Wait until somebody waits for a table that is held."""

        async def waiting() -> bool:
            query = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = to_regclass($1)"
            return bool(await self.shop.value(query, table))

        await eventually(waiting, f"{table} is waited for")

    async def inbox(self) -> dict[tuple[str, str], int]:
        """Notifications by kind and state."""
        rows = await self.shop.db.fetch("SELECT kind, state, count(*) AS n FROM inbox GROUP BY kind, state")
        return {(row["kind"], row["state"]): row["n"] for row in rows}

    async def events(self) -> list[tuple[str, Any, Json]]:
        """What was emitted: type, binding and data."""
        rows = await self.shop.db.fetch(
            "SELECT type, binding_id, data::text AS data FROM event WHERE type NOT LIKE 'binding.%' ORDER BY id"
        )
        return [(row["type"], row["binding_id"], orjson.loads(row["data"])) for row in rows]

    async def rows(self, table: str) -> list[dict[str, Any]]:
        """All rows of a table."""
        found = await self.shop.db.fetch(f"SELECT * FROM {table} ORDER BY at, id")  # noqa: S608 - our own words
        return [dict(row) for row in found]

    def opened(self, table: str, column: str, row: Mapping[str, Any]) -> str:
        """What a row holds, decrypted."""
        return VAULT.open(table, column, 0, row["id"], row[f"{column}_sealed"])


@asynccontextmanager
async def edge_on(database_url: str) -> AsyncIterator[Edge]:
    """Serve a fresh shop's listener on a port of its own."""
    db = Database(database_url, connections=6, timeout_s=20)
    await db.open()
    shop = await open_shop(db)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        edge = Edge(shop, http, database_url)
        await edge.configure("UPDATE app SET secret_sealed = $1", VAULT.seal("app", "secret", 0, "shop", SECRET))
        await edge.notices.look()
        runner = EdgeRunner(edge.served.application(), take=edge.served.take, access_log=None, shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        edge.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        projection = Periodic("projection", 0.001, edge.notices.turn)
        projection.start()
        yield edge
        await runner.cleanup()
        await edge.served.drain()
        await projection.stop()
    await db.close()

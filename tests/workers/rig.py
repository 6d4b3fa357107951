"""An instance of the broker without its listeners, beside a real emulator: what the tests of this folder share."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit
from uuid import UUID

from broker.clock import boottime
from broker.domain.choice import Policy
from broker.domain.phone import PhoneNumber
from broker.flows.allocate import Allocator
from broker.flows.bind import Accepted, bind
from broker.flows.calls import PlatformCall
from broker.flows.order import BindOrder
from broker.flows.release import release
from broker.platform.huawei.app import AppAccess
from broker.platform.huawei.axb import HuaweiAxb
from broker.platform.huawei.http import HttpOptions
from broker.platform.huawei.request import Scheme
from broker.platform.protocol import Platform
from broker.store import bindings, registry
from broker.store.bindings import Binding, ReleaseAsk, Releasing
from broker.store.crypto import Vault, parse_data_keys, parse_index_key
from broker.store.database import Database
from broker.store.registry import App, Registry
from broker.store.statements import statements
from broker.workers.dispatch import Dispatcher
from broker.workers.rescue import rescue
from broker.workers.sender import Sender, Timing
from broker.workers.service import Periodic
from tests.emulator.support import KEY, SECRET, Emulated, Json

T = TypeVar("T")
Kind = TypeVar("Kind", bound="Instance")


QUICK = Timing(
    lease_s=8.0,
    http_timeout_s=2.0,
    first_backoff_s=0.02,
    longest_backoff_s=0.2,
    operator_backoff_s=0.25,
    absence_s=0.3,
    source_block_s=1.0,
    flow_pause_s=(0.4, 0.5),
)
REST_S = 7200
_KEY = base64.b64encode(bytes(range(32))).decode()


async def eventually(look: Callable[[], Awaitable[T]], *, within_s: float = 8.0, every_s: float = 0.01) -> T:
    """Return what ``look()`` gives once it is true; fail with the last thing it gave after ``within_s``."""
    deadline = boottime() + within_s
    while not (found := await look()):
        assert boottime() < deadline, f"not within {within_s} s; the last look gave {found!r}"
        await asyncio.sleep(every_s)
    return found


def milliseconds(text: str) -> float:
    """Return a ledger row's time as unix milliseconds."""
    return datetime.fromisoformat(text).timestamp() * 1000


def vault() -> Vault:
    """The keys of every test instance."""
    return Vault(parse_data_keys("1:" + _KEY), parse_index_key(_KEY))


async def seed(db: Database, emu: Emulated, *, rate: float | None = None, burst: int = 1, cap: int = 500) -> None:
    """Write the emulator's app and its numbers into the database, as one pool."""
    sql = statements("config")
    sealed = vault().seal("app", "secret", 0, "test", SECRET)
    app = await db.fetchrow(sql["add_app"], "test", "axb", KEY, sealed, emu.wire, rate, burst, REST_S, cap)
    assert app is not None
    await db.fetchrow(sql["add_caller"], app["id"], "orders")
    pool = await db.fetchrow(sql["add_pool"], app["id"], "shenzhen", "0755")
    assert pool is not None
    for place in range(3):
        await db.fetch(sql["add_number"], pool["id"], f"+8617000000{101 + place}")


@dataclass
class Instance:
    """One process's share of the work: allocator, dispatcher, sender, the periodic services; and test verbs."""

    db: Database
    emu: Emulated
    known: Registry
    timing: Timing
    width: int
    make_platform: Callable[[App], Platform] | None
    periodic: list[Periodic] = field(default_factory=list)
    #: Binds for which the platform had no X.
    full: list[PlatformCall] = field(default_factory=list)
    drained: bool = False

    def __post_init__(self) -> None:
        self.vault = vault()
        self.allocator = Allocator(
            self.db, self.vault, lambda: self.known, lease_s=self.timing.lease_s, boottime=boottime
        )
        make = self.make_platform or self._driver
        self.sender = Sender(self.db, lambda: self.known, make, timing=self.timing, width=self.width)
        self.dispatcher = Dispatcher(
            self.db, self.sender, self.allocator, vault=self.vault, rest_s=lambda _: REST_S, full=self.full.append
        )
        self.periodic = [Periodic("keep", 0.2, self._keep), Periodic("stops", 0.2, self._heed_stops)]
        for service in self.periodic:
            service.start()

    @property
    def app(self) -> App:
        """The only app."""
        return next(iter(self.known.apps.values()))

    def _driver(self, app: App) -> HuaweiAxb:
        access = AppAccess(app.app_key, app.secret, app.base_url, Scheme(app.auth_scheme))
        return HuaweiAxb(access, HttpOptions(max_connections=self.width))

    async def _keep(self) -> bool:
        await self.dispatcher.keep_leases()
        return False

    async def _heed_stops(self) -> bool:
        await self.sender.look_at_stops()
        return False

    # -- verbs

    def order(self, a: str, b: str, *, ttl_s: int = 3600) -> BindOrder:
        """Ask for a pair."""
        return BindOrder(
            app=self.app,
            caller_id=1,
            a=PhoneNumber(a),
            b=PhoneNumber(b),
            a_key=self.vault.party_key(a),
            b_key=self.vault.party_key(b),
            pools=tuple(self.known.pools.values()),
            ttl_s=ttl_s,
            direction="both",
            policy=Policy.PACK,
        )

    async def bind(self, a: str, b: str, *, ttl_s: int = 3600, within_s: float = 10.0, wait: bool = True) -> Accepted:
        """Bind a pair as the API does."""
        return await bind(
            self.order(a, b, ttl_s=ttl_s),
            self.allocator,
            self.dispatcher,
            lease_s=self.timing.lease_s,
            deadline=boottime() + within_s,
            wait=wait,
        )

    async def show(self, made: Accepted) -> Binding:
        """Read a binding."""
        row = (made.pool_id, made.binding_id)
        return (await bindings.show(self.db, self.vault, [row]))[row]

    async def release(self, made: Accepted, *, within_s: float = 10.0, wait: bool = True) -> Binding:
        """Release a binding as the API does."""

        async def read() -> Binding:
            return await self.show(made)

        async def begin(ask: ReleaseAsk) -> Releasing | None:
            begun = await bindings.release(self.db, [ask], reason="released", lease_s=self.timing.lease_s)
            return begun[0]

        return await release(
            await self.show(made),
            begin=begin,
            read=read,
            dispatch=self.dispatcher,
            lease_s=self.timing.lease_s,
            deadline=boottime() + within_s,
            wait=wait,
        )

    async def state(self, made: Accepted, *wanted: str, within_s: float = 8.0) -> Binding:
        """Wait until a binding is in one of these states."""

        async def look() -> Binding | None:
            binding = await self.show(made)
            return binding if binding.state in wanted else None

        found = await eventually(look, within_s=within_s)
        assert found is not None
        return found

    async def rescue(self) -> None:
        """Take over whatever is ownerless, as the periodic service does."""
        await rescue(self.db, self.vault, self.dispatcher, lambda: self.known, self.timing.lease_s)

    async def reload(self) -> None:
        """Take in a change of the configuration."""
        self.known = await registry.load(self.db, self.vault)

    async def idle(self) -> None:
        """Wait until nothing is in hand."""

        async def look() -> bool:
            return self.dispatcher.running == 0

        await eventually(look)

    def only_call(self) -> PlatformCall:
        """The one call in hand."""
        (call,) = self.dispatcher._running
        return call

    async def drain(self, grace_s: float = 1.0) -> None:
        """End as the worker does at SIGTERM."""
        self.drained = True
        await self.dispatcher.drain(grace_s)
        for service in self.periodic:
            await service.stop()

    # -- the books

    async def rows(self, query: str, *args: object) -> list[dict[str, Any]]:
        """Read any rows."""
        return [dict(row) for row in await self.db.fetch(query, *args)]

    async def calls(self) -> list[dict[str, Any]]:
        """Every platform call, oldest first."""
        return await self.rows("SELECT * FROM every_call ORDER BY created_at, no")

    async def lines(self) -> list[dict[str, Any]]:
        """Every line, the newest last."""
        return await self.rows(
            "SELECT l.*, x.number FROM line AS l JOIN x_number AS x USING (pool_id, x_id)"
            " JOIN every_call AS c ON c.pool_id = l.pool_id AND c.line_id = l.id AND c.no = 1 ORDER BY c.created_at"
        )

    async def held(self) -> list[tuple[str, bool]]:
        """The slots that nobody else may have: X number, and whether it is live."""
        rows = await self.rows(
            "SELECT x.number, s.until = 'infinity' AS live FROM slot AS s JOIN x_number AS x USING (pool_id, x_id)"
            " WHERE s.until > clock_timestamp() ORDER BY x.number"
        )
        return [(row["number"], row["live"]) for row in rows]

    async def end_leases(self) -> None:
        """Let the database's lease of every open call end now."""
        await self.db.fetch("UPDATE platform_call SET claimable_at = clock_timestamp() WHERE state = 'open'")


def forget_lease(call: PlatformCall) -> None:
    """Let the owner's own view of the lease end now, as it does for a process that was frozen."""
    call.lease_until = boottime()


@contextlib.asynccontextmanager
async def instance(
    dsn: str,
    emu: Emulated,
    *,
    timing: Timing = QUICK,
    width: int = 64,
    platform: Callable[[App], Platform] | None = None,
    **changed: Any,
) -> AsyncIterator[Instance]:
    """Run an instance on a seeded database."""
    async with instance_of(Instance, dsn, emu, timing=timing, width=width, platform=platform, **changed) as made:
        yield made


@contextlib.asynccontextmanager
async def instance_of(
    kind: type[Kind],
    dsn: str,
    emu: Emulated,
    *,
    timing: Timing = QUICK,
    width: int = 64,
    platform: Callable[[App], Platform] | None = None,
    **changed: Any,
) -> AsyncIterator[Kind]:
    """Run an instance of that kind on a seeded database."""
    db = Database(dsn, connections=8, timeout_s=3.0)
    await db.open()
    try:
        known = await registry.load(db, vault())
        made = kind(db, emu, known, replace(timing, **changed), width, platform)
        try:
            yield made
        finally:
            if not made.drained:
                await made.drain(0.0)
    finally:
        await db.close()


# -- the emulator's ledger


def effects(ledger: Sequence[Json], op: str) -> list[Json]:
    """Rows of what really happened."""
    return [row for row in ledger if row["op"] == op and row["result_code"] == "0"]


def requests(ledger: Sequence[Json], *ops: str) -> list[Json]:
    """Rows of requests of these kinds, whatever became of them."""
    return [row for row in ledger if row["op"] in ops and row["request"] is not None]


def line_of(row: Json) -> UUID:
    """The line that a ledger row's token names."""
    return UUID(str(row["user_data"]).partition(".")[0])


class Gate:
    """A TCP proxy before the database that can be shut and opened again."""

    def __init__(self, dsn: str) -> None:
        url = urlsplit(dsn)
        self._to = (url.hostname or "127.0.0.1", url.port or 5432)
        self._url = url
        self._server: asyncio.Server | None = None
        self._port = 0
        self._pairs: set[asyncio.Task[None]] = set()
        self.dsn = ""

    async def open(self) -> None:
        """Let connections through, on the same port each time."""
        self._server = await asyncio.start_server(self._through, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]
        user = self._url.netloc.rpartition("@")[0]
        self.dsn = self._url._replace(netloc=f"{user + '@' if user else ''}127.0.0.1:{self._port}").geturl()

    async def shut(self) -> None:
        """Cut every connection and refuse new ones."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
        for task in list(self._pairs):
            task.cancel()
        await asyncio.gather(*self._pairs, return_exceptions=True)

    def cut(self) -> None:
        """Break every connection; new ones go through."""
        for pair in list(self._pairs):
            pair.cancel()

    async def _through(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._pairs.add(task)
        task.add_done_callback(self._pairs.discard)
        there_reader, there_writer = await asyncio.open_connection(*self._to)
        try:
            ways = [asyncio.create_task(_copy(*way)) for way in ((reader, there_writer), (there_reader, writer))]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        except asyncio.CancelledError:
            pass  # shut: asyncio's stream server would report a cancelled handler as an error
        finally:
            there_writer.transport.abort()
            writer.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await reader.read(65536):
            writer.write(chunk)
            await writer.drain()

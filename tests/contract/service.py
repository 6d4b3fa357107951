"""A broker as a process of its own, and what tests ask of it over HTTP."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import asyncpg
import orjson
from multidict import CIMultiDictProxy

from broker.api.auth import new_key
from broker.store.crypto import Vault, parse_data_keys, parse_index_key
from broker.store.registry import hash_key
from tests.prepared import prepare

CHECKOUT = Path(__file__).parents[2]
LIMIT_S = 30.0
_POLL_S = 0.02
_MEMORY = Path("/dev/shm")  # noqa: S108 - folders in it get random names
_serial = itertools.count(1)

Json = dict[str, Any]


def phone() -> str:
    """A real phone that no other test of this run uses."""
    return f"+86139{next(_serial):08d}"


def memory() -> Path | None:
    """Where state folders are fastest."""
    return _MEMORY if os.access(_MEMORY, os.W_OK | os.X_OK) else None


def environment(**extra: str) -> dict[str, str]:
    """The run's environment without any setting of the broker, and ``extra``; nothing is shed on a busy machine."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("BROKER_")}
    return others | {"BROKER_OVERLOAD_WAIT_S": "60"} | extra


def command(*arguments: str) -> list[str]:
    """``python -m broker`` with arguments."""
    return [sys.executable, "-m", "broker", *arguments]


def wait_until(condition: Callable[[], object], what: str, limit_s: float = LIMIT_S) -> None:
    """Poll a condition that another process brings about."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"still not so: {what}"
        time.sleep(_POLL_S)


async def eventually(condition: Callable[[], Awaitable[Any]], what: str, limit_s: float = LIMIT_S) -> Any:
    """Poll a condition that another process brings about, and return what it became."""
    deadline = asyncio.get_running_loop().time() + limit_s
    while not (found := await condition()):
        assert asyncio.get_running_loop().time() < deadline, f"still not so: {what}"
        await asyncio.sleep(_POLL_S)
    return found


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer, read to its end."""

    status: int
    headers: CIMultiDictProxy[str]
    raw: bytes

    @property
    def body(self) -> Any:
        """The JSON."""
        return orjson.loads(self.raw)

    def problem(self, status: int, code: str) -> Json:
        """Check that this is such a problem and return its body."""
        assert self.status == status, self.raw
        assert self.headers["Content-Type"].split(";")[0] == "application/problem+json"
        body: Json = self.body
        assert body["status"] == status
        assert body["code"] == code, body
        assert body["type"] == f"/problems#{code}"
        assert body["title"]
        assert body["detail"]
        assert body["instance"]
        return body

    def pointers(self) -> set[str]:
        """The places of a 422."""
        return set(self.mistakes())

    def mistakes(self) -> dict[str, str | None]:
        """The codes of a 422 by place; a code that all mistakes have is the whole problem's."""
        codes = {error["pointer"]: error.get("code") for error in self.body["errors"]}
        (shared,) = set(codes.values()) if len(set(codes.values())) == 1 else {None}
        self.problem(422, shared or "validation_failed")
        return codes


class Service:
    """A running ``broker up``."""

    def __init__(self, process: subprocess.Popen[bytes], ready: Json, folder: Path) -> None:
        self.process = process
        self.ready = ready
        self.folder = folder

    @property
    def api(self) -> str:
        """Address of the API."""
        return str(self.ready["api"])

    @property
    def key(self) -> str:
        """The demonstration caller's key."""
        return str(self.ready["api_key"])

    @property
    def database(self) -> str:
        """The DSN."""
        return str(self.ready["database"])

    @property
    def log(self) -> Path:
        """The workers' log."""
        return self.folder / "broker.log"

    def vault(self) -> Vault:
        """The keys of this folder."""
        keys = orjson.loads((self.folder / "keys.json").read_bytes())
        return Vault(parse_data_keys(keys["data_keys"]), parse_index_key(keys["index_key"]))

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Signal the parent once and return its exit code."""
        self.process.send_signal(number)
        return self.process.wait(LIMIT_S)


@contextmanager
def up(
    folder: Path, *options: str, group: bool = False, cold: bool = False, settings: Mapping[str, str] | None = None
) -> Iterator[Service]:
    """Run ``broker up`` on ``folder`` until the end of the block; ``group``: as leader of a process group.

    An empty folder is filled with what a first start leaves: ``cold`` leaves that to this one.
    """
    if not cold:
        prepare(folder)
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command("up", "--port", "0", "--json", "--state-dir", str(folder), *options),
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment(**settings or {}),
            cwd=CHECKOUT,
            start_new_session=group,
        )
        try:
            yield Service(process, orjson.loads(first_line(process, errors)), folder)
        finally:
            if process.poll() is None:
                process.terminate()
            try:
                process.wait(LIMIT_S)
            finally:
                process.kill()
                process.communicate()


def first_line(process: subprocess.Popen[bytes], errors: Any) -> bytes:
    """The ready line, or what went wrong."""
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    said = b""
    deadline = time.monotonic() + LIMIT_S
    while b"\n" not in said:
        said += process.stdout.read() or b""
        if process.poll() is not None or time.monotonic() > deadline:
            errors.seek(0)
            raise AssertionError(f"not ready, exit {process.poll()}: {errors.read().decode()}")
        time.sleep(_POLL_S)
    return said.partition(b"\n")[0]


class Client:
    """Requests with a key, and the emulator's console."""

    def __init__(self, service: Service, http: aiohttp.ClientSession) -> None:
        self.service = service
        self.http = http

    async def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        key: str | None = "",
        headers: Mapping[str, str] | None = None,
        data: Any = None,
    ) -> Answer:
        """Send one request; ``key`` is the demonstration key unless given, None sends none."""
        sent = dict(headers or {})
        if key is not None:
            sent.setdefault("Authorization", f"Bearer {key or self.service.key}")
        payload = orjson.dumps(body) if body is not None else data
        url = path if path.startswith("http") else self.service.api + path
        async with self.http.request(method, url, data=payload, headers=sent, allow_redirects=False) as response:
            return Answer(response.status, response.headers, await response.read())

    async def bind(self, *, headers: Mapping[str, str] | None = None, key: str = "", **fields: Any) -> Answer:
        """POST /v1/bindings with fresh phones unless given."""
        body = {"a": phone(), "b": phone(), **fields}
        return await self.ask("POST", "/v1/bindings", body, headers=headers, key=key)

    async def behind(self, party: str, x: str, pool: str) -> Json:
        """Bind a party to strangers until it is behind ``x``, and return that binding."""
        while (made := (await self.bind(a=party, b=phone(), pool=pool)).body)["x"] != x:
            assert made["state"] == "active", made
        return dict(made)

    async def show(self, binding_id: str) -> Json:
        """GET a binding that exists."""
        answer = await self.ask("GET", f"/v1/bindings/{binding_id}")
        assert answer.status == 200, answer.raw
        return dict(answer.body)

    async def until(self, binding_id: str, *states: str) -> Json:
        """GET a binding until it is in one of the states."""

        async def there() -> Json | None:
            found = await self.show(binding_id)
            return found if found["state"] in states else None

        return dict(await eventually(there, f"{binding_id} in {states}"))

    async def emulator(self, method: str, path: str, body: object = None) -> Any:
        """Ask the emulator's console."""
        answer = await self.ask(method, f"{self.service.ready['emulator_admin']}/emulator/{path}", body, key=None)
        assert answer.status < 300, answer.raw
        return answer.body if answer.raw else None

    async def fault(self, interface: str, kind: str, **fields: Any) -> None:
        """Put a fault in force at the platform."""
        await self.emulator("POST", "faults", {"interface": interface, "kind": kind, **fields})

    async def fault_hits(self) -> int:
        """How often the faults in force have hit."""
        return sum(item["hits"] for item in (await self.emulator("GET", "faults"))["items"])

    async def call(self, caller: str, dialled: str) -> Json:
        """Place a call."""
        return dict(await self.emulator("POST", "calls", {"from": caller, "to": dialled}))

    async def platform_bindings(self) -> list[Json]:
        """What the platform holds now."""
        items: list[Json] = []
        after: int | None = 0
        while after is not None:
            page = await self.emulator("GET", f"bindings?limit=10000&after={after}")
            items += page["items"]
            after = page["next"]
        return items

    async def platform_of(self, a: str) -> list[Json]:
        """What the platform holds for party ``a``."""
        return [item for item in await self.platform_bindings() if item["a"] == a]

    async def ledger(self, after: int = 0) -> list[Json]:
        """The platform's record of effects."""
        rows: list[Json] = []
        cursor: int | None = after
        while cursor is not None:
            page = await self.emulator("GET", f"ledger?limit=10000&after={cursor}")
            rows += page["items"]
            cursor = page["next"]
        return rows


@asynccontextmanager
async def client_of(service: Service) -> AsyncIterator[Client]:
    """A client for one test."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=60)) as http:
        client = Client(service, http)
        try:
            yield client
        finally:
            if service.process.poll() is None:
                await client.emulator("DELETE", "faults")


async def rows(service: Service, query: str, *arguments: Any) -> list[asyncpg.Record]:
    """Ask the database."""
    connection = await asyncpg.connect(service.database)
    try:
        found: list[asyncpg.Record] = await connection.fetch(query, *arguments)
        return found
    finally:
        await connection.close()


async def without_sample(service: Service) -> None:
    """Let nothing rest longer than all the others do, to learn from calls: one release in a hundred would."""
    connection = await asyncpg.connect(service.database)
    try:
        await connection.execute("UPDATE app SET sample_share = 0")
    finally:
        await connection.close()


@dataclass(frozen=True, slots=True)
class Tenant:
    """An app in the database: ``keys`` are those of its callers, by name."""

    app_id: int
    keys: Mapping[str, str]


async def add_app(
    service: Service,
    name: str,
    *,
    base_url: str = "",
    pools: Sequence[tuple[str, str, Sequence[str]]] = (),
    callers: Sequence[tuple[str, Sequence[str]]] = (("main", ("bind", "read")),),
    state: str = "open",
) -> Tenant:
    """Insert an app with its callers' keys and pools ``(name, area code, numbers)``, as an operator would."""
    connection = await asyncpg.connect(service.database)
    try:
        app_id = await connection.fetchval(
            "INSERT INTO app (name, mode, app_key, secret_sealed, base_url, quarantine_s, state)"
            " VALUES ($1, 'axb', $2, $3, $4, 7200, $5) RETURNING id",
            name,
            f"key-of-{name}",
            service.vault().seal("app", "secret", 0, name, "secret"),
            base_url or service.ready["emulator"],
            state,
        )
        for pool, area, numbers in pools:
            pool_id = await connection.fetchval(
                "INSERT INTO pool (app_id, name, area_code) VALUES ($1, $2, $3) RETURNING id", app_id, pool, area
            )
            await connection.executemany(
                "INSERT INTO x_number (pool_id, x_id, number) VALUES ($1, $2, $3)",
                [(pool_id, place, number) for place, number in enumerate(numbers)],
            )
        # Who knows a key knows the numbers, too.
        keys = {caller: await add_key(service, app_id, caller, scopes) for caller, scopes in callers}
        return Tenant(app_id, keys)
    finally:
        await connection.close()


async def add_key(service: Service, app_id: int, caller: str, scopes: Sequence[str], place: int = 1) -> str:
    """Insert a caller, unless it is there, and a key of it."""
    key = new_key()
    await rows(
        service,
        "WITH c AS (INSERT INTO caller (app_id, name) VALUES ($1, $2)"
        " ON CONFLICT (app_id, name) DO UPDATE SET name = excluded.name RETURNING id)"
        " INSERT INTO api_key (key_hash, caller_id, place, scopes, hint) SELECT $3, c.id, $4, $5, '....' FROM c",
        app_id,
        caller,
        hash_key(key),
        place,
        list(scopes),
    )
    return key


async def settled_config(service: Service, client: Client, key: str, *, known: bool = True) -> None:
    """Wait until every worker knows (or has forgotten) ``key``: connections are spread over workers at random."""
    deadline = asyncio.get_running_loop().time() + LIMIT_S
    in_a_row = 0
    url = f"{service.api}/v1/bindings/bnd_none"
    while in_a_row < 12:
        assert asyncio.get_running_loop().time() < deadline, "the workers do not take the configuration in"
        answer = await client.ask(
            "GET", url, headers={"Authorization": f"Bearer {key}", "Connection": "close"}, key=None
        )
        in_a_row = in_a_row + 1 if (answer.status != 401) is known else 0
        await asyncio.sleep(_POLL_S)


async def raw_request(service: Service, payload: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send bytes as they are and read the first answer; for what no client library would send."""
    address = urlsplit(service.api)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        writer.write(payload)
        await writer.drain()
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), LIMIT_S)
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines) if name}
        body = await asyncio.wait_for(reader.readexactly(int(headers.get("content-length", "0"))), LIMIT_S)
        return int(first.split()[1]), headers, body
    finally:
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)

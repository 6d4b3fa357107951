"""1,000 phones through every route and error leave no trace in dump, files, WAL, logs, metrics or problems."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from functools import partial
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from broker.admin.routes import ROUTES as OPERATOR_ROUTES
from tests.contract.service import (
    CHECKOUT,
    Answer,
    Client,
    Service,
    add_app,
    add_key,
    client_of,
    command,
    environment,
    eventually,
    memory,
    rows,
    settled_config,
    up,
)
from tests.faults.canaries import CANARIES, Canaries, Search, dumped, written
from tests.pg import state_folder

_SEARCH = Search(CANARIES)
_PART = re.compile(r"{(\w+)(?::[^{}]+)?}")
_DIGITS = re.compile(r"[0-9]+")
_PHONE = re.compile(r"[+]861[3-9][0-9]{9}")
#: What the order system says in its own words is kept as it says it (docs/guarantees.md): no phones belong there.
_OWN_WORDS = frozenset({"order_id", "order_ids", "user_data", "metadata"})
#: What a path needs so that the route does its work; any other name in a path is a binding's id.
_NAMES = {"name": "shenzhen", "file": "swagger-ui.css", "order_id": "order-1"}
_SETTINGS = {"BROKER_LOG_LEVEL": "debug", "BROKER_LEASE_S": "6", "BROKER_RESCUE_INTERVAL_S": "0.5"}

Json = dict[str, Any]


class Tour:
    """Goes through the routes of the OpenAPI document with canaries wherever something can be said."""

    def __init__(self, client: Client, canaries: Canaries) -> None:
        self.client = client
        self.canaries = canaries
        self.visited: set[tuple[str, str]] = set()
        self.answers: list[Answer] = []
        #: A key that may see what calls were recorded.
        self.revealing = ""
        self.keys = {app["mode"]: str(app["api_key"]) for app in client.service.ready["apps"]}

    async def ask(self, method: str, path: str, body: object = None, **options: Any) -> Answer | None:
        """Send a request; None: a killed worker took it along."""
        with contextlib.suppress(aiohttp.ClientError):
            answer = await self.client.ask(method, path, body, **options)
            self.answers.append(answer)
            return answer
        return None

    async def bind(self, **fields: Any) -> Answer | None:
        """Bind two canaries."""
        given = {"a": self.canaries.e164(), "b": self.canaries.e164(), **fields}
        return await self.ask("POST", "/v1/bindings", given, headers=self.headers())

    def headers(self) -> dict[str, str]:
        """Canaries in headers that are looked at, and in some that are not."""
        one, two, three = self.canaries.e164(), self.canaries.national(), self.canaries.national()
        return {
            "Idempotency-Key": f"key-{one}-{self.canaries.used}",
            "X-Request-Id": f"order-86{two}.1",
            "traceparent": f"00-{two:0>32}-{three:0>16}-01",
            "User-Agent": one,
            "Referer": f"http://shop/?to={two}",
            "Cookie": f"phone={three}",
            "X-Phone": base64.b64encode(one.encode()).decode(),
        }

    async def _needs(self, path: str) -> tuple[str, dict[str, str], Json]:
        """What the path needs to do its work: the app's key, names in the path, members of the body or query."""
        mode = "axyb" if "/peers" in path else "ax" if path.endswith("/callee") else "axb"
        key, names, caller = self.keys[mode], dict(_NAMES), self.canaries.e164()
        recording = {"recording": {"enabled": True}} if "/recordings" in path else {}
        fields = {"a": caller, **recording, **({"b": self.canaries.e164()} if mode == "axb" else {})}
        made = await self.ask("POST", "/v1/bindings", fields, key=key, headers=self.headers())
        assert made is not None
        assert made.status == 201, made.raw
        names["id"], x = made.body["id"], made.body["x"]
        if "/peers" in path:
            peer = await self.ask(
                "POST", f"/v1/bindings/{names['id']}/peers", {"b": self.canaries.e164(), "ttl_s": 600}, key=key
            )
            assert peer is not None
            names["peer_id"] = peer.body["id"]
        if "{session_id}" in path:
            names["session_id"] = quote((await self.client.call(caller, x))["session_id"], safe="")
        if "/recordings" in path:
            call = await self.client.call(caller, x)
            await self.client.emulator("POST", "clock", {"advance_s": 4})
            await self.client.emulator("DELETE", f"calls/{quote(call['session_id'], safe='')}")
            *_, kept = (await self.client.emulator("GET", "recordings"))["items"]
            return self.revealing, names, {
                "file_name": kept["record_object_name"], "record_domain": kept["record_domain"]
            }  # fmt: skip
        if path.endswith(":summary"):
            return key, names, {"first": "2026-01-01", "last": "2026-01-31"}
        return key, names, {"x": x, "caller": self.canaries.e164()} if "/reach" in path else {}

    async def visit(self, path: str, method: str, operation: Json, schemas: Json) -> None:
        """One operation: done as its example has it, with canaries for phones, then wrong in every way."""
        key, ids, members = await self._needs(path)
        real = re.sub(r"{(\w+)}", lambda found: ids[found[1]], path)
        content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
        first: Json = next(iter(content.get("examples", {}).values()), {})
        example = self._with_canaries(content.get("example", first.get("value")), ids["id"])
        if members and method == "GET":
            real += f"?{urlencode(members)}"
        elif members:
            example |= members
        if method == "PATCH":
            example["on_conflict"] = "rebind"  # there are many more orders than canaries: one may have this X
        headers = self.headers()
        for _ in range(2):  # with the same key: the second is answered again
            answer = await self.ask(method, real, example, headers=headers, key=key)
            if answer is not None and answer.status < 300:
                self.visited.add((path, method))
        phone = self.canaries.e164()
        await self.ask(method, re.sub(r"{\w+}", phone, path), example, headers={"Request-Timeout": phone})
        await self.ask(method, f"{real}?{phone}={phone}&x={phone}&cursor={phone}&state={phone}&limit={phone}")
        await self.ask(method, f"{path.split('{', maxsplit=1)[0]}/{phone}", headers={"Prefer": phone, "Expect": phone})
        await self.ask(method, real, example, headers={"Authorization": f"Bearer {phone}"}, key=None)
        await self.ask(method, real, example, headers={"Content-Encoding": phone})
        await self.ask("PURGE", real, example, headers=self.headers())
        for broken in (f'{{"a":"{phone}', f'"{phone}"', phone, f'[{{"b":{phone[1:]}}}]', f'{{"{phone}":1}}'):
            await self.ask(method, real, data=broken.encode(), headers=self.headers())
        schema = schemas.get(content.get("schema", {}).get("$ref", "").rpartition("/")[2], {})
        for field in schema.get("properties", {}):
            for wrong in self.canaries.wrong():
                if field not in _OWN_WORDS or isinstance(wrong, int):
                    await self.ask(method, real, {**(example or {}), field: wrong}, headers=self.headers())

    def _with_canaries(self, example: Any, binding_id: str) -> Any:
        """Return an example of the document with canaries for its phones and a binding of ours for its ids."""
        if isinstance(example, dict):
            return {name: self._with_canaries(value, binding_id) for name, value in example.items()}
        if isinstance(example, list):
            return [self._with_canaries(value, binding_id) for value in example]
        if not isinstance(example, str):
            return example
        if _PHONE.fullmatch(example):
            return self.canaries.e164()
        return binding_id if example.startswith("bnd_0") and set(example[4:]) != {"0"} else example

    async def operate(self, key: str) -> None:
        """Every operator route with canaries for names, filters and fields."""
        admin = self.client.service.ready["admin"]
        for route in OPERATOR_ROUTES:
            for known in ({}, {"app": "demo-axb"}, {"app": "demo-axb", "caller": "console", "pool": "shenzhen"}):
                names = {name: self.canaries.national() for name in _PART.findall(route.path)} | known
                path = _PART.sub(partial(_named, names), route.path)
                phone = self.canaries.e164()
                wrong = {"numbers": [phone], "items": [{"number": phone, "pool": phone}], "name": phone, "rate": phone}
                url = f"{admin}{path}?state={phone}"
                for body in (wrong, [phone], {phone: 1}):
                    await self.ask(route.method, url, body, key=key, headers=self.headers())
                await self.ask(route.method, url, data=f'{{"{phone}'.encode(), key=phone)


def _named(names: Mapping[str, str], part: re.Match[str]) -> str:
    return names[part[1]]


@contextlib.asynccontextmanager
async def _quoting() -> AsyncIterator[str]:
    """A platform that refuses everything and repeats what it was sent, in words and for a code."""
    codes = itertools.cycle(["1010002", ""])

    async def refuse(request: web.Request) -> web.Response:
        sent = (await request.read()).decode() + request.query_string
        code = next(codes) or "".join(_DIGITS.findall(sent))[:24]
        body = {"resultcode": code, "resultdesc": f"not valid: {sent}"}
        return web.json_response(body, status=400)

    app = web.Application()
    app.router.add_route("*", "/{any:.*}", refuse)
    async with TestServer(app) as server:
        yield str(server.make_url("")).rstrip("/")


@pytest.fixture(scope="module")
def own() -> Iterator[Service]:
    """A broker of its own, so that its folder holds what these numbers left and nothing else."""
    with state_folder(memory()) as folder, state_folder() as counted:
        settings = {**_SETTINGS, "BROKER_METRICS_DIR": str(counted)}
        with up(folder, "--workers", "2", settings=settings) as running:
            yield running


async def _binds_with_faults_and_a_kill(tour: Tour) -> None:
    client = tour.client
    for kind, extra in (("code", {"code": "1010002"}), ("drop_answer", {}), ("code", {"code": "1023002"})):
        await client.fault("bind", kind, count=3, **extra)
    await client.fault("unbind", "reset", count=2)
    asked = [asyncio.create_task(tour.bind()) for _ in range(120)]
    for task in asyncio.as_completed(asked):
        await task
        break
    os.kill(client.service.ready["pids"][0], signal.SIGKILL)
    answers = await asyncio.gather(*asked)
    bound = [answer.headers["Location"] for answer in answers if answer is not None and answer.status in {201, 202}]
    await asyncio.gather(*(tour.ask("DELETE", location, headers=tour.headers()) for location in bound[::2]))

    async def settled() -> bool:
        open_calls = await rows(client.service, "SELECT 1 FROM platform_call WHERE state = 'open' LIMIT 1")
        ready = await client.ask("GET", f"{client.service.ready['admin']}/readyz", key=None)
        return not open_calls and ready.status == 200

    await eventually(settled, "every call is settled, every worker is there")
    answers = await asyncio.gather(*(tour.bind() for _ in range(100)))
    assert {answer.status for answer in answers if answer is not None} == {201}


async def _refused_by_a_quoting_platform(tour: Tour) -> None:
    service = tour.client.service
    async with _quoting() as url:
        numbers = [f"+86170888000{n:02d}" for n in range(20)]
        pools = [("south", "020", numbers), ("empty", "021", [])]
        tenant = await add_app(service, "quoting", base_url=url, pools=pools)
        await settled_config(service, tour.client, tenant.keys["main"])
        bodies: list[Json] = [{"a": tour.canaries.e164(), "b": tour.canaries.e164()} for _ in range(12)]
        bodies[-1]["pool"] = "empty"
        bodies[0]["pool"] = "south"
        asked = (tour.ask("POST", "/v1/bindings", body, key=tenant.keys["main"]) for body in bodies)
        assert {answer.status for answer in await asyncio.gather(*asked) if answer is not None} & {422, 502}


def _commands(tour: Tour) -> None:
    """Operators' commands with phones where other things belong."""
    folder, phone = tour.client.service.folder, tour.canaries.e164
    (folder.parent / "canaries.csv").write_text(f"number,pool\n{phone()},{phone()}\n{phone()},shenzhen,{phone()}\n")
    for arguments in (
        ("numbers", "freeze", "demo-axb", phone()),
        ("numbers", "list", "demo-axb", "--state", phone()),
        ("numbers", "import", "demo-axb", str(folder.parent / "canaries.csv")),
        ("pool", "create", "demo-axb", phone(), "--area-code", phone()),
        ("app", "show", phone()),
    ):
        given = command(*arguments, "--state-dir", str(folder))
        ended = subprocess.run(given, capture_output=True, env=environment(), cwd=CHECKOUT, timeout=60, check=False)
        assert ended.returncode != 0, arguments
    (folder.parent / "canaries.csv").unlink()


async def _found(tour: Tour) -> dict[str, set[str]]:
    """Where canaries are, by place."""
    service = tour.client.service
    page = await tour.client.ask("GET", f"{service.ready['admin']}/metrics", key=None)
    assert page.status == 200
    tables = await dumped(service.database)
    assert {"line", "binding", "slot", "idempotency", "platform_call"} <= set(tables)
    assert tables["line"].count(b"\n") > 100
    files = {str(path): text for path, text in written(service.folder)}
    assert any("pg_wal" in path for path in files)
    assert files["broker.log"].count(b'"request_done"') > 200
    problems = {f"problem {n}": one.raw for n, one in enumerate(tour.answers) if one.status >= 400}
    places = {"/metrics": page.raw, **{f"table {name}": text for name, text in tables.items()}, **files, **problems}
    return {place: hits for place, text in places.items() if (hits := _SEARCH.hits(text))}


async def test_canaries_leave_no_trace(own: Service) -> None:
    """1,000 phones through routes, refusals, faults and a kill: nothing of ours holds one, in any spelling."""
    async with client_of(own) as client:
        tour = Tour(client, Canaries())
        (app,) = await rows(own, "SELECT id FROM app WHERE name = 'demo-axb'")
        operator = await add_key(own, app["id"], "console", ["operate"])
        tour.revealing = await add_key(own, app["id"], "listener", ["reveal"])
        await settled_config(own, client, tour.revealing)
        await _binds_with_faults_and_a_kill(tour)
        document = (await client.ask("GET", "/openapi.json")).body
        operations = [
            (path, method.upper(), operation)
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
        ]
        schemas = document["components"]["schemas"]
        await asyncio.gather(*(tour.visit(path, method, one, schemas) for path, method, one in operations))
        unvisited = {(path, method) for path, method, _ in operations} - tour.visited
        assert unvisited == set(), "these routes were not done: give them what their path needs in _NAMES"
        await _refused_by_a_quoting_platform(tour)
        await tour.operate(operator)
        await asyncio.to_thread(_commands, tour)
        assert tour.canaries.used >= len(CANARIES)
        assert {200, 201, 400, 401, 404, 405, 409, 415, 422} <= {answer.status for answer in tour.answers}
        assert await _found(tour) == {}
        held = {number for item in await client.platform_bindings() for number in _SEARCH.hits(item["a"].encode())}
        assert held, "the platform knows the numbers: that is its job"
        # The same search finds what is planted: in a table, its file, the WAL, the database's log and ours.
        planted = CANARIES[500]
        await rows(own, "UPDATE app SET state_reason = $1 WHERE name = 'quoting'", f"call +86{planted}")
        with own.log.open("ab") as log:
            log.write(base64.b64encode(f"to 86{planted}".encode()) + b"\n")
        found = await _found(tour)
        assert set().union(*found.values()) == {planted}
        assert {"broker.log", "table app"} <= set(found)
        assert any("pg_wal" in place for place in found)
        assert any("/base/" in place for place in found)


@pytest.mark.parametrize("around", ["{}", "+86{}", "x86{}x", "0086{}", "tel:{},{}"])
def test_the_search_finds_every_spelling(around: str) -> None:
    """Plain, hex and base64 at each place, of each form of a number; and no other number."""
    number, other = CANARIES[7], "13789999999"
    for said, expected in ((number, {number}), (other, set[str]())):
        text = around.format(said, said).encode()
        for place in range(3):
            hidden = b"." * place + text
            spelt = (hidden, hidden.hex().encode(), base64.b64encode(hidden), base64.urlsafe_b64encode(hidden + b"?"))
            for one in spelt:
                assert _SEARCH.hits(b"\x00" + one + b"\xff") == expected, one


def test_a_canary_is_nobody_elses_number() -> None:
    """1,000 different ones."""
    assert len(set(CANARIES)) == 1000
    assert {len(number) for number in CANARIES} == {11}

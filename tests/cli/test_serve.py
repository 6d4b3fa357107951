"""``broker serve`` against a database that it did not make."""

from __future__ import annotations

import asyncio
import base64
import os
import secrets
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest

from bench.ports import free_ports
from tests.contract.service import (
    CHECKOUT,
    LIMIT_S,
    Client,
    Service,
    add_app,
    client_of,
    command,
    environment,
    eventually,
    first_line,
    phone,
    rows,
    wait_until,
)

_NUMBERS = [f"+86170999000{place:02d}" for place in range(20)]


@contextmanager
def emulator(folder: Path) -> Iterator[dict[str, str]]:
    """A platform as a process of its own."""
    with (folder / "emulator.log").open("w+b") as errors:
        process = subprocess.Popen(
            command("emulate", "--state-dir", str(folder / "emulator"), "--rate", "0", "--json"),
            stdout=subprocess.PIPE, stderr=errors, env=environment(), cwd=CHECKOUT,
        )  # fmt: skip
        try:
            yield orjson.loads(first_line(process, errors))
        finally:
            process.terminate()
            process.communicate(timeout=LIMIT_S)


@contextmanager
def serving(
    database: str, platform: dict[str, str], folder: Path, *options: str, workers: int = 2, **extra: str
) -> Iterator[Service]:
    """``broker serve`` with two workers, its secrets in files."""
    keys = {name: base64.b64encode(secrets.token_bytes(32)).decode() for name in ("data", "index")}
    texts = {"database_url": database, "data_keys": f"1:{keys['data']}", "index_key": keys["index"]}
    (folder / "keys.json").write_bytes(orjson.dumps(texts))
    given = {}
    for name, text in texts.items():
        (folder / name).write_text(text + "\n", encoding="utf-8")
        given[f"BROKER_{name.upper()}_FILE"] = str(folder / name)
    ports = free_ports(3)
    for name, port in zip(("API", "ADMIN", "EDGE"), ports, strict=True):
        given[f"BROKER_{name}_PORT"] = str(port)
    log = folder / "broker.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command("serve", "--workers", str(workers), *options), stdout=output, stderr=output, cwd=CHECKOUT,
            env=environment(**given, **extra), start_new_session=True,
        )  # fmt: skip
    urls = dict(zip(("api", "admin", "edge"), (f"http://127.0.0.1:{port}" for port in ports), strict=True))
    service = Service(process, {**urls, **platform, "database": database, "api_key": "none"}, folder)

    def serves() -> bool:
        """The supervisor says so, and each worker that it is ready: their lines come in any order."""
        text = log.read_bytes()
        return b'"event":"serving"' in text and text.count(b'"event":"worker_ready"') >= workers

    try:
        wait_until(lambda: serves() or process.poll() is not None, "serving, or an exit")
        assert process.poll() is None, log.read_text(encoding="utf-8")
        yield service
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(LIMIT_S)


@pytest.fixture
async def client(database_url: str, tmp_path: Path) -> AsyncIterator[Client]:
    """A served app with one pool."""
    with emulator(tmp_path) as platform, serving(database_url, platform, tmp_path) as service:
        tenant = await add_app(service, "served", pools=[("only", "020", _NUMBERS)])
        service.ready["api_key"] = tenant.keys["main"]
        async with client_of(service) as client:
            await client.emulator("PUT", "apps/key-of-served", {"secret": "secret", "mode": "axb", "rate": 0})
            numbers = [{"number": number, "area_code": "020"} for number in _NUMBERS]
            await client.emulator("PUT", "apps/key-of-served/numbers", numbers)

            async def known() -> bool:
                asked = [client.ask("GET", "/v1/bindings/x", headers={"Connection": "close"}) for _ in range(16)]
                return {answer.status for answer in await asyncio.gather(*asked)} == {404}

            await eventually(known, "both workers know the app")
            yield client


def _workers(service: Service) -> set[int]:
    """The pids of the ready workers, as their log tells."""
    lines = [orjson.loads(line) for line in service.log.read_bytes().splitlines()]
    return {line["pid"] for line in lines if line.get("event") == "worker_ready"}


async def test_serve_binds_and_has_no_test_clock(client: Client) -> None:
    """An app of an operator's making is served; there is no test clock anywhere; the signal to the group is one."""
    service = client.service
    a, b = phone(), phone()
    created = await client.bind(a=a, b=b)
    assert created.status == 201
    assert (await client.call(a, created.body["x"]))["connected_to"] == b
    for listener in ("api", "admin", "edge"):
        assert (await client.ask("GET", f"{service.ready[listener]}/readyz", key=None)).status == 200
        answer = await client.ask("POST", f"{service.ready[listener]}/test/clock", {"advance_s": 1}, key=None)
        assert answer.status == 404
    assert await rows(service, "SELECT 1 WHERE to_regclass('test_clock') IS NOT NULL") == []
    await client.fault("bind", "delay", ms=700, count=1)
    late = asyncio.create_task(client.bind())
    await eventually(client.fault_hits, "the platform has the bind")
    os.killpg(service.process.pid, signal.SIGTERM)
    os.killpg(service.process.pid, signal.SIGTERM)
    assert (await late).status == 201
    assert await asyncio.to_thread(service.process.wait, LIMIT_S) == 0
    log = service.log.read_bytes()
    assert log.count(b'"worker_stopped"') == 2
    assert b"Traceback" not in log


async def test_a_killed_worker_is_replaced_and_no_connection_lost(client: Client) -> None:
    """While one worker is stopped and then killed, connections that wait on its socket are served by its successor."""
    service = client.service
    before = _workers(service)
    assert len(before) == 2
    victim = min(before)
    os.kill(victim, signal.SIGSTOP)
    asked = [
        asyncio.create_task(client.ask("GET", "/livez", headers={"Connection": "close"}, key=None)) for _ in range(40)
    ]

    async def served() -> bool:
        return sum(task.done() for task in asked) > 0

    await eventually(served, "the other worker serves its share")
    queued = [task for task in asked if not task.done()]
    assert queued, "none of 40 connections went to the stopped worker"
    # What the victim had accepted before it was stopped is lost with it; these wait in the socket's queue.
    os.kill(victim, signal.SIGKILL)
    assert {(await task).status for task in asked} == {200}
    wait_until(lambda: len(_workers(service)) == 3, "a successor is ready")
    answers = await asyncio.gather(*(client.bind(headers={"Connection": "close"}) for _ in range(20)))
    assert {answer.status for answer in answers} == {201}
    assert (await client.ask("GET", f"{service.ready['admin']}/readyz", key=None)).status == 200


async def test_the_platform_has_workers_of_its_own(database_url: str, tmp_path: Path) -> None:
    """Of three workers one listens to the platform alone: whoever of them is frozen, the other listener answers."""
    with (
        emulator(tmp_path) as platform,
        serving(database_url, platform, tmp_path, "--edge-workers", "1", workers=3) as service,
    ):
        async with client_of(service) as client:

            async def answers(listener: str) -> set[int]:
                url = f"{service.ready[listener]}/livez"
                asked = [client.ask("GET", url, headers={"Connection": "close"}, key=None) for _ in range(20)]
                return {answer.status for answer in await asyncio.gather(*asked)}

            pids = sorted(_workers(service), key=_seat)
            orders, platforms = pids[:2], pids[2:]
            for frozen, other in ((platforms, "api"), (orders, "edge")):
                for pid in frozen:
                    os.kill(pid, signal.SIGSTOP)
                assert await answers(other) == {200}
                for pid in frozen:
                    os.kill(pid, signal.SIGCONT)
            assert [await answers(listener) for listener in ("api", "edge")] == [{200}, {200}]


def _seat(pid: int) -> int:
    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return int(words[words.index(b"--seat") + 1])

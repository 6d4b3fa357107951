"""``broker up``: what it keeps, what it refuses, and how it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import aiohttp
import orjson
import pytest

from bench.certificate import self_signed
from bench.ports import free_ports
from broker.cli.demo import POOLS, DemoApp, identity
from tests.cli.test_commands import run
from tests.contract.service import (
    LIMIT_S,
    client_of,
    eventually,
    memory,
    phone,
    rows,
    up,
    wait_until,
)
from tests.pg import state_folder


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A state folder that all tests of the module use in turn, so that only the first one creates a database."""
    with state_folder(memory()) as made:
        yield made


def family(folder: Path) -> dict[int, str]:
    """Processes that belong to a state folder's broker: by its name in their arguments, or by descent from one."""
    found: dict[int, str] = {}
    parents: dict[int, int] = {}
    names: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            state, parent = (entry / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state == "Z":
            continue
        parents[int(entry.name)], names[int(entry.name)] = int(parent), line
    for pid, line in names.items():
        above = pid
        while above in names and str(folder) not in names[above]:
            above = parents[above]
        if above in names and pid != os.getpid():
            found[pid] = line
    return found


def gone(pids: set[int]) -> bool:
    """Whether none of these processes runs any more."""
    return not any(_runs(pid) for pid in pids)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_a_second_start_keeps_keys_and_bindings(folder: Path) -> None:
    """The same folder has the same keys, and what was bound stays bound, here and at the platform."""
    a, b = phone(), phone()
    with up(folder, cold=True) as first:
        async with client_of(first) as client:
            created = (await client.bind(a=a, b=b)).body
        assert first.stop() == 0
    with up(folder) as second:
        same = ("api_key", "apps")
        assert [second.ready[name] for name in same] == [first.ready[name] for name in same]
        async with client_of(second) as client:
            assert await client.show(created["id"]) == created
            assert (await client.call(a, created["x"]))["connected_to"] == b
            assert (await client.ask("DELETE", f"/v1/bindings/{created['id']}")).status == 200
            assert (await client.call(a, created["x"]))["connected_to"] is None


async def test_an_app_of_each_mode(folder: Path) -> None:
    """Each has its own key, secret and numbers, one owner, and the emulator knows it in its mode."""
    with up(folder) as service:
        apps = {app["name"]: app for app in service.ready["apps"]}
        assert list(apps) == ["demo-axb", "demo-ax", "demo-axe", "demo-axyb", "demo-x"]
        assert {name: app["mode"] for name, app in apps.items()} == {name: name[5:] for name in apps}
        assert apps["demo-axb"]["api_key"] == service.ready["api_key"]
        for secret in ("app_key", "app_secret", "api_key"):
            assert len({app[secret] for app in apps.values()}) == 5
        stored = await rows(service, "SELECT name, mode, app_key, owner, extension_digits FROM app ORDER BY id")
        assert [(row["name"], row["mode"], row["app_key"]) for row in stored] == [
            (app["name"], app["mode"], app["app_key"]) for app in apps.values()
        ]
        assert {row["owner"] for row in stored} == {"demo"}
        routed = await rows(
            service, "SELECT DISTINCT a.mode, p.routing FROM pool AS p JOIN app AS a ON a.id = p.app_id"
        )
        assert {(row["mode"], row["routing"]) for row in routed} == {
            *((app["mode"], "pair") for app in apps.values()), ("x", "one"),
        }  # fmt: skip
        async with client_of(service) as client:
            for app in apps.values():
                assert (await client.ask("GET", "/v1/pools", key=app["api_key"])).body["items"]
                url = f"{service.ready['emulator_admin']}/emulator/apps/{app['app_key']}"
                digits = {"extension_digits": 4} if app["mode"] == "axe" else {}
                same = {"secret": app["app_secret"], "mode": app["mode"], "rate": 0, **digits}
                assert (await client.ask("PUT", url, same, key=None)).status == 200
                other = same | {"mode": "axe" if app["mode"] != "axe" else "ax"}
                assert (await client.ask("PUT", url, other, key=None)).status == 409, "it has numbers in its mode"


def test_keys_of_a_time_with_one_app_are_kept(tmp_path: Path) -> None:
    """A folder whose keys.json knows one app gets the others' secrets beside it, once."""
    first = DemoApp.new()
    old = {"data_keys": "1:a2V5", "index_key": "a2V5", **asdict(first)}
    (tmp_path / "keys.json").write_bytes(orjson.dumps(old))
    made = identity(tmp_path)
    assert (made.data_keys, made.index_key, made.apps["axb"]) == (old["data_keys"], old["index_key"], first)
    assert set(made.apps) == set(POOLS)
    kept = orjson.loads((tmp_path / "keys.json").read_bytes())
    assert {name: kept[name] for name in old} == old
    assert (tmp_path / "keys.json").stat().st_mode & 0o777 == 0o600
    assert identity(tmp_path) == made


def test_demonstration_numbers_are_all_different() -> None:
    """No two pools share a number."""
    numbers = [number for pools in POOLS.values() for pool in pools for number in pool.numbers()]
    assert len(numbers) == len(set(numbers))


def test_the_ready_line(folder: Path) -> None:
    """--json prints one line and nothing else, even when a worker dies and is replaced; pids are the workers'."""
    with up(folder, "--workers", "2") as service:
        ready = service.ready
        assert {"api", "admin", "edge", "emulator", "emulator_admin", "api_key", "apps", "database", "pids"} <= set(
            ready
        )
        assert len(ready["pids"]) == 2
        os.kill(ready["pids"][0], signal.SIGKILL)
        wait_until(lambda: b"worker_died" in service.log.read_bytes(), "the parent notices, in the log")
        assert service.stop() == 0
        assert service.process.stdout is not None
        assert not service.process.stdout.read()


async def test_the_emulator_takes_settings(folder: Path, tmp_path: Path) -> None:
    """A platform with TLS that closes after each answer: orders are confirmed by it."""
    certificate = self_signed(tmp_path / "platform.pem")
    settings = [word for one in ("keep_alive=false", f"certfile={certificate}") for word in ("--emulator-set", one)]
    with up(folder, *settings, settings={"SSL_CERT_FILE": str(certificate)}) as service:
        wire = service.ready["emulator"]
        assert wire.startswith("https://")
        async with client_of(service) as client:
            assert (await client.bind(a=phone(), b=phone())).body["state"] == "active"
        trust = ssl.create_default_context(cafile=str(certificate))
        async with aiohttp.ClientSession() as http, http.get(wire, ssl=trust) as answer:
            assert answer.headers["Connection"] == "close"


def test_a_wrong_setting_of_the_emulator_is_one_sentence(folder: Path) -> None:
    """The log says what is wrong with it."""
    ended = run("up", "--port", "0", "--state-dir", str(folder), "--emulator-set", "kept=false")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert len(ended.stderr.splitlines()) == 1
    assert "kept" in (folder / "broker.log").read_text()
    assert family(folder) == {}


def test_a_folder_in_use_is_refused(folder: Path) -> None:
    """A second `up` on the same folder ends at once with a sentence that names the first one's pid."""
    with up(folder) as service:
        ended = run("up", "--port", "0", "--json", "--state-dir", str(folder))
        assert (ended.returncode, ended.stdout) == (1, "")
        assert len(ended.stderr.splitlines()) == 1
        assert f"pid {service.process.pid}" in ended.stderr
        assert service.process.poll() is None


@pytest.mark.parametrize("offset", [0, 1, 2])
def test_a_taken_port_is_one_sentence(folder: Path, offset: int) -> None:
    """A port that is taken, the API's or the two above it: exit 1, one sentence with the port, nothing left behind."""
    ports = free_ports(3)
    port = ports[offset]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        ended = run("up", "--port", str(ports[0]), "--json", "--state-dir", str(folder))
    assert (ended.returncode, ended.stdout) == (1, "")
    assert len(ended.stderr.splitlines()) == 1
    assert str(port) in ended.stderr
    assert family(folder) == {}


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    """A state folder that is a file: one sentence."""
    file = tmp_path / "file"
    file.touch()
    ended = run("up", "--port", "0", "--state-dir", str(file / "below"))
    assert (ended.returncode, ended.stdout) == (1, "")
    assert len(ended.stderr.splitlines()) == 1


def test_a_misspelt_variable_is_refused(folder: Path) -> None:
    """`up` reads BROKER_* as `serve` does."""
    ended = run("up", "--port", "0", "--state-dir", str(folder), BROKER_LEASE="8")
    assert ended.returncode == 2
    assert ended.stderr == "BROKER_LEASE: no such setting; did you mean BROKER_LEASE_S?\n"
    assert family(folder) == {}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it_cleanly(folder: Path, number: signal.Signals) -> None:
    """SIGINT and SIGTERM stop everything: exit 0, no process left, nothing said."""
    with up(folder) as service:
        pids = set(family(folder))
        assert len(pids) > 4
        assert service.stop(number) == 0
        assert gone(pids)
        assert family(folder) == {}
    assert b"worker_killed" not in service.log.read_bytes()


def test_a_signal_right_after_the_ready_line(folder: Path) -> None:
    """Whoever signals in the moment of reading the line finds a handler in place."""
    for number in (signal.SIGINT, signal.SIGTERM):
        with up(folder, "--workers", "1") as service:
            assert service.stop(number) == 0


async def test_a_signal_to_the_group_counts_once(folder: Path) -> None:
    """Ctrl-C reaches every process of the group, twice through some tools: what was accepted is still answered."""
    with up(folder, group=True) as service:
        async with client_of(service) as client:
            await client.fault("bind", "delay", ms=800, count=1)
            task = asyncio.create_task(client.bind())
            await eventually(client.fault_hits, "the platform has the bind")
            os.killpg(service.process.pid, signal.SIGINT)
            os.killpg(service.process.pid, signal.SIGTERM)
            answer = await task
            assert answer.status == 201, answer.raw
        assert await asyncio.to_thread(service.process.wait, LIMIT_S) == 0
        assert family(folder) == {}


async def test_a_second_signal_ends_at_once(folder: Path) -> None:
    """A later second signal cuts the drain short; everything is gone all the same."""
    with up(folder, "--workers", "1") as service:
        async with client_of(service) as client:
            await client.fault("bind", "delay", ms=20_000, count=1)
            task = asyncio.create_task(client.bind(headers={"Request-Timeout": "30"}))
            await eventually(client.fault_hits, "the platform has the bind")
            pids = set(family(folder))
            service.process.terminate()
            loop = asyncio.get_running_loop()
            since = loop.time()
            await eventually(_later_than(since + 0.6), "what comes now is no echo of the first signal")
            assert service.process.poll() is None
            service.process.terminate()
            assert await asyncio.to_thread(service.process.wait, 5) == 0
            assert gone(pids)
            await asyncio.gather(task, return_exceptions=True)


def test_sigkill_of_the_parent_leaves_nothing(folder: Path) -> None:
    """When the parent is killed, workers, emulator and database end by themselves, and the folder is usable again."""
    with up(folder) as service:
        pids = set(family(folder))
        assert len(pids) > 4
        service.process.kill()
        service.process.wait(LIMIT_S)
        wait_until(lambda: gone(pids), "all processes have ended")
    with up(folder) as service:
        assert service.stop() == 0


def _later_than(moment: float) -> Callable[[], Awaitable[bool]]:
    async def condition() -> bool:
        return asyncio.get_running_loop().time() > moment

    return condition

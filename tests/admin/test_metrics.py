"""What /metrics says: the sum over all processes, kept over deaths, made anew with every start."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from broker.admin.metrics import MetricsFolder
from broker.metrics import Metrics
from broker.settings import load
from broker.supervisor import CannotServe, Supervisor
from tests.contract.service import CHECKOUT, Client, Service, client_of, eventually, memory, phone, up
from tests.pg import state_folder

_BIND = ("broker_http_requests_total", ("method", "POST"), ("route", "/v1/bindings"), ("status", "201"))
_DONE = ("broker_platform_calls_total", ("op", "bind"), ("outcome", "done"))
_ODD = ("PURGE", "LOCK", "MKCOL", "REPORT", "COPY")
_ACTIVE = ("broker_binds_total", ("outcome", "active"))

Series = dict[tuple[Any, ...], float]


async def scrape(client: Client) -> tuple[str, Series]:
    """The page as text and by series."""
    answer = await client.ask("GET", f"{client.service.ready['admin']}/metrics", key=None)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    text = answer.raw.decode()
    families = text_string_to_metric_families(text)
    samples = (sample for family in families for sample in family.samples)
    return text, {(sample.name, *sorted(sample.labels.items())): sample.value for sample in samples}


def _only(folder: Path) -> Path:
    (found,) = folder.iterdir()
    return found


@pytest.fixture(scope="module")
def metrics_dir() -> Iterator[Path]:
    """Where the service below keeps its metrics."""
    with state_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def own(metrics_dir: Path) -> Iterator[Service]:
    """A broker of this module's own: its counters are known from the first request on."""
    stale = metrics_dir / "broker-metrics-stale"
    stale.mkdir()
    (stale / "lock").touch()
    (stale / "counter_0.db").write_bytes(b"nonsense")
    with (
        state_folder(memory()) as folder,
        up(folder, "--workers", "2", settings={"BROKER_METRICS_DIR": str(metrics_dir)}) as running,
    ):
        yield running


async def test_counters_are_the_sum_over_workers_and_outlive_them(own: Service, metrics_dir: Path) -> None:
    """30 binds over two workers are 30, also after both were killed; their successors count on from there."""
    folder = _only(metrics_dir)  # what an earlier parent had left is gone
    async with client_of(own) as client:
        numbers = [phone() for _ in range(30)]
        asked = (client.bind(a=number, headers={"Connection": "close"}) for number in numbers)
        answers = await asyncio.gather(*asked)
        assert {answer.status for answer in answers} == {201}
        key = {"Idempotency-Key": "metrics-1"}
        for _ in range(3):
            assert (await client.ask("DELETE", answers[0].headers["Location"], headers=key)).status == 200

        async def looked() -> Series | None:
            _, found = await scrape(client)
            return found if found.get(_ACTIVE) == 30 and found["broker_releases_total",] == 1 else None

        first: Series = await eventually(looked, "both workers have looked at their parts")
        assert first[_BIND] == first[_DONE] == 30
        assert first["broker_idempotency_replays_total",] == 2
        assert first["broker_workers_ready",] == 2
        assert {("broker_event_loop_lag_seconds", ("worker", seat)) in first for seat in "01"} == {True}
        assert sum(1 for path in folder.glob("gauge_livesum_[0-9].db")) == 2
        for pid in own.ready["pids"]:
            os.kill(pid, signal.SIGKILL)
        assert (await scrape(client))[1][_BIND] == 30

        async def replaced() -> Series | None:
            _, found = await scrape(client)
            restarts = found["broker_worker_restarts_total",]
            return found if restarts == 2 and found["broker_workers_ready",] == 2 else None

        await eventually(replaced, "both workers are replaced")
        answers += await asyncio.gather(*(client.bind(headers={"Connection": "close"}) for _ in range(10)))
        assert {answer.status for answer in answers} == {201}

        async def all_counted() -> tuple[str, Series] | None:
            text, found = await scrape(client)
            return (text, found) if found[_BIND] == found[_DONE] == found[_ACTIVE] == 40 else None

        text, last = await eventually(all_counted, "the successors count on")
        fallen = [name for name, value in first.items() if "_total" in str(name[0]) and last.get(name, 0) < value]
        assert fallen == []
        for answer in answers:
            shown = (answer.body["x"], answer.body["id"], answer.body["order_id"] or "no order")
            assert not any(word.removeprefix("+") in text for word in shown)


async def test_documented_and_exported_are_the_same(own: Service) -> None:
    """docs/operating.md lists every metric with its labels, and no other."""
    async with client_of(own) as client:
        text, series = await scrape(client)
    documented = {}
    for line in (CHECKOUT / "docs/operating.md").read_text().splitlines():
        if found := re.match(r"\| `(broker_\w+)` \| (counter|gauge|histogram) \| ([^|]*) \| .+ \|", line):
            documented[found[1]] = (found[2], frozenset(re.findall(r"`(\w+)`", found[3])))
    exported = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    assert exported == {name: kind for name, (kind, _) in documented.items()}
    for name, *labels in series:
        family = str(name) if name in exported else re.sub(r"_(bucket|count|sum)$", "", str(name))
        given = {str(label[0]) for label in labels if isinstance(label, tuple)} - {"le"}
        assert given == documented[family][1], name


async def test_what_clients_invent_makes_no_series(own: Service) -> None:
    """Paths, methods and ids of a client's own are counted as one."""
    name = "broker_http_requests_total"
    wanted = {
        (name, ("method", "GET"), ("route", "none"), ("status", "404")): 20,
        (name, ("method", "other"), ("route", "none"), ("status", "405")): len(_ODD),
        (name, ("method", "GET"), ("route", "/v1/bindings/{id}"), ("status", "404")): 20,
    }
    async with client_of(own) as client:
        await asyncio.gather(*(client.ask("GET", f"/nowhere/{n}") for n in range(20)))
        await asyncio.gather(*(client.ask(method, "/v1/bindings/bnd_1") for method in _ODD))
        await asyncio.gather(*(client.ask("GET", f"/v1/bindings/bnd_{n}") for n in range(20)))

        async def counted() -> Series | None:
            _, found = await scrape(client)
            return found if wanted.items() <= found.items() else None

        found: Series = await eventually(counted, "all are counted, each kind as one")
    routes = {dict(labels)["route"] for name, *labels in found if name == "broker_http_requests_total"}
    assert not {route for route in routes if "nowhere" in route or "bnd_" in route}


async def test_an_unreadable_folder_is_said_in_a_sentence(own: Service, metrics_dir: Path) -> None:
    """A broken file, then no folder at all: a problem that names the folder; the service goes on."""
    folder = _only(metrics_dir)
    async with client_of(own) as client:
        url = f"{own.ready['admin']}/metrics"
        broken = folder / "counter_9.db"
        broken.write_bytes((64).to_bytes(4, "little") + b"\xff" * 60)
        said = (await client.ask("GET", url, key=None)).problem(500, "internal_error")["detail"]
        assert said == f"The metrics cannot be read from {folder}: a file in it is broken."
        broken.unlink()
        assert (await client.ask("GET", url, key=None)).status == 200
        shutil.rmtree(folder)
        said = (await client.ask("GET", url, key=None)).problem(500, "internal_error")["detail"]
        assert said == f"The metrics cannot be read from {folder}: No such file or directory."
        assert (await client.bind()).status == 201


async def test_a_folder_that_cannot_be_written_is_refused_at_the_start(tmp_path: Path) -> None:
    """BROKER_METRICS_DIR that is no folder: one sentence, before anything listens."""
    wrong = tmp_path / "file"
    wrong.touch()
    keys = {"BROKER_DATA_KEYS": f"1:{'A' * 43}=", "BROKER_INDEX_KEY": f"{'A' * 43}="}
    given = {**keys, "BROKER_DATABASE_URL": "postgresql://none", "BROKER_METRICS_DIR": str(wrong)}
    with pytest.raises(
        CannotServe, match=r"^the metrics cannot be kept in .*: Not a directory; set BROKER_METRICS_DIR"
    ):
        await Supervisor(load(given), given).start()


def test_gauges_of_the_dead_disappear_and_counters_stay(tmp_path: Path) -> None:
    """Forgetting a seat takes its gauges out of the sum and leaves its counters in."""
    folder = MetricsFolder(str(tmp_path))
    for kind in ("gauge_livesum", "gauge_livemax", "counter"):
        (folder.path / f"{kind}_1.db").touch()
        (folder.path / f"{kind}_2.db").touch()
    folder.forget("1")
    left = sorted(path.name for path in folder.path.iterdir())
    assert left == ["counter_1.db", "counter_2.db", "gauge_livemax_2.db", "gauge_livesum_2.db", "lock"]
    other = MetricsFolder(str(tmp_path))
    assert folder.path.exists(), "a folder in use is not abandoned"
    folder.close()
    other.close()
    assert list(tmp_path.iterdir()) == []


def test_every_metric_says_what_it_is() -> None:
    """Each family has a help that is a sentence."""
    families = list(Metrics().families())
    assert len({family.name for family in families}) == len(families) > 25
    assert [family.name for family in families if not family.documentation.endswith(".")] == []


def test_many_at_once_are_as_one_by_one() -> None:
    """What a tally writes is what the library would have made of each: the same buckets, sum and count."""
    one_by_one, at_once = Metrics(), Metrics()
    for seconds in (0.001, 0.005, 0.0051, 0.3, 30.0, 31.0):
        one_by_one.http_requests.labels("/r", "GET", 200).inc()
        one_by_one.http_seconds.labels("/r", "GET").observe(seconds)
        at_once.answered("/r", "GET", 200, seconds)
        if seconds > 0.1:
            at_once.write()
    for part in ("http_requests", "http_seconds"):
        expected, found = (next(iter(getattr(made, part).collect())).samples for made in (one_by_one, at_once))
        values = [
            [(s.name, s.labels, s.value) for s in given if "_created" not in s.name] for given in (expected, found)
        ]
        assert values[0] == values[1]
        assert len(values[0]) >= 1

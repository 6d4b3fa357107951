"""The bench end to end, and what it refuses."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from bench.__main__ import main
from bench.figures import open_window
from bench.history import Operation
from bench.plan import Orders, Plan
from bench.stack import DISK
from tests.contract.service import wait_until

ROOT = Path(__file__).parents[2]


def _bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False, env=os.environ)


def _result_of(*arguments: str) -> dict[str, Any]:
    done = _bench(*arguments, "--json")
    assert done.returncode == 0, done.stderr + done.stdout[:2000]
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _running(what: str, by: int) -> list[int]:
    """The processes that so one started."""
    listed = subprocess.run(["ps", "ax", "-o", "pid=,args="], capture_output=True, text=True, check=True).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if f"-m {what} {by} " in line]


def test_a_short_closed_loop_with_releases_keeps_every_promise() -> None:
    """Bindings are confirmed and released, nothing is violated, and the report says what each has cost."""
    result = _result_of(
        "confirmed", "--seconds", "2", "--warmup", "0.8", "--runs", "1", "--clients", "20", "--release-after", "0.5"
    )
    (run,) = result["runs"]
    assert result["violations"] == []
    assert run["confirmed"] > 0
    assert run["released"] > 0
    assert run["not_201"] == {}
    assert {"p50", "p99", "p99_9", "max"} <= run["latency_ms"].keys()
    cost = run["cost"]
    assert all(cost["cpu_us"][role] > 0 for role in ("workers", "postgres", "emulator", "load"))
    assert cost["wal_bytes"] > 100
    assert cost["sql_flights"] > 0
    # A line, its binding, its call, two slots; each but the slots is written again when it is settled.
    assert cost["rows_written"] > 5
    assert 0 < cost["rows"]["in_place"] <= cost["rows"]["updated"] < cost["rows_written"]
    names = {one["name"] for one in cost["statements"]}
    assert {"allocation.reserve", "calls.settle_bound", "calls.settle_ended", "bindings.release"} <= names
    assert result["postgres"]["fsync"] == result["postgres"]["synchronous_commit"] == "on"
    assert result["machine"]["cores"]
    assert result["checked"]["operations"] >= run["confirmed"] + run["released"]


@pytest.fixture
def disk() -> Iterator[Path]:
    """A folder that the database's account may enter."""
    with TemporaryDirectory(prefix="broker-bench-", dir=DISK) as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_a_bench_that_is_killed_leaves_no_broker_behind(disk: Path) -> None:
    """Nobody would stop it, and whatever is measured next would share the machine with it."""
    command = [sys.executable, "-m", "bench", "confirmed", "--seconds", "60", "--state-root", str(disk)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as bench:
        try:
            wait_until(lambda: list(disk.glob("*/addresses.json")), "the broker is up")
            (broker,) = _running("bench.child", bench.pid)
        finally:
            bench.kill()
    wait_until(lambda: broker not in _running("bench.child", bench.pid), "the broker has ended", limit_s=40)


def test_a_short_open_loop_counts_from_the_intended_start() -> None:
    """The offered rate is met, and late sends are counted."""
    result = _result_of("open", "--rate", "100", "--seconds", "2", "--warmup", "0.5", "--clients", "30")
    (run,) = result["runs"]
    assert result["violations"] == []
    assert run["confirmed"] == run["intended"] > 100
    assert run["unsent"] == 0
    assert run["sent_late"] <= run["intended"]


def test_another_machine_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """Load goes to loopback unless the user says that the target is theirs."""
    assert main(["confirmed", "--target", "http://192.0.2.1:8080", "--api-key", "k"]) == 2
    assert "--i-own-this-target" in capsys.readouterr().err


def test_memory_is_no_disk(capsys: pytest.CaptureFixture[str]) -> None:
    """A database in memory would flatter the figures."""
    assert main(["confirmed", "--state-root", "/dev/shm"]) == 2  # noqa: S108
    assert "in memory" in capsys.readouterr().err


def test_arrivals_are_drawn_beforehand() -> None:
    """Poisson and constant arrivals have the rate asked for; the same seed draws the same."""
    fields: dict[str, Any] = {"host": "h", "port": 1, "api_key": "k", "connections": 1, "seed": 7, "out": ""}
    plan = Plan(**fields, kind="open", seconds=50.0, rate=200.0)
    starts = Orders(plan).arrivals()
    assert 9_500 < len(starts) < 10_500
    assert starts == sorted(starts) == Orders(plan).arrivals()
    constant = Plan(**fields, kind="open", seconds=2.0, rate=10.0, arrivals="constant")
    assert Orders(constant).arrivals() == pytest.approx([n / 10 for n in range(20)])


def test_a_stall_counts_in_full() -> None:
    """What was meant to start during a stall carries the whole wait, also when it was never sent."""
    late = Operation("bind", "ok", invoked=5.0, done=5.1, binding="b", x="x", status=201)
    never = Operation("bind", "refused", invoked=9.0, done=9.0)
    figures = open_window([(1.0, late), (2.0, never)], 0.0, 10.0)
    assert figures["latency_ms"]["max"] == pytest.approx(7000, rel=0.01)
    assert (figures["sent_late"], figures["unsent"], figures["not_201"]) == (1, 1, {"lost": 1})

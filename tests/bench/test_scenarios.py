"""Scenario files: the shipped ones are right, wrong ones are told in one sentence, and loads do what they say."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bench.__main__ import main
from bench.plan import Orders, Plan
from bench.rivals import kea
from bench.scenario_file import read, shipped
from bench.stack import BenchError
from bench.wire import latencies_ms, rules

ROOT = Path(__file__).parents[2]
ISSUE = {
    "steady", "burst", "avalanche", "lunch-hour", "hot-party", "hot-app", "many-cities", "nearly-full", "growth",
    "batch", "x-mode-routing", "notifications", "flow-control", "quota", "platform-slow", "poison", "kill", "freeze",
    "postgres-restart", "held-snapshot", "soak", "mixed",
}  # fmt: skip
_FIELDS: dict[str, Any] = {"host": "h", "port": 1, "api_key": "k", "connections": 1, "seed": 7, "out": ""}


def test_every_shipped_scenario_can_be_read() -> None:
    """All that were promised are there, each with a plan, and what it is compared with is there too."""
    files = {name: read(path) for name, path in shipped().items()}
    assert files.keys() >= ISSUE
    for file in files.values():
        assert file.against is None or file.against in files
        assert file.runner is not None or file.plan().seconds > 0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("about = 1", "about: "),
        ("about = 'a'\n[load]\nratte = 1.0", "load.ratte: "),
        ("about = 'a'\n[load]\nkind = 'open'", "an open loop needs a rate"),
        ("about = 'a'\n[load]\nseconds = 1e9", "load.seconds: "),
        ("about = 'a'\n[load]\nclients = 0", "load.clients: "),
        ("about = 'a'\n[mix]\nbind = 0.5", "the shares must sum to 1"),
        ("about = 'a'\nrunner = 'bench.batch'\n[load]\nclients = 3", "a runner takes arguments, not load"),
        ("about = 'a'\nrunner = 'os'", "runner: "),
        ("about = 'a'\n[fill]\nlive = 10", "mode x"),
        ("about = 'a'\n[broker]\nsettings = { PATH = 'x' }", "broker.settings"),
        ("about = ", "Invalid value"),
    ],
)
def test_a_wrong_file_is_told_in_words(tmp_path: Path, text: str, says: str) -> None:
    """Before anything starts: which file, which field, what is wrong."""
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(BenchError) as told:
        read(path)
    assert str(path) in str(told.value)
    assert says in str(told.value)


def test_what_cannot_run_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Programs that are not installed, rivals that there are not, options that say nothing of a bench of its own."""
    monkeypatch.setattr(kea, "_PROGRAMS", ("kea-that-is-nowhere",))
    for words, says in (
        (["rivals", "kea"], "kea-that-is-nowhere not found"),
        (["rivals", "kae"], "There is no rival kae"),
        (["rivals", "--scenario", "batch"], "a bench of its own"),
        (["run", "batch", "--seconds", "3"], "bench.batch --help"),
        (["run", "mixed", "--rate", "3"], "A closed loop has no rate"),
        (["run", "steady", "--html", "/nowhere/at/all.html"], "There is no folder"),
        (["run", "steady", "--target", "http://192.0.2.1:80", "--api-key", "k"], "--i-own-this-target"),
    ):
        assert main(words) == 2
        assert says in capsys.readouterr().err


def test_a_missing_file_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """A name that is none leads to the list."""
    assert main(["run", "stedy"]) == 2
    assert "bench list" in capsys.readouterr().err


def test_a_file_can_be_listed_and_copied(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """What `show` prints is a file that reads the same."""
    assert main(["list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out).keys() == shipped().keys()
    assert main(["show", "quota"]) == 0
    copy = tmp_path / "copy.toml"
    copy.write_text(capsys.readouterr().out)
    assert read(copy) == read(shipped()["quota"])


def test_a_zipf_city_gets_its_part() -> None:
    """The k-th pool gets 1/k of the first one's orders, and one courier his share of all."""
    orders = Orders(Plan(**_FIELDS, kind="closed", seconds=1.0, pools=("p1", "p2", "p3"), zipf=1.0, hot_share=0.5))
    asks = [orders.bind() for _ in range(6000)]
    pools = Counter(ask.request.split(b'"pool":"')[1][:2].decode() for ask in asks)
    assert pools["p1"] / pools["p2"] == pytest.approx(2, rel=0.15)
    assert pools["p1"] / pools["p3"] == pytest.approx(3, rel=0.15)
    ((_, most),) = Counter(ask.pairs[0][0] for ask in asks).most_common(1)
    assert most / len(asks) == pytest.approx(0.5, rel=0.1)


def test_steps_change_the_rate() -> None:
    """From its second on each step has its own rate; the plan survives the way to a load process."""
    plan = Plan(**_FIELDS, kind="open", seconds=30.0, rate=100.0, steps=((10.0, 400.0), (20.0, 50.0)))
    assert Plan.parse(plan.line()) == plan
    starts = Orders(plan).arrivals()
    counts = [sum(low <= at < low + 10 for at in starts) for low in (0, 10, 20)]
    assert counts == [pytest.approx(of, rel=0.15) for of in (1000, 4000, 500)]


def test_the_mix_is_kept() -> None:
    """Requests come in the stated shares."""
    orders = Orders(Plan(**_FIELDS, kind="closed", seconds=1.0, mix=(("bind", 0.5), ("read", 0.3), ("release", 0.2))))
    drawn = Counter(orders.next_op() for _ in range(10_000))
    assert drawn["bind"] / 10_000 == pytest.approx(0.5, abs=0.03)
    assert drawn["release"] / 10_000 == pytest.approx(0.2, abs=0.03)


def test_latency_is_log_normal() -> None:
    """Half of the answers take less than the median; the steps of the emulator's rules are equally likely."""
    found = latencies_ms(80.0, 0.5)
    assert found == sorted(found)
    assert sum(one < 80 for one in found) == len(found) / 2
    assert found[-1] > 200
    file = read(shipped()["platform-slow"])
    left, hit = 1.0, []
    for rule in rules(file.platform):
        hit.append(left * float(str(rule["share"])))
        left -= hit[-1]
    assert left == pytest.approx(0, abs=1e-9)
    assert hit == [pytest.approx(1 / len(found))] * len(found)


def _run(*arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "bench", *arguments, "--json"], cwd=ROOT, capture_output=True, text=True, timeout=170,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout[:2000]
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_a_file_of_ones_own_runs_and_is_judged(tmp_path: Path) -> None:
    """A mix in shares, a slow platform with TLS, PostgreSQL restarted meanwhile: nothing violated, and a page of it."""
    file, page = tmp_path / "mine.toml", tmp_path / "mine.html"
    file.write_text("""
about = "all at once"
[load]
clients = 16
seconds = 4.0
warmup_s = 0.5
runs = 1
retries = 5
batch_size = 5
[mix]
bind = 0.3
batch = 0.05
read = 0.3
change = 0.1
release = 0.25
[pools]
count = 3
zipf = 1.0
quarantine_s = 1
[platform]
median_ms = 5.0
keep_alive = false
tls = true
[faults]
restart_postgres_every_s = 2.5
checkpoint_every_s = 1.0
[broker]
settings = { BROKER_LEASE_S = "6", BROKER_RESCUE_INTERVAL_S = "0.5", BROKER_PLATFORM_ABSENCE_S = "5" }
""")
    result = _run("run", str(file), "--html", str(page))
    (run,) = result["runs"]
    assert result["violations"] == []
    assert run["troubles"]["postgres_restarts"] >= 1  # a slow machine has time for two
    assert run["troubles"]["checkpoints"] >= 1
    assert min(run["confirmed"], run["released"], run["reads"]["ok"], run["changes"]["ok"]) > 0
    assert sum(run["over_time"]["answers"]["confirmed_per_s"]) > 0
    assert max(run["over_time"]["processes"]["cores"]["workers"]) > 0
    assert {pool["pool"] for pool in result["pools"]} == {"city-1", "city-2", "city-3"}
    assert all(pool["least"] > 0 and 0 < pool["in_use"] <= pool["numbers"] for pool in result["pools"])
    assert '"name":"mine"' in page.read_text()


def test_a_rival_runs_in_turn_and_is_judged_alike(tmp_path: Path) -> None:
    """The hand-written service makes bindings at the platform, and the history check has nothing against it."""
    file = tmp_path / "small.toml"
    file.write_text("""
about = "two cities for a second"
[load]
clients = 32
seconds = 1.0
warmup_s = 0.2
runs = 1
[pools]
count = 2
zipf = 1.0
numbers = 100
""")
    result = _run("rivals", "transaction", "none", "pgbench", "--scenario", str(file))
    told = result["rivals"]["transaction"]
    assert result["violations"] == told["violations"] == []
    assert told["runs"][0]["confirmed"] > 0
    assert told["runs"][0]["not_201"] == {}
    assert told["ratios"]["confirmed_per_s"]["median"] > 0
    assert result["rivals"]["none"]["runs"][0]["confirmed"] > told["runs"][0]["confirmed"]
    assert result["floor_tps"][0] > 0

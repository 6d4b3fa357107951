"""What is made of results: the page, comparisons, sizes, the baseline."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bench.__main__ import main
from bench.baseline import load, regressions, short
from bench.compare import verdict
from bench.figures import Sample
from bench.history import Operation
from bench.page import page
from bench.plan import Plan
from bench.report import table
from bench.run import figures
from bench.scenario_file import shipped
from bench.series import Look, Series
from bench.size import Measured, Wanted, size
from bench.window import Window

_CHROMIUM = shutil.which("chromium")
_VENDORED = Path(__file__).parents[2] / "bench/static/uplot"
_EVIL = "held twice: </script><script>document.title = 'taken'</script>"


def _result(*, rate: int = 40, slower: float = 1.0) -> dict[str, Any]:
    """A result of three runs of four seconds with made samples."""
    plan = Plan(host="", port=0, api_key="", kind="closed", connections=1, seconds=4.0, seed=1, out="")
    samples: list[Sample] = [
        (n / rate, Operation("bind", "ok", n / rate, n / rate + 0.01 * slower * (1 + n % 7), f"b{n}", status=201))
        for n in range(4 * rate)
    ]
    looks = [Look(n / 2, {"workers": n * 0.3, "postgres": n * 0.1}, n * 1000, 80.0) for n in range(9)]
    run = figures(plan, Window(0.0, 4.0, samples, series=Series(looks)))
    run["cost"] = {
        "cpu_us": {"workers": 300.0 * slower, "parent": 0.0, "postgres": 100.0, "emulator": 90.0, "load": 40.0},
        "kernel_us": dict.fromkeys(("workers", "parent", "postgres", "emulator", "load"), 10.0),
        "cpu_us_all": 530.0, "wal_bytes": 2600.0, "wal_page_images": 0.0, "sql_flights": 0.1, "rows_written": 9.0,
        "rows": dict.fromkeys(("inserted", "updated", "in_place", "deleted"), 3.0), "others_cpu_s": 0.0,
        "steal_s": 0.0, "batch_rows": {"allocation.reserve": 22.0, "calls.settle_bound": 18.5},
        "statements": [
            {"name": "allocation.reserve", "calls": 100, "rows": 2200, "rows_per_call": 22.0, "mean_ms": 4.0,
             "exec_us": 180.0, "wal_bytes": 1900.0},
        ],
    }  # fmt: skip
    return {
        "name": "made", "about": "by a test", "given": {"load": {"seconds": 4.0}}, "runs": [run] * 3,
        "machine": {"cpu": "one", "cores": 2, "memory_gib": 8, "kernel": "6", "python": "3", "packages": {"a": "1"},
                    "commit": "c", "load_average": [0, 0, 0], "disk": "ext4"},
        "postgres": {"version": "18", "fsync": "on", "synchronous_commit": "on", "full_page_writes": "on",
                     "wal_sync_method": "fdatasync"},
        "scenario": {"broker": {"workers": 2}, "platform": {}, "load": {"kind": "closed"}},
        "pools": [{"pool": "city-1", "lines": 10, "in_use": 4, "numbers": 9, "least": 3}],
        "violations": [_EVIL], "checked": {"operations": 160, "seconds": 0.1},
    }  # fmt: skip


def test_violations_come_first() -> None:
    """Before any figure."""
    lines = table(_result()).splitlines()
    assert lines[0].startswith("VIOLATION: held twice")
    assert any("X* 3: 1.33 times" in line for line in lines)


def test_vendored_files_are_those_of_the_manifest() -> None:
    """Every vendored file is in the manifest with its sha256, the licence among them."""
    import hashlib

    manifest = json.loads((_VENDORED / "manifest.json").read_text())
    assert (manifest["name"], manifest["licence"]) == ("uplot", "MIT")
    found = {path.name: path.read_bytes() for path in _VENDORED.iterdir() if path.name != "manifest.json"}
    assert {name: hashlib.sha256(content).hexdigest() for name, content in found.items()} == {
        name: one["sha256"] for name, one in manifest["files"].items()
    }


def test_the_page_needs_nothing_else() -> None:
    """No address is loaded, the licence is in it, and what is shown cannot end its script."""
    made = page(_result())
    assert not re.search(r"(?:src|href)\s*=|@import|url\(", made)
    assert "Permission is hereby granted" in made
    assert made.count("</script>") == 3
    assert "{{" not in made


@pytest.mark.skipif(_CHROMIUM is None, reason="chromium is not installed; the page is tested without a browser too")
def test_a_browser_draws_the_charts(tmp_path: Path) -> None:
    """Each chart has its canvas, the violation is text, the console is empty."""
    assert _CHROMIUM is not None
    file = tmp_path / "report.html"
    file.write_text(page(_result()))
    shown = subprocess.run(
        [
            _CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--enable-logging=stderr", "--v=0",
            f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=10000", "--dump-dom", file.as_uri(),
        ],
        capture_output=True, timeout=120, check=True, text=True,
    )  # fmt: skip
    assert [line for line in shown.stderr.splitlines() if ":CONSOLE" in line] == []
    dom = shown.stdout[: shown.stdout.index('id="result"')]
    for chart in ("throughput", "latency", "distribution", "cpu", "wal", "memory", "batches", "pools"):
        assert re.search(rf'id="{chart}"[^>]*><div[^>]*class="uplot.*?<canvas', dom, re.DOTALL), chart
    assert "<title>bench: made</title>" in dom
    assert re.search(r'id="violations"[^>]*><li>held twice: &lt;/script&gt;', dom)
    assert "allocation.reserve" in dom


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ([100, 101, 102], [120, 121, 122], "better"),
        ([100, 101, 102], [80, 81, 82], "worse"),
        ([100, 110, 120], [105, 115, 125], "same"),
        ([100.0, 100.1, 100.2], [101.0, 101.1, 101.2], "same"),
        ([100, 101], [50, 51], "too few runs"),
    ],
)
def test_verdicts_know_noise(old: list[float], new: list[float], says: str) -> None:
    """Only what lies beyond all runs of the other side, and is worth mentioning, is a change."""
    assert verdict(old, new, more_is_better=True) == says


def test_two_results_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 1 if something is worse; a result of another machine is noted; a file of something else is refused."""
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    slow = _result(slower=1.5)
    slow["machine"]["cpu"] = "another"
    old.write_text(json.dumps(_result()))
    new.write_text(json.dumps(slow))
    assert main(["compare", str(old), str(new), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert {one["name"] for one in told["changes"] if one["verdict"] == "worse"} >= {"p99 ms", "service CPU us"}
    assert any("cpu differs" in note for note in told["notes"])
    assert main(["compare", str(old), str(old)]) == 0
    assert main(["compare", str(old), str(shipped()["steady"])]) == 2


def test_sizes_follow_the_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Twice the rate is twice the workers, a stricter p99 more of them, an impossible one is refused in words."""
    of = Measured(1000.0, 20.0, 500.0, 200.0, 2600.0, 0.1, 5.0, 2, 4, 0.0)
    wanted = Wanted(10_000.0, 60.0, 1800.0, 7200.0, 40, 500, 10)
    found = size(of, wanted)
    assert found.workers == pytest.approx(10_000 * 500e-6 / found.busy, abs=1)
    assert found.live == 18_000_000
    assert found.x_numbers == 10 * 4320
    stricter = size(of, Wanted(10_000.0, 17.0, 1800.0, 7200.0, 40, 500, 10))
    assert stricter.workers > found.workers
    result = tmp_path / "run.json"
    result.write_text(json.dumps(_result()))
    assert main(["size", str(result), "--rate", "4000", "--p99-ms", "100"]) == 0
    assert "workers" in capsys.readouterr().out
    assert main(["size", str(result), "--rate", "4000", "--p99-ms", "0.5"]) == 2


def test_the_baseline_is_of_what_the_check_measures() -> None:
    """Only gross changes of its ratios are regressions, each in its direction; what was not measured is one."""
    was = load()
    assert was
    assert regressions(was, was) == []
    worse = {name: one * (0.45 if name.endswith("per_s") else 2.2) for name, one in was.items()}
    assert len(regressions(worse, was)) == len(was)
    loaded = {name: one * (0.55 if name.endswith("per_s") else 1.8) for name, one in was.items()}
    assert regressions(loaded, was) == []
    better = {name: one * (2.0 if name.endswith("per_s") else 0.5) for name, one in was.items()}
    assert regressions(better, was) == []
    assert len(regressions({}, was)) == len(was)
    assert short("nearly-full").load.seconds < 5

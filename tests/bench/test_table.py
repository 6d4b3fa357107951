"""The table of targets: what is read, judged, and written."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from bench.__main__ import _parser, main
from bench.table import (
    BEGIN,
    END,
    Row,
    judged,
    kept,
    kept_at,
    line,
    measured,
    module,
    replaced,
    rows,
    spread,
    values,
    verdict,
)

_ROW = Row("rate", "rate", "/s", "./scripts/bench list", "runs.*.rate", 100.0)


def test_figures_are_found_by_their_path() -> None:
    """A path leads to one figure or to many."""
    assert values({"runs": [{"rate": 1}, {"rate": 2}]}, "runs.*.rate") == [1, 2]
    assert values({"levels": [{"p99": 3}]}, "levels.0.p99") == [3]


def test_of_nine_best_and_worst_are_dropped() -> None:
    """Fewer runs are all kept."""
    assert kept([9, 1, 2, 3, 4, 5, 6, 7, 8]) == [2, 3, 4, 5, 6, 7, 8]
    assert kept([3, 1, 2]) == [1, 2, 3]


def test_a_miss_says_by_how_much() -> None:
    """As a factor, whichever way the bound lies."""
    assert verdict(_ROW, 100.0) == "met"
    assert verdict(_ROW, 50.0) == "missed, factor 2.00"
    assert verdict(replace(_ROW, most=True), 150.0) == "missed, factor 1.50"


@pytest.mark.parametrize(
    "told", ["exit code 2", {"violations": ["x"], "runs": [{"rate": 200}]}, {"runs": []}, {"right": False}]
)
def test_a_failed_row_says_so(told: object) -> None:
    """Errors, violations and missing figures stand in the table."""
    assert "FAILED" in line(judged(_ROW, told))


def test_writing_twice_changes_nothing_more() -> None:
    """Only what is between the marks is replaced."""
    once = replaced(f"a\n{BEGIN}\nold\n{END}\nb", "new")
    assert once == replaced(once, "new") == f"a\n{BEGIN}\nnew\n{END}\nb"


def test_commands_of_the_bench_are_taken() -> None:
    """Each row's command is one that the bench knows, and prints JSON."""
    for name, *options in {tuple(module(row)) for row in rows()}:
        assert "--json" in options
        if name == "bench":
            assert _parser().parse_args(options).json
            continue
        told = subprocess.run([sys.executable, "-m", name, "--help"], capture_output=True, text=True, check=True).stdout
        assert {option for option in options if option.startswith("--")} <= set(re.findall(r"--[a-z-]+", told)), name


def test_the_spread_of_a_median_stands_beside_it() -> None:
    """Else it is that of the figures themselves."""
    told = {"ratio": {"median": 2, "least": 1, "most": 4}, "runs": [{"rate": 3}, {"rate": 5}]}
    assert spread(told, "ratio.median") == [1, 4]
    assert spread(told, "runs.*.rate") == [3, 5]
    assert "| 4 | 3 to 5 | missed, factor 25.00 |" in line(judged(_ROW, told))


def test_what_failed_is_measured_again(tmp_path: Path) -> None:
    """A result without violations is kept; what has some, or is none, is not."""
    quick = replace(_ROW, command=".venv/bin/python -m bench.reuse --couriers 20 --minutes 5 --numbers 30 --json")
    assert "pack" in measured(quick, tmp_path, again=False)["policies"]
    assert [path.suffix for path in tmp_path.iterdir()] == [".json"]
    assert measured(replace(quick, command=".venv/bin/python -m bench.reuse --rest -1"), tmp_path, again=False) == (
        "exit code 2 without a result"
    )
    assert len(list(tmp_path.iterdir())) == 1


def test_what_has_been_measured_is_shown_without_measuring(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--saved` takes results that are there, and runs nothing for the others."""
    (row,) = (row for row in rows() if row.name == "quota")
    kept_at(row, tmp_path).write_bytes(orjson.dumps({"windows": {"same_caller": {"callable_s": {"p99": 3.0}}}}))
    assert main(["table", "--saved", "--out", str(tmp_path)]) == 0
    shown = [line for line in capsys.readouterr().out.splitlines() if line.endswith("` |")]
    assert sum("not measured" in line for line in shown) == len(rows()) - 1
    assert sum("| 3 | one run | missed, factor 1.50 |" in line for line in shown) == 1
    assert len(list(tmp_path.iterdir())) == 1
    assert main(["table", "--saved", "--out", str(tmp_path), "--row", "quota", "--json"]) == 0
    (told,) = orjson.loads(capsys.readouterr().out)["rows"]
    assert (told["row"]["name"], told["figures"], told["said"]) == ("quota", [3.0], "missed, factor 1.50")


def test_rows_without_a_target_are_told() -> None:
    """Several figures stand beside each other; nothing is said of them, but that one is missing."""
    row = Row("gaps", "gaps", "s", "./scripts/bench list", ["pack.gap", "random.gap"])
    told = judged(row, {"pack": {"gap": 2050}, "random": {"gap": 129.4}})
    assert line(told) == "| gaps | - | 2,050 / 129 s | - |  | `./scripts/bench list` |"
    assert "FAILED" in judged(row, {"pack": {"gap": 2050}}).said


def test_json_reaches_a_bench_of_its_own(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """`bench run` hands it on to the scenario's runner."""
    mine = tmp_path / "mine.toml"
    mine.write_text('about = "small"\nrunner = "bench.reuse"\narguments = ["--couriers", "20", "--minutes", "5"]\n')
    assert main(["run", str(mine), "--json"]) in {0, 1}
    assert "pack" in orjson.loads(capfd.readouterr().out)["policies"]

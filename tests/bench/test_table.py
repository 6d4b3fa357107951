"""The table of targets: what is read, judged, and written."""

import shlex
from dataclasses import replace

import pytest

from bench.__main__ import _parser
from bench.table import BEGIN, END, Row, kept, line, replaced, rows, values, verdict

_ROW = Row("rate", "rate", 100.0, "/s", "./scripts/bench list", "runs.*.rate")


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
    assert "FAILED" in line(_ROW, told)


def test_writing_twice_changes_nothing_more() -> None:
    """Only what is between the marks is replaced."""
    once = replaced(f"a\n{BEGIN}\nold\n{END}\nb", "new")
    assert once == replaced(once, "new") == f"a\n{BEGIN}\nnew\n{END}\nb"


def test_commands_of_the_bench_are_taken() -> None:
    """Each row's command is one that the bench knows."""
    for row in rows():
        words = shlex.split(row.command)
        if words[0] == "./scripts/bench":
            assert _parser().parse_args(words[1:]).json

"""What the broker adds to the platform's latency: joined with the ledger, told by share."""

from typing import Any

import pytest

from bench.added import added_s, level_of, main, platform_s, words
from bench.figures import Sample
from bench.history import Operation


def _bind(intended: float, took: float, pair: tuple[str, str]) -> Sample:
    a, b = pair
    return intended, Operation("bind", "ok", intended, intended + took, "id", a, b, "x", status=201)


def test_the_platforms_own_time_is_taken_off() -> None:
    """That of all calls of a pair; of a call that was not delayed, or never came, nothing is."""
    rows: list[dict[str, Any]] = [
        {"op": "bind", "a": "a1", "b": "b1", "delay_ms": 80},
        {"op": "bind", "a": "a1", "b": "b1", "delay_ms": 20},
        {"op": "unbind", "a": "a1", "b": "b1", "delay_ms": 500},
        {"op": "bind", "a": "a2", "b": "b2"},
    ]
    never = Operation("bind", "refused", 4.0, 4.0)
    samples = [
        _bind(1.0, 0.13, ("a1", "b1")), _bind(1.5, 0.02, ("a2", "b2")), (2.0, never),
        _bind(0.5, 9.0, ("a3", "b3")), _bind(3.0, 9.0, ("a4", "b4")),
        (1.0, Operation("release", "ok", 1.0, 5.0, "id")),
    ]  # fmt: skip
    assert added_s(samples, platform_s(rows), 1.0, 3.0) == pytest.approx([0.03, 0.02, 2.0])


def _run(p99: float) -> dict[str, Any]:
    return {
        "share": 0.5, "rate": 500.0, "confirmed_per_s": 499.0, "not_201": {"503": 2},
        "added_ms": {"p50": 2.0, "p99": p99, "p99_9": 20.0},
    }  # fmt: skip


def test_several_windows_are_told_by_median_and_spread() -> None:
    """Beside what p99 should be; violations come before any figure."""
    level = level_of([_run(9.0), _run(4.0), _run(30.0)])
    assert level["added_ms"] == {"p50": 2.0, "p99": 9.0, "p99_9": 20.0}
    assert (level["added_p99_ms"], level["target_p99_ms"]) == ({"least": 4.0, "most": 30.0}, 10.0)
    told = {
        "capacity_per_s": 1000.0, "platform_ms": {"median": 80.0, "sigma": 0.5},
        "levels": [level, level_of([{**_run(1.0), "share": 0.6, "added_ms": {}}])], "violations": ["held twice"],
    }  # fmt: skip
    first, _, half, empty = words(told).splitlines()
    assert first == "VIOLATION: held twice"
    assert "p99 9.0 (4.0 to 30.0, target 10)" in half
    assert half.endswith("6 not")
    assert "nothing came" in empty


@pytest.mark.parametrize("wrong", [["--shares", "3"], ["--seconds", "0"], ["--capacity", "x"]])
def test_what_is_out_of_bounds_is_refused(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything starts."""
    with pytest.raises(SystemExit):
        main(wrong)
    assert wrong[0] in capsys.readouterr().err

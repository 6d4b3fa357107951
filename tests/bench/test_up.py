"""How long a start takes: measured with the real script, told with its spread."""

import json

import pytest

from bench.up import main, spread, words


def test_starts_are_told_with_their_spread() -> None:
    """The median of each kind beside its target; what did not end as it should comes first."""
    told = {
        "cold_s": spread([4.0, 9.0, 4.5]), "warm_s": spread([1.25]),
        "targets_s": {"cold": 5.0, "warm": 1.5}, "violations": ["cold start 2 ended with -9"],
    }  # fmt: skip
    assert told["cold_s"] == {"median": 4.5, "least": 4.0, "most": 9.0, "runs": [4.0, 9.0, 4.5]}
    assert words(told).splitlines() == [
        "VIOLATION: cold start 2 ended with -9",
        "cold: ready after 4.50 s (4.00 to 9.00), target 5 s",
        "warm: ready after 1.25 s (1.25 to 1.25), target 1.5 s",
    ]


def test_memory_is_no_disk(capsys: pytest.CaptureFixture[str]) -> None:
    """Where nothing has to be written a start says little."""
    assert main(["--state-root", "/dev/shm"]) == 2  # noqa: S108
    assert "in memory" in capsys.readouterr().err


def test_a_start_is_measured_and_ended(capsys: pytest.CaptureFixture[str]) -> None:
    """The real thing, cold and warm: both get ready and end as they should."""
    assert main(["--runs", "1", "--workers", "1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["violations"] == []
    assert all(told[kind]["median"] > 0 for kind in ("cold_s", "warm_s"))

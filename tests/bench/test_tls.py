"""How the platform is spoken to: from scenario to options, from runs to figures."""

from pathlib import Path
from typing import Any

import pytest

from bench.scenario_file import Wire
from bench.tls import WAYS, main, told, words
from bench.wire import spoken


def test_each_way_is_told_to_the_emulator(tmp_path: Path) -> None:
    """As settings of `up`; with TLS there is a certificate that nobody else may read."""
    options = {name: spoken(Wire(**of), tmp_path) for name, of in WAYS.items()}
    assert options["keep_alive"] == ([], None)
    assert options["close"] == (["--emulator-set", "keep_alive=false"], None)
    given, certificate = options["tls"]
    assert certificate is not None
    assert given == ["--emulator-set", f"certfile={certificate}"]
    assert certificate.stat().st_mode & 0o077 == 0


def _result(name: str, rates: list[float], cpu_us: float, violations: list[str]) -> dict[str, Any]:
    cost = {"cpu_us": {"workers": cpu_us, "emulator": 90.0}, "cpu_us_all": 900.0}
    runs = [{"confirmed_per_s": rate, "latency_ms": {"p99": 9.0}, "cost": cost, "not_201": {}} for rate in rates]
    return {"name": name, "runs": runs, "violations": violations, "machine": {}}


def test_ways_are_told_with_ratios_to_the_first() -> None:
    """Turn by turn, with their spread; violations name the way and come before any figure."""
    found = told([
        _result("keep_alive", [1000.0, 2000.0, 1200.0], 300.0, []),
        _result("close", [500.0, 1600.0, 600.0], 450.0, ["held twice"]),
    ])  # fmt: skip
    assert found["ways"]["keep_alive"]["confirmed_per_s"] == {"median": 1200.0, "least": 1000.0, "most": 2000.0}
    assert found["ratios"]["close"]["confirmed_per_s"] == {"median": 0.5, "least": 0.5, "most": 0.8}
    assert found["ratios"]["close"]["service_cpu_us"]["median"] == 1.5
    assert found["violations"] == ["close: held twice"]
    assert words(found).startswith("VIOLATION: close: held twice")
    assert "close / keep_alive: confirmed_per_s 0.50 (0.50 to 0.80)" in words(found)


@pytest.mark.parametrize("scenario", ["batch", "platform-slow"])
def test_only_closed_loops_are_taken(scenario: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Others say nothing of what is possible."""
    assert main(["--scenario", scenario]) == 2
    assert "no closed loop" in capsys.readouterr().err

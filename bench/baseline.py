"""Whether the broker is still about as fast as it was, by ratios alone: ``bench check`` against ``baseline.json``.

Absolute figures belong to one machine. A ratio of two things measured in turn on the same one belongs to the code: many
cities by one, nearly full by half full, the broker by the hand-written rival. What falls to less than half of its
baseline in every turn is a gross regression: one turn that other work on the machine disturbed is none. Smaller ones
are for ``bench compare`` and longer runs. Violations fail before that.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import orjson

from bench.rivals.run import rivals
from bench.run import Ask, measure
from bench.scenario_file import ScenarioFile, read, shipped
from bench.stack import BenchError
from bench.window import Progress

PATH: Final = Path(__file__).parent / "baseline.json"
GROSS: Final = 0.5
#: What is compared with its counterpart, and the rival that the broker is compared with.
_PAIRS: Final = ("one-against-many", "nearly-full")
_RIVALS: Final = {"many-cities": ("transaction",)}
_SHORT: Final = {"seconds": 2.5, "warmup_s": 1.0, "runs": 3}
#: Ratios of rates should be high, of costs low.
_KEPT: Final = {"confirmed_per_s": True, "service_cpu_us": False}


def short(name: str) -> ScenarioFile:
    """Return a shipped scenario with short windows."""
    file = read(shipped()[name])
    return file.model_copy(update={"load": file.load.model_copy(update=_SHORT)})


async def check(state_root: Path | None, progress: Progress) -> dict[str, Any]:
    """Measure the subset; return its ratios, in the median and in the best turn, and every violation."""
    found: dict[str, Mapping[str, float]] = {}
    violations: list[str] = []
    for name in _PAIRS:
        against = read(shipped()[name]).against or name
        asks = [Ask(one, short(one), state_root=state_root) for one in (name, against)]
        result = await measure(asks, progress)
        found |= _ratios(f"{name} / {against}", result["ratios"])
        violations += [f"{name}: {one}" for one in result["violations"]]
    for name, names in _RIVALS.items():
        result = await rivals(Ask(name, short(name), state_root=state_root), names, progress)
        for rival, told in result["rivals"].items():
            found |= _ratios(f"{name} / {rival} rival", told["ratios"])
        violations += [f"{name}: {one}" for one in result["violations"]]
    best = {name: turns["most" if _more_is_better(name) else "least"] for name, turns in found.items()}
    medians = {name: turns["median"] for name, turns in found.items()}
    return {"ratios": medians, "best": best, "violations": violations}


def _ratios(of: str, ratios: Mapping[str, Mapping[str, float]]) -> dict[str, Mapping[str, float]]:
    return {f"{of}, {name}": ratios[name] for name in _KEPT if name in ratios}


def _more_is_better(name: str) -> bool:
    return _KEPT[name.rpartition(", ")[2]]


def regressions(best: Mapping[str, float], baseline: Mapping[str, float]) -> list[str]:
    """Say what is grossly worse than the baseline in its best turn, or missing."""
    found = []
    for name, was in baseline.items():
        is_now = best.get(name)
        if is_now is None:
            found.append(f"{name}: was not measured")
            continue
        if (is_now / was if _more_is_better(name) else was / is_now) < GROSS:
            found.append(f"{name}: {is_now:.2f} in the best turn, the baseline is {was:.2f}")
    return found


def load() -> dict[str, float]:
    """Read the committed ratios.

    Raises:
        BenchError: they cannot be read.
    """
    try:
        ratios: dict[str, float] = orjson.loads(PATH.read_bytes())["ratios"]
    except (OSError, orjson.JSONDecodeError, KeyError) as error:
        raise BenchError(f"{PATH.name}: {error}") from None
    return ratios


def write(ratios: Mapping[str, float]) -> None:
    """Make what was measured the baseline."""
    told = {"command": "./scripts/bench check --write", "ratios": dict(ratios)}
    PATH.write_bytes(orjson.dumps(told, option=orjson.OPT_INDENT_2) + b"\n")


def table(now: Mapping[str, float], baseline: Mapping[str, float]) -> str:
    """Return both for people."""
    return "\n".join(
        f"{name:<55} {one:>7.2f}  baseline {baseline.get(name, float('nan')):.2f}" for name, one in now.items()
    )

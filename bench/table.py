"""``bench table``: each target beside what its own command measures."""

from __future__ import annotations

import shlex
import statistics
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from bench.machine import machine
from bench.stack import BenchError

BEGIN: Final = "<!-- bench table -->"
END: Final = "<!-- end of bench table -->"
_TARGETS: Final = Path(__file__).with_name("targets.toml")
_TRIMMED: Final = 9
_LONGEST_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Row:
    """A target and the command that measures it; ``most``: it is an upper bound."""

    name: str
    words: str
    target: float
    unit: str
    command: str
    at: str = ""
    most: bool = False


def rows(path: Path = _TARGETS) -> list[Row]:
    """Return the targets of the file."""
    return [Row(name, **of) for name, of in tomllib.loads(path.read_text(encoding="utf-8")).items()]


def values(told: Any, path: str) -> list[float]:
    """Return the numbers at ``path``; ``*`` stands for each of a list."""
    found = [told]
    for step in path.split("."):
        if step == "*":
            found = [one for many in found for one in many]
        else:
            found = [one[int(step)] if isinstance(one, list) else one[step] for one in found]
    return [float(one) for one in found]


def spread(told: Any, path: str) -> list[float]:
    """Return the least and the most of the figures; of one that is a median itself, those beside it."""
    if path.endswith(".median"):
        of = path.removesuffix("median")
        return values(told, of + "least") + values(told, of + "most")
    found = kept(values(told, path))
    return [found[0], found[-1]]


def kept(found: Sequence[float]) -> list[float]:
    """Return what is judged: without best and worst if there are nine."""
    return sorted(found)[1:-1] if len(found) >= _TRIMMED else sorted(found)


def verdict(row: Row, measured: float) -> str:
    """Say whether the target is met, else by which factor it is missed."""
    if measured <= row.target if row.most else measured >= row.target:
        return "met"
    low, high = sorted((measured, row.target))
    return f"missed, factor {high / low:.2f}" if low > 0 else "missed"


def line(row: Row, told: Any) -> str:
    """Return the row as Markdown; ``told`` is the command's result, an error's text, or none."""
    figure, between, said = "-", "-", "not measured"
    if isinstance(told, str):
        said = f"FAILED: {told}"
    elif told is not None and told.get("violations"):
        said = f"FAILED: {len(told['violations'])} violations"
    elif told is not None and told.get("right") is False:
        said = "FAILED: the books are not right"
    elif told is not None:
        try:
            middle = statistics.median(kept(values(told, row.at)))
            least, most = spread(told, row.at)
        except (LookupError, TypeError, ValueError):
            said = f"FAILED: no figure at {row.at}"
        else:
            figure, said = _shown(middle), verdict(row, middle)
            between = f"{_shown(least)} to {_shown(most)}" if least != most else "one run"
    sign = "≤" if row.most else "≥"
    return f"| {row.words} | {sign} {row.target:,g} {row.unit} | {figure} | {between} | {said} | `{row.command}` |"


def _shown(figure: float) -> str:
    return f"{figure:,.0f}" if abs(figure) >= 1000 else f"{figure:.3g}"


def kept_at(row: Row, folder: Path) -> Path:
    """Return where the result of the row's command is kept."""
    return folder / ("".join(one if one.isalnum() else "-" for one in row.command) + ".json")


def measured(row: Row, folder: Path, *, again: bool, run: bool = True) -> Any:
    """Run the row's command, or read what it told before; a text says why there is nothing, None: it was not to run."""
    path = kept_at(row, folder)
    if path.is_file() and not again:
        return orjson.loads(path.read_bytes())
    if not run:
        return None
    try:
        done = subprocess.run(
            [sys.executable, "-m", *module(row)], stdout=subprocess.PIPE, timeout=_LONGEST_S, check=False
        )
        told = orjson.loads(done.stdout)
    except subprocess.TimeoutExpired:
        return f"not done within {_LONGEST_S:.0f} s"
    except orjson.JSONDecodeError:
        return f"exit code {done.returncode} without a result"
    if not told.get("violations"):
        path.write_bytes(done.stdout)
    return told


def module(row: Row) -> list[str]:
    """Return the module that the row's command runs, with its arguments."""
    words = shlex.split(row.command)
    return ["bench", *words[1:]] if words[0] == "./scripts/bench" else words[2:]


def table(names: Sequence[str], folder: Path, *, again: bool, progress: Callable[[str], None], run: bool = True) -> str:
    """Measure the rows named, all if none is; return the table. ``run`` False: only what has been measured."""
    there = rows()
    if unknown := set(names) - {row.name for row in there}:
        raise BenchError(f"There is no row {', '.join(sorted(unknown))}; `bench table --list` names them.")
    chosen = [row for row in there if row.name in names or not names]
    folder.mkdir(parents=True, exist_ok=True)
    here = machine(None)
    lines = ["| | target | measured | spread | | command |", "|---|---|---|---|---|---|"]
    done: dict[str, Any] = {}
    for number, row in enumerate(chosen, 1):
        progress(f"{number} of {len(chosen)}: {row.name}")
        if row.at and row.command not in done:
            done[row.command] = measured(row, folder, again=again, run=run)
        lines.append(line(row, done[row.command] if row.at else None))
    about = f"{here['cores']} cores ({here['cpu']}) for everything, {here['memory_gib']:g} GiB, Python {here['python']}"
    lines += ["", f"Of nine runs best and worst are dropped; the spread is that of the rest. On {about}."]
    return "\n".join(lines)


def replaced(text: str, by: str) -> str:
    """Return ``text`` with ``by`` between the two marks."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise BenchError(f"There is no {BEGIN} … {END} to write between.")
    return f"{before}{BEGIN}\n{by}\n{END}{after}"

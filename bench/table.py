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
    """What is measured, by which command, and its target if it has one; ``most``: that is an upper bound."""

    name: str
    words: str
    unit: str
    command: str
    #: Path of the figure in the command's JSON, or of several that stand beside each other.
    at: str | list[str]
    target: float | None = None
    most: bool = False

    def paths(self) -> list[str]:
        """Return where its figures are."""
        return [self.at] if isinstance(self.at, str) else self.at


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
    """Say whether the target is met, else by which factor it is missed; nothing if there is none."""
    if row.target is None:
        return ""
    if measured <= row.target if row.most else measured >= row.target:
        return "met"
    low, high = sorted((measured, row.target))
    return f"missed, factor {high / low:.2f}" if low > 0 else "missed"


@dataclass(frozen=True, slots=True)
class Told:
    """What came of a row: its figures in the median, the spread of the first, and what is said of it."""

    row: Row
    said: str
    figures: tuple[float, ...] = ()
    least: float | None = None
    most: float | None = None


def judged(row: Row, told: Any) -> Told:
    """Judge a row; ``told`` is the command's result, an error's text, or none."""
    if told is None:
        return Told(row, "not measured")
    if isinstance(told, str):
        return Told(row, f"FAILED: {told}")
    if told.get("violations"):
        return Told(row, f"FAILED: {len(told['violations'])} violations")
    if told.get("right") is False:
        return Told(row, "FAILED: the books are not right")
    paths = row.paths()
    try:
        figures = tuple(statistics.median(kept(values(told, path))) for path in paths)
        least, most = spread(told, paths[0])
    except (LookupError, TypeError, ValueError):
        return Told(row, f"FAILED: no figure at {' or '.join(paths)}")
    return Told(row, verdict(row, figures[0]), figures, least, most)


def line(told: Told) -> str:
    """Return the row as Markdown."""
    row = told.row
    wanted = "-" if row.target is None else f"{'≤' if row.most else '≥'} {row.target:,g} {row.unit}"
    unit = f" {row.unit}" if row.target is None else ""
    figures = " / ".join(map(_shown, told.figures)) + unit if told.figures else "-"
    between = "-"
    if told.least is not None and told.most is not None and len(told.figures) == 1:
        between = f"{_shown(told.least)} to {_shown(told.most)}" if told.least != told.most else "one run"
    return f"| {row.words} | {wanted} | {figures} | {between} | {told.said} | `{row.command}` |"


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


def measure(
    names: Sequence[str], folder: Path, *, again: bool, progress: Callable[[str], None], run: bool = True
) -> list[Told]:
    """Measure the rows named, all if none is. ``run`` False: only what has been measured."""
    there = rows()
    if unknown := set(names) - {row.name for row in there}:
        raise BenchError(f"There is no row {', '.join(sorted(unknown))}; `bench table --list` names them.")
    chosen = [row for row in there if row.name in names or not names]
    folder.mkdir(parents=True, exist_ok=True)
    done: dict[str, Any] = {}
    for number, row in enumerate(chosen, 1):
        progress(f"{number} of {len(chosen)}: {row.name}")
        if row.command not in done:
            done[row.command] = measured(row, folder, again=again, run=run)
    return [judged(row, done[row.command]) for row in chosen]


def table(told: Sequence[Told]) -> str:
    """Return the rows as Markdown, with what they were measured on."""
    here = machine(None)
    about = f"{here['cores']} cores ({here['cpu']}) for everything, {here['memory_gib']:g} GiB, Python {here['python']}"
    return "\n".join(
        [
            "| | target | measured | spread | | command |",
            "|---|---|---|---|---|---|",
            *map(line, told),
            "",
            f"Of nine runs best and worst are dropped; the spread is that of the rest. On {about}.",
        ]
    )


def replaced(text: str, by: str) -> str:
    """Return ``text`` with ``by`` between the two marks."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise BenchError(f"There is no {BEGIN} … {END} to write between.")
    return f"{before}{BEGIN}\n{by}\n{END}{after}"

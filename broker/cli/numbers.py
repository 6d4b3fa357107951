"""``broker numbers``."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn, TextIO

import click

from broker.cli.desk import confirm, tell, the_app, with_app, with_json, with_state_dir, with_yes, work

_LIST = ("number", "pool", "area_code", "state", "live_lines", "resting_until", "releasable", "carrier", "rent")
_NEEDED = ("number", "pool")
_COLUMNS = (*_NEEDED, "area_code", "carrier", "rent")


@click.group()
def numbers() -> None:
    r"""X numbers: import, freeze, open, drain, retire.

    A frozen number is handed out no more and keeps its lines. A draining one leaves for good: `list` says `releasable`
    once no line lives on it and no rest remains; `retire` then notes that it was given back.

    \b
    Examples:
      broker numbers import numbers.csv --app food
      broker numbers drain +8617010000001 +8617010000002 --app food
      broker numbers list --state draining --app food
    """


@numbers.command("list")
@click.option("--pool", help="Only this pool's.")
@click.option("--state", help="Only in this state: open, frozen, draining, suspended or retired.")
@with_app
@with_state_dir
@with_json
def list_numbers(pool: str | None, state: str | None, app: str | None, state_dir: str | None, as_json: bool) -> None:
    """List the numbers of an app."""
    from broker.flows.operate import numbers as flow
    from broker.flows.operate.fields import NumberFilter, read

    async def job(desk: Any) -> Any:
        return await flow.every(desk, await the_app(desk, app), read(NumberFilter, {"pool": pool, "state": state}))

    tell(work(state_dir, job), as_json=as_json, columns=_LIST)


@numbers.command("import")
@click.argument("file", type=click.File("r", encoding="utf-8-sig"))
@with_app
@with_state_dir
@with_json
def import_numbers(file: TextIO, app: str | None, state_dir: str | None, as_json: bool) -> None:
    """Import numbers from a CSV file: all of them, or none.

    The first line names the columns: number, pool and, where known, area_code, carrier, rent. Importing a file again
    changes nothing but carrier and rent.
    """
    from broker.flows.operate import numbers as flow

    lines = _read(file)

    async def job(desk: Any) -> Any:
        return await flow.load(desk, await the_app(desk, app), lines)

    tell(work(state_dir, job), as_json=as_json)


def _read(file: TextIO) -> list[dict[str, str]]:
    lines: list[dict[str, str]] = []
    rows = csv.reader(())
    try:
        text = file.read()
        rows = csv.reader(io.StringIO(text, newline=""), strict=True)
        header = [name.strip() for name in next(rows, [])]
        _check(header)
        for row in _with_progress(rows, text.count("\n")):
            if len(row) > len(header):
                _wrong(f"line {rows.line_num}: has more columns than the first line")
            # An empty cell is no value; a line without any is kept, to be named as wrong in its place.
            cells = (cell.strip() for cell in row)
            lines.append({name: cell for name, cell in zip(header, cells, strict=False) if cell})
    except csv.Error as error:
        _wrong(f"line {rows.line_num}: {error}")
    except UnicodeDecodeError:
        _wrong("the file is not UTF-8 text")
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        _wrong("the file has no numbers")
    return lines


def _with_progress(rows: Iterable[list[str]], length: int) -> Iterator[list[str]]:
    if not sys.stderr.isatty():
        yield from rows
        return
    with click.progressbar(rows, length=length, label="Reading", file=sys.stderr) as shown:
        yield from shown


def _check(header: list[str]) -> None:
    unknown = [name for name in header if name not in _COLUMNS]
    missing = [name for name in _NEEDED if name not in header]
    if unknown or missing or len(set(header)) != len(header):
        _wrong("line 1: must name the columns number, pool[, area_code, carrier, rent], each once")


def _wrong(words: str) -> NoReturn:
    click.echo(f"Nothing was imported: {words}", err=True)
    sys.exit(1)


def _mover(name: str, words: str, question: str | None) -> None:
    """Add a command that moves numbers into another state; ``question`` is asked first."""

    def move(
        listed: tuple[str, ...], reason: str | None, app: str | None, state_dir: str | None, as_json: bool, yes: bool
    ) -> None:
        from broker.flows.operate import numbers as flow
        from broker.flows.operate.fields import Numbers, read

        flows: dict[str, Callable[..., Any]] = {
            "freeze": flow.freeze,
            "open": flow.reopen,
            "drain": flow.drain,
            "retire": flow.retire,
        }
        if question is not None:
            confirm(question, yes=yes)

        async def job(desk: Any) -> Any:
            wanted = read(Numbers, {"numbers": list(listed), "reason": reason})
            return await flows[name](desk, await the_app(desk, app), wanted)

        tell(work(state_dir, job), as_json=as_json, columns=_LIST)

    command = with_yes(with_app(with_state_dir(with_json(move))))
    command = click.option("--reason", help="For people who look later.")(command)
    command = click.argument("listed", metavar="NUMBER...", nargs=-1, required=True)(command)
    numbers.command(name, help=words)(command)


_mover("freeze", "Hand the numbers out no more. Their lines live on.", None)
_mover("open", "Hand the numbers out again, also retired ones.", None)
_mover("drain", "Take the numbers out of choice for good.", None)
_mover("retire", "Note that the numbers were given back: all, or none while lines live.", "Were they given back?")

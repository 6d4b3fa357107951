"""``broker cdr``."""

from __future__ import annotations

import codecs
import csv
import gzip
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import click

from broker.cli.desk import tell, the_app, with_app, with_json, with_state_dir, work

_LONGEST_LINE = 64 * 1024
_ENCODINGS = ("utf-8", "gb18030", "gbk")


@click.group()
def cdr() -> None:
    r"""Call detail records; `broker export cdrs` writes them to a file.

    \b
    Examples:
      broker cdr import cdrs.csv --dry-run --app food
      broker cdr import cdrs.ndjson.gz --app food
      broker cdr import export.csv --encoding gb18030 --zone Asia/Shanghai --column '话单标识=icid'
    """


@cdr.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--format", "form", type=click.Choice(["csv", "ndjson"]), help="Default: by the file's name, else csv.")
@click.option("--column", "columns", multiple=True, metavar="THEIRS=NAME",
              help="A column of the file by another name, as 'Call ID=icid'; repeatable.")  # fmt: skip
@click.option("--encoding", type=click.Choice(_ENCODINGS), default="utf-8", show_default=True,
              help="How the file is written; one that begins with UTF-8's mark is UTF-8.")  # fmt: skip
@click.option("--zone", default="UTC", show_default=True, help="Of times that do not say theirs, as Asia/Shanghai.")
@click.option("--dry-run", is_flag=True, help="Only look: nothing is written down.")
@with_app
@with_state_dir
@with_json
def import_cdrs(
    file: Path, form: str | None, columns: tuple[str, ...], encoding: str, zone: str, dry_run: bool,
    app: str | None, state_dir: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Enter records that were not pushed, as after an outage of more than five hours.

    FILE is CSV with a head, or a JSON object a line, packed (.gz) or not; names are the platform's (icid, sessionId,
    callerNum, bindNum, callEndTime, ...), in any case. Times without a zone are read as of --zone: name the console's
    where it writes local time. Records that are known change nothing, so a file may be imported again. Effects follow
    within seconds, by running instances. A line with bytes that are not of the encoding ends the import before anything
    is entered.
    """
    from datetime import UTC
    from zoneinfo import ZoneInfo, available_timezones

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from broker.flows.operate import records as flow

    if zone != "UTC" and zone not in available_timezones():
        raise click.BadParameter("is no name of the IANA database, as Asia/Shanghai", param_hint="--zone")
    named = _named(columns)
    packed = file.suffix == ".gz"
    inner = file.with_suffix("") if packed else file
    kind = form or ("ndjson" if inner.suffix in {".ndjson", ".jsonl"} else "csv")
    bars = (TextColumn("records"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())

    async def job(desk: Any) -> Any:
        with _opened(file, packed=packed) as counted:
            many = max(sum(1 for _ in _lines(counted, kind, named, encoding)), 1)
        shown = Progress(*bars, console=Console(stderr=True), transient=True)
        with _opened(file, packed=packed) as opened, shown as bar:
            task = bar.add_task("", total=many)
            return await flow.take_in(
                desk, await the_app(desk, app), _lines(opened, kind, named, encoding),
                zone=UTC if zone == "UTC" else ZoneInfo(zone), dry_run=dry_run,
                progress=lambda count: bar.advance(task, count),
            )  # fmt: skip

    try:
        answer = work(state_dir, job)
    except (OSError, EOFError, zlib.error) as error:
        raise click.ClickException(f"{file.name} cannot be read: {type(error).__name__}.") from None
    tell(answer, as_json=as_json)


def _named(columns: tuple[str, ...]) -> dict[str, str]:
    pairs = [one.rpartition("=") for one in columns]
    if any(not theirs or not name for theirs, _, name in pairs):
        raise click.UsageError("--column is THEIRS=NAME, as 'Call ID=icid'.")
    return {theirs.strip().lower(): name.strip() for theirs, _, name in pairs}


@contextmanager
def _opened(file: Path, *, packed: bool) -> Iterator[BinaryIO]:
    with file.open("rb") as plain:
        if not packed:
            yield plain
            return
        with gzip.open(plain) as unpacked:
            yield unpacked  # type: ignore[misc] # reads bytes as any file does


def _lines(
    file: BinaryIO, form: str, named: Mapping[str, str], encoding: str
) -> Iterator[tuple[int, Mapping[str, Any] | None]]:
    """Yield the lines below the head by their number in the file; one that is too long, or no record, as None."""
    from broker.domain.notice import CDR_NAMES

    names = {name.lower(): name for name in CDR_NAMES} | dict(named)
    head: list[str] | None = None
    for number, line in _physical(file, encoding):
        if form == "ndjson":
            yield number, _object(line, names)
        elif head is None:
            head = [names.get(cell.strip().lower(), cell.strip()) for cell in _cells(line) or []]
        else:
            cells = _cells(line)
            fits = cells is not None and len(cells) <= len(head)
            yield number, {name: cell.strip() for name, cell in zip(head, cells or [], strict=False)} if fits else None


def _physical(file: BinaryIO, encoding: str) -> Iterator[tuple[int, str | None]]:
    """Yield lines that are not empty: a cell never goes on in the next, so nothing can swallow the rest of a file.

    Raises:
        ClickException: a line is written otherwise.
    """
    number = 0
    while line := file.readline(_LONGEST_LINE):
        number += 1
        text: str | None = None
        if number == 1 and line.startswith(codecs.BOM_UTF8):
            line, encoding = line.removeprefix(codecs.BOM_UTF8), "utf-8"
        if _is_whole(line):
            text = _decoded(line, number, encoding)
        else:
            while not _is_whole(file.readline(_LONGEST_LINE)):
                pass
        if text is None or text.strip():
            yield number, text


def _decoded(line: bytes, number: int, encoding: str) -> str:
    try:
        return line.decode(encoding)
    except UnicodeDecodeError as error:
        others = " or ".join(f"--encoding {one}" for one in _ENCODINGS if one != encoding)
        raise click.ClickException(
            f"Line {number} is not {encoding} (byte {error.start + 1}): nothing was entered. Perhaps {others}."
        ) from None


def _is_whole(line: bytes) -> bool:
    """Tell whether a line ends where it was read to."""
    return line.endswith(b"\n") or len(line) < _LONGEST_LINE


def _cells(line: str | None) -> list[str] | None:
    try:
        return next(csv.reader([line], strict=True)) if line is not None else None
    except (csv.Error, StopIteration):
        return None


def _object(line: str | None, names: Mapping[str, str]) -> Mapping[str, Any] | None:
    import orjson

    try:
        one: object = orjson.loads(line) if line is not None else None
    except orjson.JSONDecodeError:
        return None
    if not isinstance(one, dict):
        return None
    return {names.get(str(key).lower(), str(key)): value for key, value in one.items()}

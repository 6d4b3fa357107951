"""``broker export``."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import click

from broker.cli.desk import the_app, who, with_app, with_state_dir, work

_TABLES = {"calls": "call", "cdrs": "cdr", "sms": "sms"}


@click.command()
@click.argument("what", type=click.Choice(list(_TABLES)))
@click.option("--since", metavar="TIME", help="From this moment on, as 2026-11-22T00:00:00Z.")
@click.option("--until", metavar="TIME", help="Before this moment.")
@click.option("--x", help="Only those on this X number.")
@click.option("--order", "order_id", help="Only this order's.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["csv", "ndjson"]),
    default="csv",
    show_default=True,
    help="A table, or a JSON object a line.",
)
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="File to write (default: standard output)."
)
@click.option("--reveal", is_flag=True, help="With the real numbers and the texts; who got them is noted.")
@with_app
@with_state_dir
def export(
    what: str, form: Any, out: Path | None, reveal: bool, app: str | None, state_dir: str | None, **asked: Any
) -> None:
    r"""Write calls, call detail records or short messages of an app to a file, newest first. Phones are masked.

    The file is called FILE.part until it is whole; an export that fails or is ended leaves none. With `--reveal` only
    you may read it.

    \b
    Examples:
      broker export cdrs --since 2026-11-01T00:00:00Z --out november.csv
      broker export calls --format ndjson | jq .state
      broker export sms --order order-1 --reveal --out sms.csv
    """
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from broker.domain import tabular
    from broker.flows.operate import export as flow
    from broker.flows.operate.fields import ExportFilter, read

    table: Any = _TABLES[what]
    columns = (SpinnerColumn(), TextColumn("{task.completed:,} " + what), TimeElapsedColumn())

    async def job(desk: Any) -> int:
        filters, named, count = read(ExportFilter, asked), await the_app(desk, app), 0
        with ExitStack() as exits:
            file = exits.enter_context(_draft(out, reveal=reveal)) if out is not None else sys.stdout.buffer
            quiet = not sys.stderr.isatty()
            bar = exits.enter_context(Progress(*columns, console=Console(stderr=True), transient=True, disable=quiet))
            task = bar.add_task("", total=None)
            file.write(tabular.head(table, form))
            async for items in flow.everything(desk, named, table, filters, reveal_to=who() if reveal else None):
                file.write(tabular.lines(table, form, items))
                count += len(items)
                bar.update(task, completed=count)
            file.flush()
        return count

    try:
        count = work(state_dir, job)
    except OSError as error:
        raise click.ClickException(f"{out or 'standard output'}: {error.strerror or error}") from None
    if out is not None:
        click.echo(f"{count:,} {what} in {out}", err=True)


@contextmanager
def _draft(out: Path, *, reveal: bool) -> Iterator[BinaryIO]:
    """Open a file that becomes ``out`` when all went well, and is gone otherwise; it is nobody else's file or link.

    Raises:
        ClickException: there is one of its name.
    """
    draft = out.with_name(out.name + ".part")
    try:
        opened = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600 if reveal else 0o666)
    except FileExistsError:
        raise click.ClickException(
            f"{draft} is there: another export writes it, or one was killed; remove it if none does."
        ) from None
    before = {number: signal.signal(number, _interrupted) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        with os.fdopen(opened, "wb") as file:
            yield file
        draft.replace(out)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupted(_number: int, _frame: object) -> None:
    """End as by Ctrl-C, so that what is half written is removed."""
    signal.raise_signal(signal.SIGINT)

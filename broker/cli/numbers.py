"""``broker numbers``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import click

from broker.cli.desk import confirm, tell, the_app, with_app, with_json, with_state_dir, with_yes, work

_LIST = (
    "number", "pool", "area_code", "state", "state_reason", "state_since", "live_lines", "evacuation", "over_budget",
    "resting_until", "releasable", "carrier", "rent",
)  # fmt: skip
_BUDGET = ("complaints", "answer_rate", "calls_per_hour", "over_budget")
#: What takes numbers out of choice, and so may have their bindings move.
_CLOSES = frozenset({"freeze", "drain"})


@click.group()
def numbers() -> None:
    r"""X numbers: import, freeze, open, drain, retire, move, clear, complain.

    A frozen number is handed out no more and keeps its lines. A draining one leaves for good: `list` says `releasable`
    once no line lives on it and no rest remains; `retire` then notes that it was given back. With --evacuate, what is
    bound on a number moves to others: the new one first, then the end of the old one.

    \b
    Examples:
      broker numbers import numbers.csv --app food
      broker numbers drain +8617010000001 +8617010000002 --app food
      broker numbers list --state draining --app food
      broker numbers clear +8617010000001 --app food
      broker numbers freeze +8617010000001 --evacuate --reason "on a spam list" --app food
      broker numbers evacuation +8617010000001 --watch --app food
      broker numbers complain +8617010000001 --reason "rang at midnight" --app food
    """


@numbers.command("list")
@click.option("--pool", help="Only this pool's.")
@click.option("--state", help="Only in this state: open, frozen, draining, suspended, retired or moved.")
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
@click.argument("file", type=click.File("rb"))
@with_app
@with_state_dir
@with_json
def import_numbers(file: BinaryIO, app: str | None, state_dir: str | None, as_json: bool) -> None:
    """Import numbers from a CSV file or an .xlsx workbook: all of them, or none.

    The first line names the columns: number, pool and, where known, area_code, carrier, rent. Importing a file again
    changes nothing but carrier and rent. In a workbook the first sheet counts; format its columns as text, or the
    program that made it drops the + and leading zeros.
    """
    from broker.cli import number_file
    from broker.flows.operate import numbers as flow

    try:
        lines = number_file.read(file)
    except number_file.BadFile as bad:
        click.echo(f"Nothing was imported: {bad}", err=True)
        sys.exit(1)

    async def job(desk: Any) -> Any:
        return await flow.load(desk, await the_app(desk, app), lines)

    tell(work(state_dir, job), as_json=as_json)


@numbers.command("move")
@click.argument("number")
@click.option("--to", required=True, metavar="POOL", help="Another pool of the same app.")
@with_app
@with_state_dir
@with_json
def move_number(number: str, to: str, app: str | None, state_dir: str | None, as_json: bool) -> None:
    """Put a frozen or drained number into another pool, once no line lives on it and nobody rests on it.

    It keeps its state: `open` hands it out there. What was bound on it before still shows it.
    """
    from broker.flows.operate import numbers as flow
    from broker.flows.operate.fields import Move, read

    async def job(desk: Any) -> Any:
        return await flow.move(desk, await the_app(desk, app), read(Move, {"number": number, "to": to}))

    tell(work(state_dir, job), as_json=as_json, columns=_LIST)


@numbers.command("complain")
@click.argument("number")
@click.option("--reason", help="What was complained of, for people who look later.")
@with_app
@with_state_dir
@with_json
def complain(number: str, reason: str | None, app: str | None, state_dir: str | None, as_json: bool) -> None:
    """Enter a complaint about calls from a number.

    With more of them than the app's complaint_budget within complaint_days the number is over its budget: reported, or
    frozen until it is within it again (over_budget of the app).
    """
    from broker.flows.operate import complaints as flow
    from broker.flows.operate.fields import Complaint, read

    async def job(desk: Any) -> Any:
        return await flow.report(desk, await the_app(desk, app), read(Complaint, {"number": number, "reason": reason}))

    tell(work(state_dir, job), as_json=as_json, columns=("number", "pool", "state", "state_reason", *_BUDGET))


@numbers.command("clear")
@click.argument("number")
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(0, 3600),
    default=60,
    show_default=True,
    help="Seconds to wait for the platform's answers; the releases themselves are never lost.",
)
@with_yes
@with_app
@with_state_dir
@with_json
def clear_number(number: str, wait_s: float, yes: bool, app: str | None, state_dir: str | None, as_json: bool) -> None:
    """End every binding that is on the number now, one by one. Freeze it first, else new ones may follow.

    The releases are committed here; a running service sends the unbinds. Exit 1 if some have not ended in time.
    """
    from broker.flows.operate import clearing
    from broker.flows.operate.fields import Clear, read

    confirm(f"End every binding on {number}?", yes=yes)

    async def job(desk: Any) -> Any:
        wanted = read(Clear, {"number": number})
        with _ending() as told:
            return await clearing.clear(desk, await the_app(desk, app), wanted.number, wait_s=wait_s, told=told)

    bindings = work(state_dir, job)
    tell(bindings, as_json=as_json, columns=("id", "state"))
    if not clearing.ended(bindings):
        click.echo("Not all have ended yet: a running service goes on with it; ask again.", err=True)
        sys.exit(1)


@contextmanager
def _ending() -> Iterator[Callable[[int, int], None]]:
    """Show how many have ended, where somebody looks."""
    if not sys.stderr.isatty():
        yield lambda _ended, _of: None
        return
    with click.progressbar(length=0, label="Ending", file=sys.stderr) as bar:

        def told(ended: int, of: int) -> None:
            bar.length = of
            bar.update(ended - bar.pos)

        yield told


def _mover(name: str, words: str, question: str | None) -> None:
    """Add a command that moves numbers into another state; ``question`` is asked first."""

    def move(
        listed: tuple[str, ...],
        reason: str | None,
        app: str | None,
        state_dir: str | None,
        as_json: bool,
        yes: bool,
        *,
        evacuate: bool = False,
    ) -> None:
        from broker.flows.operate import numbers as flow
        from broker.flows.operate.fields import Closing, Numbers, read

        flows: dict[str, Callable[..., Any]] = {
            "freeze": flow.freeze,
            "open": flow.reopen,
            "drain": flow.drain,
            "retire": flow.retire,
        }
        if question is not None:
            confirm(question, yes=yes)

        async def job(desk: Any) -> Any:
            given = {"numbers": list(listed), "reason": reason}
            wanted = read(Closing, given | {"evacuate": evacuate}) if name in _CLOSES else read(Numbers, given)
            return await flows[name](desk, await the_app(desk, app), wanted)

        tell(work(state_dir, job), as_json=as_json, columns=_LIST)

    command = with_yes(with_app(with_state_dir(with_json(move))))
    if name in _CLOSES:
        command = click.option("--evacuate", is_flag=True, help="Move what is bound on them to other numbers.")(command)
    command = click.option("--reason", help="For people who look later.")(command)
    command = click.argument("listed", metavar="NUMBER...", nargs=-1, required=True)(command)
    numbers.command(name, help=words)(command)


_mover("freeze", "Hand the numbers out no more. Their lines live on.", None)
_mover("open", "Hand the numbers out again, also retired ones.", None)
_mover("drain", "Take the numbers out of choice for good.", None)
_mover("retire", "Note that the numbers were given back: all, or none while lines live.", "Were they given back?")

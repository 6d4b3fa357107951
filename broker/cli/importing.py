"""``broker import``."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from broker.cli.desk import confirm, tell, the_app, with_app, with_json, with_state_dir, with_yes, work

if TYPE_CHECKING:
    from broker.store.registry import App, Registry
    from broker.workers.importing import Imported, Importer

_MOST_BYTES = 64 * 1024 * 1024
_UNLIMITED_PER_S = 200.0


@click.group("import")
def import_() -> None:
    r"""Take what exists at the platform into this broker.

    \b
    Examples:
      broker import bindings --app food --dry-run
      broker import bindings --app food --caller orders --yes
      broker import bindings --app codes --csv extensions.csv
    """


@import_.command()
@click.option("--caller", help="Whose bindings they become; default the app's first caller.")
@click.option("--csv", "file", type=click.File("rb"),
              help="Mode axe: ask only about these places; a file whose first line is x,extension.")  # fmt: skip
@click.option("--rate", type=click.FloatRange(0.1, 2000), help="Calls a second, below the app's limit.")
@click.option("--dry-run", is_flag=True, help="Only look: nothing is written down.")
@with_yes
@with_app
@with_state_dir
@with_json
def bindings(
    caller: str | None, file: BinaryIO | None, rate: float | None, dry_run: bool, yes: bool, app: str | None,
    state_dir: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Enter the bindings that the platform has on an app's numbers, whoever made them.

    Import the numbers first. Each is asked about: one call for an X, or for an extension of one, and one more for every
    further 100 bindings. What was stopped goes on where it was when the command is repeated.
    """
    wanted = _read(file) if file is not None else None

    async def job(desk: Any) -> Any:
        from broker.store import registry

        known = await registry.load(desk.db, desk.vault)
        return await take_in(desk, known, await the_app(desk, app), caller, wanted, rate, dry_run=dry_run, yes=yes)

    tell(work(state_dir, job), as_json=as_json)


async def take_in(
    desk: Any, known: Registry, name: str, caller: str | None, wanted: list[tuple[str, int]] | None, rate: float | None,
    *, dry_run: bool, yes: bool,
) -> dict[str, Any]:  # fmt: skip
    """Import; return what came of it.

    Raises:
        NotFound, Conflict: there is no such app, or it is in shadow.
        Unavailable: the platform does not answer; what is entered stays.
    """
    from broker.errors import Conflict, Unavailable
    from broker.flows.operate.desk import no_app
    from broker.platform.huawei.access import driver_of
    from broker.platform.huawei.http import HttpOptions
    from broker.workers.importing import WIDTH, Importer, places_named
    from broker.workers.looking import Stopped
    from broker.workers.sender import Sender, Timing

    app = next((one for one in known.apps.values() if one.name == name), None)
    if app is None:
        raise no_app(name)
    if app.shadow:
        raise Conflict("This app is in shadow: cut it over, then import.")
    caller_id = await _caller(desk, app, caller)
    per_s = min(rate or app.rate or _UNLIMITED_PER_S, app.rate or 2000.0)
    places = places_named(_of_app(wanted, app, known), known.places) if wanted is not None else None
    sender = Sender(
        desk.db, lambda: known, lambda one: driver_of(one, HttpOptions(max_connections=WIDTH)), timing=Timing(),
        width=WIDTH,
    )  # fmt: skip
    try:
        importer = Importer(desk.db, desk.vault, sender, app, per_s=per_s, places=places)
        steps = await importer.count()
        cost = f"at least {steps} calls, {steps / per_s:.0f} s at {per_s:g} a second"
        click.echo(f"{steps} places to ask about: {cost}.", err=True)
        if not dry_run:
            confirm("Begin?", yes=yes)
        return _shown(await _carry_out(importer, caller_id, steps, dry_run=dry_run), dry_run=dry_run)
    except Stopped as stopped:
        raise Unavailable(
            f"The platform did not answer ({stopped.answer.verdict.value}): repeat the command to go on."
        ) from None
    finally:
        await sender.close()


async def _carry_out(importer: Importer, caller_id: int, steps: int, *, dry_run: bool) -> Imported:
    with click.progressbar(length=max(steps, 1), label="import", file=sys.stderr) as bar:
        told: Callable[[int], None] = bar.update
        return await (importer.probe(told) if dry_run else importer.carry_out(caller_id, steps, told))


def _shown(imported: Imported, *, dry_run: bool) -> dict[str, Any]:
    return {
        "dry_run": dry_run,
        "places": imported.places,
        "calls": imported.calls,
        "bindings": imported.shown,
        "new": imported.adopted,
        "known": imported.known,
        "left_out": imported.left_out,
    }


async def _caller(desk: Any, app: App, name: str | None) -> int:
    from broker.errors import FieldError, Invalid
    from broker.store import drift
    from broker.store.statements import statements

    row = await desk.db.fetchrow(statements("drift")["caller_of"], app.id, name) if name is not None else None
    found = row["id"] if row is not None else await drift.first_caller(desk.db, app.id) if name is None else None
    if found is None:
        wrong = FieldError("/caller", "is not a caller of this app" if name else "the app has no caller yet")
        raise Invalid("Nothing was imported; see errors.", errors=(wrong,))
    return int(found)


def _of_app(wanted: list[tuple[str, int]], app: App, known: Registry) -> list[tuple[str, int]]:
    """Return what is to be asked about.

    Raises:
        Invalid: the app has no extensions, or a line names no number of it.
    """
    from broker.errors import FieldError, Invalid

    if app.mode != "axe":
        raise Invalid("A file of places is for apps of mode axe; others are asked by X.")
    pools = {pool.id for pool in known.app_pools.get(app.id, ())}
    wrong = [
        FieldError(f"/items/{nth}/x", "is not a number of this app")
        for nth, (x, _) in enumerate(wanted)
        if known.places.get(x, (0, 0))[0] not in pools
    ]
    if wrong:
        raise Invalid("Nothing was imported; see errors.", errors=tuple(wrong[:100]))
    return wanted


def _read(file: BinaryIO) -> list[tuple[str, int]]:
    content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise click.UsageError(f"The file has more than {_MOST_BYTES} bytes.")
    try:
        rows = list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True))
        if not rows or [cell.strip() for cell in rows[0]] != ["x", "extension"]:
            raise click.UsageError("The file's first line must be x,extension.")
        places = [(row[0].strip(), int(row[1])) for row in rows[1:] if row]
    except (UnicodeDecodeError, csv.Error, ValueError, IndexError):
        raise click.UsageError("The file must be UTF-8 text with lines of a number and an extension.") from None
    if not all(1 <= extension <= 9999 for _, extension in places):  # noqa: PLR2004 - four digits
        raise click.UsageError("An extension must be 1 to 9999.")
    return places

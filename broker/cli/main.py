"""The command line: ``broker --help``."""

from __future__ import annotations

import sys
from typing import Any

import click

from broker import __version__
from broker.cli.app import app
from broker.cli.audit import audit
from broker.cli.bindings import bindings
from broker.cli.caller import caller, key
from broker.cli.calls import calls
from broker.cli.cdr import cdr
from broker.cli.completion import completion
from broker.cli.emulate import emulate
from broker.cli.evacuation import evacuation
from broker.cli.export import export
from broker.cli.importing import import_
from broker.cli.notifications import notifications
from broker.cli.numbers import numbers
from broker.cli.pool import pool
from broker.cli.reach import reach
from broker.cli.retention import retention
from broker.cli.shadow import cutover, enter, shadow
from broker.cli.summary import price, summary
from broker.cli.tones import tones
from broker.cli.webhook import webhook


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="broker")
def main() -> None:
    """Binding broker: gives orders their X numbers and makes the platform agree."""


@main.command()
@click.option("--state-dir", type=click.Path(file_okay=False), help="Folder of database, keys and emulator state.")
@click.option("--port", type=click.IntRange(0, 65533), default=8080, show_default=True,
              help="Port of the API; admin and edge take the next two. 0 = any free ones.")  # fmt: skip
@click.option("--workers", type=click.IntRange(1, 64), default=2, show_default=True, help="Worker processes.")
@click.option("--edge-workers", type=click.IntRange(0, 63), help="So many of them listen to the platform alone; 0: all "
              "listen to everything (overrides BROKER_EDGE_WORKERS).")  # fmt: skip
@click.option("--test-clock", is_flag=True, help="Add POST /test/clock to the admin listener. For tests only.")
@click.option("--emulator-set", "emulator", multiple=True, metavar="NAME=VALUE",
              help="A setting of the emulator, such as keep_alive=false; may be repeated.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON when ready.")
def up(
    state_dir: str | None,
    port: int,
    workers: int,
    edge_workers: int | None,
    test_clock: bool,
    emulator: tuple[str, ...],
    as_json: bool,
) -> None:
    r"""Run everything on this machine: database, platform emulator, demonstration app, service.

    \b
    Examples:
      broker up
      broker up --port 0 --json
    """
    from broker.cli.up import run

    sys.exit(
        run(
            state_dir=state_dir, port=port, workers=workers, edge_workers=edge_workers, test_clock=test_clock,
            emulator=emulator, as_json=as_json,
        )
    )  # fmt: skip


@main.command()
@click.option("--couriers", type=click.IntRange(1, 500), default=40, show_default=True, help="Size of the city.")
@click.option("--minutes", type=click.IntRange(5, 120), default=60, show_default=True, help="City time to play.")
@click.option("--seconds", type=click.IntRange(1, 7200), default=60, show_default=True,
              help="Real time that this takes; what is left to run out then does.")  # fmt: skip
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed gives the same hour.")
@click.option("--state-dir", type=click.Path(file_okay=False), help="State folder of the running `broker up`.")
@click.option("--url", help="API of another broker; with --key and --emulator.")
@click.option("--key", help="Its API key, with the scopes bind and read.")
@click.option("--emulator", help="Admin address of the emulator that is its platform.")
@click.option("--anywhere", is_flag=True, help="Also where the addresses are not this machine's.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def demo(state_dir: str | None, url: str | None, key: str | None, emulator: str | None, **options: Any) -> None:
    r"""Play a delivery city's lunch hour against a running `broker up`.

    Couriers with several orders at once, customers and shops phone each other; every call is checked. Under
    `up --test-clock` lifetimes are those of the hour; else the shortest one, 60 real seconds, has to do.
    Exit code 1: a wrong person was reached. 2: it could not be played.

    \b
    Examples:
      broker demo
      broker demo --couriers 100 --seconds 120
      broker demo --url http://127.0.0.1:8080 --key bbk_... --emulator http://127.0.0.1:9001 --json
    """
    from broker.cli.lunch import run

    sys.exit(run(state_dir, url, key, emulator, **options))


@main.command()
@click.option("--workers", type=click.IntRange(1, 64), help="Worker processes (overrides BROKER_WORKERS).")
@click.option("--edge-workers", type=click.IntRange(0, 63), help="So many of them listen to the platform alone; 0: all "
              "listen to everything (overrides BROKER_EDGE_WORKERS).")  # fmt: skip
@click.option("--after-restore", is_flag=True, help="The database comes from a backup: allocate for no app before an "
              "audit has compared it with the platform.")  # fmt: skip
def serve(workers: int | None, edge_workers: int | None, after_restore: bool) -> None:
    r"""Serve with settings from the environment: `broker config show` lists them.

    \b
    Examples:
      BROKER_DATABASE_URL=postgresql://... broker serve --workers 4
      broker serve --workers 4 --edge-workers 1
    """
    from broker.cli.serve import run

    sys.exit(run(workers, edge_workers, after_restore=after_restore))


@main.command()
@click.option("--check", is_flag=True, help="Only tell: exit 1 if something is to be applied.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def migrate(check: bool, as_json: bool) -> None:
    r"""Bring the database of BROKER_DATABASE_URL up to date. Several at once do the work once.

    \b
    Examples:
      broker migrate --check && echo nothing to do
      broker migrate --json
    """
    from broker.cli.migrate import run

    sys.exit(run(check=check, as_json=as_json))


@main.group()
def config() -> None:
    r"""Look at the settings.

    \b
    Examples:
      broker config check
      broker config show --json
    """


@config.command("check")
def config_check() -> None:
    """Check every BROKER_* variable; exit 1 and name what is wrong."""
    from broker.cli.config import check

    sys.exit(check())


@config.command("show")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def config_show(as_json: bool) -> None:
    """Show all settings as they are in force, secrets hidden."""
    from broker.cli.config import show

    sys.exit(show(as_json=as_json))


app.add_command(enter)
app.add_command(cutover)
numbers.add_command(evacuation)
for command in (
    app, audit, caller, calls, import_, key, pool, numbers, shadow, tones, bindings, reach, notifications, webhook,
    cdr, completion, emulate, export, price, retention, summary,
):  # fmt: skip
    main.add_command(command)

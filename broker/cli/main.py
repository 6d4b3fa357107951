"""The command line: ``broker --help``."""

from __future__ import annotations

import sys

import click

from broker import __version__
from broker.cli.app import app
from broker.cli.caller import caller, key
from broker.cli.numbers import numbers
from broker.cli.pool import pool
from broker.cli.tones import tones


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="broker")
def main() -> None:
    """Binding broker: gives orders their X numbers and makes the platform agree."""


@main.command()
@click.option("--state-dir", type=click.Path(file_okay=False), help="Folder of database, keys and emulator state.")
@click.option("--port", type=click.IntRange(0, 65533), default=8080, show_default=True,
              help="Port of the API; admin and edge take the next two. 0 = any free ones.")  # fmt: skip
@click.option("--workers", type=click.IntRange(1, 64), default=2, show_default=True, help="Worker processes.")
@click.option("--test-clock", is_flag=True, help="Add POST /test/clock to the admin listener. For tests only.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON when ready.")
def up(state_dir: str | None, port: int, workers: int, test_clock: bool, as_json: bool) -> None:
    r"""Run everything on this machine: database, platform emulator, demonstration app, service.

    \b
    Examples:
      broker up
      broker up --port 0 --json
    """
    from broker.cli.up import run

    sys.exit(run(state_dir=state_dir, port=port, workers=workers, test_clock=test_clock, as_json=as_json))


@main.command()
@click.option("--workers", type=click.IntRange(1, 64), help="Worker processes (overrides BROKER_WORKERS).")
def serve(workers: int | None) -> None:
    """Serve with settings from the environment: `broker config show` lists them."""
    from broker.cli.serve import run

    sys.exit(run(workers))


@main.command()
@click.option("--check", is_flag=True, help="Only tell: exit 1 if something is to be applied.")
def migrate(check: bool) -> None:
    """Bring the database of BROKER_DATABASE_URL up to date. Several at once do the work once."""
    from broker.cli.migrate import run

    sys.exit(run(check=check))


@main.group()
def config() -> None:
    """Look at the settings."""


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


@main.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def emulate(arguments: tuple[str, ...]) -> None:
    """Run the platform emulator alone; `broker emulate --help` lists its options."""
    from broker.emulator.__main__ import main as emulator

    sys.exit(emulator(list(arguments)))


for group in (app, caller, key, pool, numbers, tones):
    main.add_command(group)

"""``broker emulate``: the platform emulator alone, and traffic at one that runs."""

from __future__ import annotations

import sys
from typing import Any

import click


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def emulate(arguments: tuple[str, ...]) -> None:
    """Run the platform emulator alone (`--help` lists its options), or drive traffic: `broker emulate calls --help`."""
    if arguments[:1] == ("calls",):
        calls.main(list(arguments[1:]), prog_name="broker emulate calls")
    from broker.emulator.__main__ import main as emulator

    sys.exit(emulator(list(arguments)))


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rate", type=click.FloatRange(0.1, 2_000), default=20.0, show_default=True,
              help="Calls and messages a second.")  # fmt: skip
@click.option("--seconds", type=click.FloatRange(1, 86_400), default=60.0, show_default=True, help="At most so long.")
@click.option("--count", type=click.IntRange(1), help="At most so many.")
@click.option("--mix", type=click.Path(dir_okay=False), help="TOML file of what a city does: see docs/city.toml.")
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed draws the same.")
@click.option("--state-dir", type=click.Path(file_okay=False), help="State folder of the running `broker up`.")
@click.option("--emulator", help="Admin address of another emulator.")
@click.option("--anywhere", is_flag=True, help="Also where the address is not this machine's.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def calls(**options: Any) -> None:
    r"""Place calls and send messages through live bindings of a running `broker up`, with all the pushes they bring.

    Whose calls go how is drawn from a mix. Progress is shown on stderr, the report at the end. Exit code 2: it could
    not be driven.

    \b
    Examples:
      broker emulate calls --rate 200 --mix docs/city.toml
      broker emulate calls --rate 5 --count 20 --json
    """
    from broker.cli.traffic import run

    sys.exit(run(**options))

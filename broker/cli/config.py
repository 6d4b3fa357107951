"""``broker config``."""

from __future__ import annotations

import sys

import click
import orjson

from broker.settings import SettingsError, load, shown


def check() -> int:
    """Return 0 if `serve` would accept the environment."""
    try:
        load()
    except SettingsError as error:
        click.echo("\n".join(error.problems), err=True)
        return 1
    click.echo("ok")
    return 0


def show(*, as_json: bool) -> int:
    """Print the settings in force."""
    try:
        settings = shown(load())
    except SettingsError as error:
        click.echo("\n".join(error.problems), err=True)
        return 1
    if as_json:
        sys.stdout.write(orjson.dumps(settings).decode() + "\n")
    else:
        width = max(map(len, settings))
        for name, value in settings.items():
            click.echo(f"{name:<{width}}  {value}")
    return 0

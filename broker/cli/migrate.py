"""``broker migrate``."""

from __future__ import annotations

import asyncio
import os

import click
import orjson

from broker.settings import SettingsError, database_url
from broker.store.migrate import MigrationError, migrate, pending


def run(*, check: bool, as_json: bool) -> int:
    """Apply, or tell what would be applied."""
    try:
        dsn = database_url(os.environ)
    except SettingsError as error:
        click.echo("\n".join(error.problems), err=True)
        return 2
    if not dsn:
        click.echo("BROKER_DATABASE_URL: is not set (or BROKER_DATABASE_URL_FILE)", err=True)
        return 2
    try:
        if check:
            names = asyncio.run(pending(dsn))
            if as_json:
                click.echo(orjson.dumps({"to_apply": list(names)}))
                return 1 if names else 0
            for name in names:
                click.echo(f"to apply: {name}")
            click.echo("up to date" if not names else f"{len(names)} to apply")
            return 1 if names else 0
        # With --json each file is progress, and the answer comes at the end.
        applied = asyncio.run(migrate(dsn, on_applied=lambda name: click.echo(f"applied {name}", err=as_json)))
    except MigrationError as error:
        click.echo(str(error), err=True)
        return 1
    if as_json:
        click.echo(orjson.dumps({"applied": list(applied)}))
        return 0
    click.echo(f"{len(applied)} applied" if applied else "up to date")
    return 0

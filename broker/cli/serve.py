"""``broker serve``."""

from __future__ import annotations

import asyncio
import os

import click
import uvloop

from broker import log as logging
from broker.settings import Settings, SettingsError, load
from broker.store import drift
from broker.store.database import Database, DatabaseAway
from broker.store.migrate import MigrationError, pending
from broker.supervisor import CannotServe, Supervisor


def run(workers: int | None, edge_workers: int | None, *, after_restore: bool = False) -> int:
    """Serve until a signal."""
    environment = dict(os.environ)
    if workers is not None:
        environment["BROKER_WORKERS"] = str(workers)
    if edge_workers is not None:
        environment["BROKER_EDGE_WORKERS"] = str(edge_workers)
    try:
        settings = load(environment)
        missing = asyncio.run(pending(settings.database_url))
    except SettingsError as error:
        click.echo("\n".join(error.problems), err=True)
        return 2
    except MigrationError as error:
        click.echo(str(error), err=True)
        return 1
    if missing:
        click.echo(f"The database is not up to date ({', '.join(missing)}): run 'broker migrate' first.", err=True)
        return 1
    logging.configure(settings.log_level)
    if after_restore and not asyncio.run(_gate(settings)):
        return 1
    try:
        uvloop.run(_serve(settings, environment))
    except CannotServe as error:
        click.echo(str(error), err=True)
        return 1
    return 0


async def _gate(settings: Settings) -> bool:
    """Let no app allocate before it has been audited; False, with a line on stderr: the database is away."""
    db = Database(
        settings.database_url,
        connections=1,
        timeout_s=settings.db_timeout_s,
        statement_cache=settings.db_statement_cache,
    )
    try:
        await db.open()
        await drift.gate(db)
    except DatabaseAway as away:
        click.echo(away.detail, err=True)
        return False
    finally:
        await db.close()
    return True


async def _serve(settings: Settings, environment: dict[str, str]) -> None:
    supervisor = Supervisor(settings, environment)
    await supervisor.start()
    await supervisor.run_until_signal()

"""What every use case works with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from broker.errors import NotFound
from broker.log import scrubbed
from broker.store.crypto import Vault
from broker.store.database import Database
from broker.store.statements import statements

#: Something to be shown: its names are those of the JSON.
Shown = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Desk:
    """An operator's tools."""

    db: Database
    vault: Vault


@dataclass(frozen=True, slots=True)
class Access:
    """How an app reaches the platform."""

    mode: str
    app_key: str
    secret: str = field(repr=False)
    base_url: str
    auth_scheme: str


def no_app(name: str) -> NotFound:
    """Return the problem of an app that is not there."""
    return NotFound(f"There is no app '{scrubbed(name)}'.")


async def app_id(desk: Desk, name: str) -> int:
    """Return the id of the app with this name.

    Raises:
        NotFound: there is none.
    """
    row = await desk.db.fetchrow(statements("operate")["app_id"], name)
    if row is None:
        raise no_app(name)
    return int(row["id"])


def sealed(desk: Desk, app: str, secret: str) -> bytes:
    """Return how a secret of the app is stored, whether it is the current one or not yet or no more."""
    return desk.vault.seal("app", "secret", 0, app, secret)


def shown(rows: Iterable[Any]) -> list[Shown]:
    """Return rows as they are shown."""
    return [dict(row) for row in rows]

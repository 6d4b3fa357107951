"""Webhooks in the database: whose turn it is, what came of it, what waits."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from broker.domain.events import Event
from broker.store.crypto import Vault
from broker.store.database import Database
from broker.store.events import event_of
from broker.store.statements import statements


@dataclass(frozen=True, slots=True)
class Target:
    """Where and what to send: ``secrets`` are the live ones, the current one first."""

    url: str
    types: tuple[str, ...] | None
    secrets: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Webhook:
    """A webhook that is ours to deliver to for a while."""

    id: int
    app_id: int
    app: str
    name: str
    token: int
    target: Target
    at_position: int
    failures: int


@dataclass(frozen=True, slots=True)
class Parked:
    """An event that waits: its position, how often it was sent, and how long ago first."""

    pos: int
    attempts: int
    tried_s_ago: float | None


@dataclass(frozen=True, slots=True)
class Park:
    """An event to be put by, or given up (``dead``)."""

    pos: int
    about: UUID | None
    attempts: int
    due_s: float
    dead: bool
    error: str | None


@dataclass(frozen=True, slots=True)
class Progress:
    """What came of a webhook's events since the last note."""

    at_position: int
    failures: int
    pause_s: float
    delivered: int
    missed: int
    error: str | None
    gone: bool
    done: Sequence[int]
    parked: Sequence[Park]


async def claim(db: Database, vault: Vault, owner: UUID, *, lease_s: float, limit: int) -> list[Webhook]:
    """Take up to ``limit`` webhooks that have something to do and nobody who does it."""
    rows = await db.fetch(statements("webhooks")["claim"], owner, lease_s, limit)
    return [
        Webhook(
            row["id"], row["app_id"], row["app"], row["name"], row["token"],
            _target(vault, row["app"], row["name"], row), row["at_position"], row["failures"],
        )
        for row in rows
    ]  # fmt: skip


async def waiting(db: Database, webhook_id: int) -> dict[UUID | None, int]:
    """Return how many events wait, by binding."""
    rows = await db.fetch(statements("webhooks")["waiting"], webhook_id)
    return {row["about"]: row["many"] for row in rows}


async def due(
    db: Database, webhook_id: int, *, limit: int, but: Collection[int], but_about: Collection[UUID]
) -> list[Parked]:
    """Return waiting events whose time has come, each with those of its binding behind it, in order."""
    rows = await db.fetch(statements("webhooks")["due"], webhook_id, limit, list(but), list(but_about))
    return [Parked(row["pos"], row["attempts"], row["tried_s_ago"]) for row in rows]


async def events_at(db: Database, app_id: int, positions: Sequence[int]) -> dict[int, Event]:
    """Return the events at these positions; one that is kept no more is missing."""
    rows = await db.fetch(statements("webhooks")["events_at"], app_id, positions)
    return {row["pos"]: event_of(row) for row in rows}


async def note(db: Database, vault: Vault, webhook: Webhook, progress: Progress, *, lease_s: float) -> Target | None:
    """Write down what came of it, all or nothing, and go on; None = the webhook is not ours any more, or disabled."""
    parked = progress.parked
    row = await db.fetchrow(
        statements("webhooks")["note"],
        webhook.id, webhook.token, lease_s, progress.at_position, progress.failures, progress.pause_s,
        progress.delivered, progress.missed, progress.error, progress.gone, progress.done,
        [one.pos for one in parked], [one.about for one in parked], [one.attempts for one in parked],
        [one.due_s for one in parked], [one.dead for one in parked], [one.error for one in parked],
    )  # fmt: skip
    if row is None or row["state"] != "enabled":
        return None
    return _target(vault, webhook.app, webhook.name, row)


async def bury(db: Database) -> None:
    """Forget dead letters of events that are kept no more."""
    await db.fetch(statements("webhooks")["bury"])


def sealed(vault: Vault, app: str, name: str, secret: str) -> bytes:
    """Return the secret as it is stored."""
    return vault.seal("webhook", "secret", 0, f"{app}/{name}", secret)


def opened(vault: Vault, app: str, name: str, row: Any) -> tuple[str, ...]:
    """Return the live secrets of a row."""
    live = (row["secret_sealed"], row["old_sealed"])
    return tuple(vault.open("webhook", "secret", 0, f"{app}/{name}", one) for one in live if one is not None)


def _target(vault: Vault, app: str, name: str, row: Any) -> Target:
    types = None if row["types"] is None else tuple(row["types"])
    return Target(row["url"], types, opened(vault, app, name, row))

"""Runs of the audit, our side of the comparison, and what was found, in the database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from broker.domain.drift import Difference, Ours, Policy, clock_known
from broker.domain.peer_drift import OurPeer
from broker.store.database import Database
from broker.store.statements import statements

_LONG_S = 60.0


@dataclass(frozen=True, slots=True)
class Place:
    """What is looked at in one step: an X (``extension`` None, or 0 where a line has all of it), or an extension."""

    pool_id: int
    x_id: int
    extension: int | None
    number: str


@dataclass(frozen=True, slots=True)
class Run:
    """A run that is ours for a while: where it has got to, and what its app's operator wants."""

    id: int
    why: str
    at: tuple[int, int, int]
    steps: int
    steps_done: int
    policy: Policy
    every_s: int


@dataclass(slots=True)
class Tally:
    """What some steps of a run came to."""

    steps: int = 0
    calls: int = 0
    compared: int = 0
    found: int = 0
    adopted: int = 0
    peers: int = 0
    unverifiable: int = 0


@dataclass(frozen=True, slots=True)
class Adopted:
    """A binding of the platform on its way into our books."""

    place: Place
    extension: int | None
    line_id: UUID
    binding_id: UUID
    a_key: int
    b_key: int | None
    a_sealed: bytes
    b_sealed: bytes | None
    direction: str
    ttl_s: int
    subscription_id: str
    user_data: str | None


async def begin_due(db: Database, *, every_s: int) -> None:
    """Begin the runs of all apps whose last one began long enough ago."""
    await db.fetch(statements("drift")["begin_due"], every_s)


async def waiting(db: Database, owner: UUID) -> list[int]:
    """Return the apps whose open runs are ours, or nobody's."""
    return [row["app_id"] for row in await db.fetch(statements("drift")["waiting"], owner)]


async def begin(db: Database, app_id: int, why: str, *, steps: int = 0) -> bool:
    """Begin a run; False: one is open."""
    return bool(await db.fetch(statements("drift")["begin"], app_id, why, steps))


async def begin_import(db: Database, app_id: int, steps: int) -> None:
    """Begin an import unless one is open; an audit under way ends: what it would find is about to be entered."""
    await db.fetch(statements("drift")["stop_audit"], app_id)
    await begin(db, app_id, "import", steps=steps)


async def take(db: Database, app_id: int, owner: UUID, *, lease_s: float, importing: bool = False) -> Run | None:
    """Return the app's open run if it is ours now."""
    row = await db.fetchrow(statements("drift")["take"], app_id, owner, lease_s, importing)
    if row is None:
        return None
    return Run(
        id=row["id"],
        why=row["why"],
        at=(row["at_pool"], row["at_x"], row["at_extension"]),
        steps=row["steps"],
        steps_done=row["steps_done"],
        policy=Policy(row["unknown"], row["absent"], row["differing"]),
        every_s=row["every_s"],
    )


async def count(db: Database, app_id: int, mode: str, *, run_id: int, sweep: int) -> int:
    """Return how many places a whole run looks at."""
    sql = statements("drift")
    given = (sql["count_places"], app_id, run_id, sweep) if mode == "axe" else (sql["count_x"], app_id)
    row = await db.fetchrow(*given, timeout_s=_LONG_S)
    return int(row["steps"]) if row else 0


async def steps(
    db: Database, app_id: int, mode: str, at: tuple[int, int, int], *, run_id: int, sweep: int, limit: int
) -> list[Place]:
    """Return the places after ``at``; of extensions that rest or are free every ``sweep``-th, another one each run."""
    sql = statements("drift")
    if mode == "axe":
        rows = await db.fetch(sql["steps_places"], app_id, *at, run_id, sweep, limit, timeout_s=_LONG_S)
    else:
        rows = await db.fetch(sql["steps_x"], app_id, at[0], at[1] if at[0] else -1, limit, timeout_s=_LONG_S)
    # A line of AX has the whole of its X, which is its extension 0.
    whole = 0 if mode == "ax" else None
    return [
        Place(row["pool_id"], row["x_id"], whole if row["extension"] is None else row["extension"], row["number"])
        for row in rows
    ]


async def size(db: Database, run: Run, owner: UUID, steps: int) -> None:
    """Write down how many steps a run has."""
    await db.fetch(statements("drift")["size"], run.id, owner, steps)


async def progress(
    db: Database, run: Run, owner: UUID, *, lease_s: float, at: tuple[int, int, int], tally: Tally
) -> bool:
    """Write down how far a run has got; False: it is not ours any more."""
    counted = (tally.steps, tally.calls, tally.compared, tally.found, tally.adopted, tally.peers, tally.unverifiable)
    return bool(await db.fetch(statements("drift")["progress"], run.id, owner, lease_s, *at, *counted))


async def finish(db: Database, run: Run, owner: UUID) -> None:
    """End a run; one after a restore opens the gate."""
    await db.fetch(statements("drift")["finish"], run.id, owner)


async def ours(db: Database, mode: str, place: Place) -> list[Ours]:
    """Return the lines that our books have there."""
    rows = await db.fetch(statements("drift")["ours"], place.pool_id, place.x_id, place.extension)
    return [
        Ours(
            line_id=row["id"],
            subscription_id=row["subscription_id"] or "",
            a_key=row["a_key"],
            b_key=row["b_key"],
            direction=row["direction"],
            ttl_s=row["ttl_s"],
            calls=row["calls"],
            settled=row["settled"],
            clock_known=clock_known(mode, calls=row["calls"], adopted=row["adopted"]),
            adopted=row["adopted"],
        )
        for row in rows
    ]


async def peers(db: Database, line_ids: Sequence[UUID]) -> dict[UUID, list[OurPeer]]:
    """Return who has, or is to have, or to lose a Y, by line."""
    found: dict[UUID, list[OurPeer]] = {line_id: [] for line_id in line_ids}
    for row in await db.fetch(statements("drift")["peers"], list(line_ids)):
        active = row["state"] == "active"
        found[row["line_id"]].append(OurPeer(row["id"], row["b_key"], row["y"] or "", active, active and row["stays"]))
    return found


async def end_lost_peer(db: Database, pool_id: int, line: Ours, peer_id: UUID) -> bool:
    """End a peer that the platform does not have; False: its line is another one by now."""
    sql = statements("drift")["end_lost_peer"]
    return await db.fetchrow(sql, pool_id, line.line_id, line.calls, peer_id) is not None


async def known_elsewhere(db: Database, app_id: int, marked: Mapping[UUID, str]) -> set[UUID]:
    """Return which of these lines (with the platform's ids) live anywhere in the app's pools."""
    if not marked:
        return set()
    rows = await db.fetch(statements("drift")["known_elsewhere"], app_id, list(marked), list(marked.values()))
    return {row["id"] for row in rows}


async def note(
    db: Database, app_id: int, run: Run, place: Place, found: Sequence[Difference], actions: Sequence[str]
) -> None:
    """Write down what was found at a place, and what is made of it."""
    lines = [one.ours.line_id if one.ours else one.theirs.mark if one.theirs else None for one in found]
    marked = [one.theirs is None or one.theirs.mark is not None for one in found]
    await db.fetch(
        statements("drift")["note"],
        app_id, place.pool_id, place.x_id, place.extension, run.id,
        [one.kind.value for one in found], [one.subscription_id for one in found], lines, marked, list(actions),
    )  # fmt: skip


async def resolve(db: Database, run: Run, places: Sequence[Place]) -> None:
    """Resolve what this run has not seen again at these places."""
    await db.fetch(
        statements("drift")["resolve"],
        [place.pool_id for place in places],
        [place.x_id for place in places],
        [place.extension for place in places],
        run.id,
    )


async def settle_action(db: Database, app_id: int, one: Difference, action: str, *, resolved: bool) -> None:
    """Write down what came of an action."""
    await db.fetch(statements("drift")["settle_action"], app_id, one.kind.value, one.subscription_id, action, resolved)


async def repair(
    db: Database, pool_id: int, line_id: UUID, subscription_id: str, kinds: Sequence[str], *, calls: int | None = None
) -> bool:
    """Begin to make the platform hold what our books say of a line; False: it is another one by now."""
    row = await db.fetchrow(statements("drift")["repair"], pool_id, line_id, subscription_id, calls, list(kinds))
    return bool(row and row["begun"])


async def end_lost(db: Database, pool_id: int, line: Ours) -> bool:
    """Begin to end the bindings of a line that the platform does not hold; False: it is another one by now."""
    row = await db.fetchrow(statements("drift")["end_lost"], pool_id, line.line_id, line.subscription_id, line.calls)
    return bool(row and row["begun"])


async def bar(db: Database, place: Place, a_key: int, b_key: int | None, *, bar_s: float) -> None:
    """Keep the parties of a binding that we do not know from its X, or its place from everybody."""
    await db.fetch(statements("drift")["bar"], place.pool_id, place.x_id, place.extension, a_key, b_key, bar_s)


async def first_caller(db: Database, app_id: int) -> int | None:
    """Return whose bindings adopted lines become."""
    row = await db.fetchrow(statements("drift")["first_caller"], app_id)
    return row["id"] if row else None


async def adopt(db: Database, app_id: int, caller_id: int, items: Sequence[Adopted]) -> list[bool]:
    """Enter bindings into our books; False: somebody of ours is there already."""
    rows = await db.fetch(
        statements("drift")["adopt"],
        app_id, caller_id, [i.place.pool_id for i in items], [i.place.x_id for i in items],
        [i.extension for i in items], [i.line_id for i in items], [i.binding_id for i in items],
        [i.a_key for i in items], [i.b_key for i in items], [i.a_sealed for i in items], [i.b_sealed for i in items],
        [i.direction for i in items], [i.ttl_s for i in items], [i.subscription_id for i in items],
        [i.user_data for i in items], timeout_s=_LONG_S,
    )  # fmt: skip
    done = {row["ord"]: row["adopted"] for row in rows}
    return [bool(done.get(nth)) for nth in range(1, len(items) + 1)]


async def open_findings(db: Database) -> list[Any]:
    """Return how many differences are open, by app and kind."""
    return await db.fetch(statements("drift")["open"])


async def gate(db: Database) -> list[int]:
    """Let nothing be allocated before each app has been audited; begin these runs. Returns the apps."""
    apps = [row["app_id"] for row in await db.fetch(statements("drift")["gate"])]
    for app_id in apps:
        await begin(db, app_id, "restore")
    return apps

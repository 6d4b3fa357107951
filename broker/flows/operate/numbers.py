"""X numbers: list, import, and their way from open to retired.

::

    open ──freeze──► frozen ──open──► open       its lines live on, no new ones
    open ──drain───► draining ──retire──► retired  releasable: no line lives, no rest remains
    frozen, draining ──move──► the same in another pool, once no line lives and no rest remains
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import asyncpg
from pydantic import ValidationError

from broker.errors import Conflict, FieldError, Invalid
from broker.flows.operate import evacuation
from broker.flows.operate.desk import Desk, Shown, app_id, shown
from broker.flows.operate.fields import Closing, ImportLine, Move, NumberFilter, Numbers, mistakes
from broker.store.statements import statements

#: From which states a number may come into another one.
_FROM = {
    "frozen": ["open", "draining", "suspended"],
    "open": ["frozen", "draining", "suspended", "retired"],
    "draining": ["open", "frozen", "suspended"],
}
_LONG_S = 60.0
_ELSEWHERE = {"other_pool": "is in another pool of this app", "other_app": "belongs to another app"}


async def every(desk: Desk, app: str, wanted: NumberFilter) -> list[Shown]:
    """Return numbers with their live lines; ``releasable`` tells of a draining one that it can be given back."""
    owner = await app_id(desk, app)
    return shown(
        await desk.db.fetch(statements("operate")["numbers"], owner, wanted.pool, wanted.state, None, timeout_s=_LONG_S)
    )


async def freeze(desk: Desk, app: str, wanted: Closing) -> list[Shown]:
    """Hand the numbers out no more; their lines live on, there or on other numbers.

    Raises:
        Conflict: they are to be evacuated, but the platform picks the X of this mode.
    """
    return await _close(desk, app, wanted, "frozen")


async def reopen(desk: Desk, app: str, wanted: Numbers) -> list[Shown]:
    """Hand the numbers out again, also one that had been retired."""
    return await _turn(desk, app, wanted, "open")


async def drain(desk: Desk, app: str, wanted: Closing) -> list[Shown]:
    """Take the numbers out of choice for good; each is reported releasable once it is free.

    Raises:
        Conflict: they are to be evacuated, but the platform picks the X of this mode.
    """
    return await _close(desk, app, wanted, "draining")


async def retire(desk: Desk, app: str, wanted: Numbers) -> list[Shown]:
    """Note that the numbers were given back: all of them, or none.

    Raises:
        Invalid: one is not of this app, or not draining or frozen.
        Conflict: lines live on one, or it was open until a moment ago.
    """
    owner = await app_id(desk, app)
    found = await _of_app(desk, owner, wanted.numbers)
    due = [number for number in wanted.numbers if found[number]["state"] != "retired"]
    _refuse(
        wanted.numbers,
        {
            number: "must be drained or frozen first"
            for number in due
            if found[number]["state"] not in {"draining", "frozen"}
        },
    )
    retired = await desk.db.fetch(statements("operate")["retire_numbers"], owner, due, len(due))
    if len(retired) < len(due):
        live = sum(found[number]["live_lines"] > 0 for number in due)
        words = (
            f"lines live on {live} of them" if live else "they were open until a moment ago; try again in 10 seconds"
        )
        raise Conflict(f"No number was retired: {words}.")
    return await listed(desk, owner, wanted.numbers)


async def move(desk: Desk, app: str, wanted: Move) -> list[Shown]:
    """Put a number that nobody uses into another pool of the app; its state goes with it, lines of its past stay.

    Raises:
        NotFound: there is no such app.
        Invalid: the number or the pool is not of this app, or the number is in it.
        Conflict: the number is handed out, lines live on it, or somebody rests on it.
    """
    owner = await app_id(desk, app)
    pools = {row["name"]: row["id"] for row in await desk.db.fetch(statements("operate")["pool_ids"], owner)}
    now = await desk.db.fetchrow(statements("operate")["standing"], owner, wanted.number, timeout_s=_LONG_S)
    wrong = [
        *([FieldError("/number", "is not a number of this app")] if now is None else []),
        *([FieldError("/to", "is not a pool of this app")] if wanted.to not in pools else []),
        *([FieldError("/to", "is where the number is")] if now is not None and wanted.to == now["pool"] else []),
    ]
    if wrong or now is None:
        raise Invalid("Nothing was moved; see errors.", errors=tuple(wrong))
    if (held := _held(now)) is not None:
        raise Conflict(f"Nothing was moved: {held}.")
    try:
        moved = await desk.db.fetch(
            statements("operate")["move_number"], owner, wanted.number, pools[wanted.to], timeout_s=_LONG_S
        )
    except asyncpg.UniqueViolationError:
        raise Conflict("Nothing was moved: the pool is being added to; try again.") from None
    except asyncpg.CheckViolationError:
        raise Conflict("Nothing was moved: a pool holds at most 100,000 numbers.") from None
    if not moved:
        raise Conflict("Nothing was moved: the number was changed meanwhile; try again.")
    return await listed(desk, owner, [wanted.number])


def _held(now: asyncpg.Record) -> str | None:
    """Say what keeps a number in its pool."""
    if now["state"] not in {"frozen", "draining", "suspended"}:
        return f"the number is {now['state']}; freeze or drain it first"
    if now["live_lines"]:
        return f"{now['live_lines']} lines live on the number"
    if now["rests"]:
        return "somebody rests on the number"
    return None if now["settled"] else "the number was changed a moment ago; try again in 10 seconds"


async def load(desk: Desk, app: str, given: Sequence[object]) -> Shown:
    """Put numbers into pools: all of them, or none. A number that is there already gets its new details.

    Raises:
        Invalid: with every mistake of every line: ``/items/<place from 0>/<column>``.
        NotFound: there is no such app.
    """
    owner = await app_id(desk, app)
    done: list[tuple[int, str]] = []
    pools = {row["name"]: row for row in await desk.db.fetch(statements("operate")["pool_ids"], owner)}
    lines, errors = _read(given, pools)
    if errors:
        errors += await _elsewhere(desk, lines, pools)
    else:
        done = await _store(desk, [line for _, line in lines], pools)
        errors = [FieldError(f"/items/{place}/number", _ELSEWHERE[what]) for place, what in done if what in _ELSEWHERE]
    if errors:
        raise Invalid("Nothing was imported; see errors.", errors=tuple(sorted(errors, key=_place)))
    outcomes = Counter(outcome for _, outcome in done)
    return {name: outcomes[name] for name in ("added", "changed", "unchanged")}


def _place(error: FieldError) -> int:
    return int(error.pointer.split("/")[2])


def _read(given: Sequence[object], pools: dict[str, Any]) -> tuple[list[tuple[int, ImportLine]], list[FieldError]]:
    lines: list[tuple[int, ImportLine]] = []
    errors: list[FieldError] = []
    first: dict[str, int] = {}
    for place, item in enumerate(given):
        try:
            line = ImportLine.model_validate(item)
        except ValidationError as error:
            errors.extend(mistakes(error, f"/items/{place}"))
            continue
        lines.append((place, line))
        if first.setdefault(line.number, place) != place:
            errors.append(FieldError(f"/items/{place}/number", f"is item {first[line.number]} again"))
        if line.pool not in pools:
            errors.append(FieldError(f"/items/{place}/pool", "is not a pool of this app"))
        elif line.area_code not in {None, pools[line.pool]["area_code"]}:
            errors.append(FieldError(f"/items/{place}/area_code", "is not the area code of this pool"))
    return lines, errors


async def _elsewhere(desk: Desk, lines: Sequence[tuple[int, ImportLine]], pools: dict[str, Any]) -> list[FieldError]:
    """Beside other mistakes: which numbers belong to another pool, or to another app."""
    rows = await desk.db.fetch(
        statements("operate")["pools_of_numbers"], [line.number for _, line in lines], timeout_s=_LONG_S
    )
    there = {row["number"]: row["pool_id"] for row in rows}
    ours = {row["id"] for row in pools.values()}
    return [
        FieldError(f"/items/{place}/number", _ELSEWHERE["other_pool" if there[line.number] in ours else "other_app"])
        for place, line in lines
        if line.number in there and line.pool in pools and there[line.number] != pools[line.pool]["id"]
    ]


async def _store(desk: Desk, lines: Sequence[ImportLine], pools: dict[str, Any]) -> list[tuple[int, str]]:
    try:
        rows = await desk.db.fetch(
            statements("operate")["import_numbers"],
            [pools[line.pool]["id"] for line in lines],
            [line.number for line in lines],
            [line.carrier for line in lines],
            [None if line.rent is None else str(line.rent) for line in lines],
            timeout_s=_LONG_S,
        )
    except asyncpg.UniqueViolationError:
        raise Conflict("Another import is adding to the same pool: try again.") from None
    except asyncpg.CheckViolationError:
        raise Conflict("A pool holds at most 100,000 numbers: nothing was imported.") from None
    return [(row["ord"] - 1, row["outcome"]) for row in rows]


async def _close(desk: Desk, app: str, wanted: Closing, state: str) -> list[Shown]:
    owner = await app_id(desk, app)
    if wanted.evacuate:
        await evacuation.check(desk, owner)
    turned = await _turn(desk, app, wanted, state)
    if not wanted.evacuate:
        return turned
    await evacuation.begin(desk, owner, wanted.numbers, wanted.reason)
    return await listed(desk, owner, wanted.numbers)


async def _turn(desk: Desk, app: str, wanted: Numbers, state: str) -> list[Shown]:
    owner = await app_id(desk, app)
    found = await _of_app(desk, owner, wanted.numbers)
    may = {*_FROM[state], state}
    _refuse(
        wanted.numbers,
        {number: f"is {row['state']}" for number, row in found.items() if row["state"] not in may},
    )
    await desk.db.fetch(
        statements("operate")["set_number_state"], owner, wanted.numbers, state, wanted.reason, _FROM[state]
    )
    return await listed(desk, owner, wanted.numbers)


async def _of_app(desk: Desk, owner: int, numbers: Sequence[str]) -> dict[str, Shown]:
    found = {row["number"]: row for row in await listed(desk, owner, numbers)}
    _refuse(numbers, {number: "is not a number of this app" for number in numbers if number not in found})
    return found


async def listed(desk: Desk, owner: int, numbers: Sequence[str]) -> list[Shown]:
    """Return these numbers of an app as they are shown."""
    return shown(await desk.db.fetch(statements("operate")["numbers"], owner, None, None, numbers, timeout_s=_LONG_S))


def _refuse(numbers: Sequence[str], wrong: dict[str, str]) -> None:
    if wrong:
        raise Invalid(
            "Nothing was changed; see errors.",
            errors=tuple(
                FieldError(f"/numbers/{place}", wrong[number])
                for place, number in enumerate(numbers)
                if number in wrong
            ),
        )

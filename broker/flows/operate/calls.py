"""Platform calls that keep failing: list, explain, have them tried again, give them up."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import asyncpg
import orjson

from broker.domain.ids import public_id
from broker.errors import Conflict, NotFound
from broker.flows.operate.desk import Desk, Shown, app_id
from broker.flows.operate.fields import CallFilter, Discard, Retry, read
from broker.store import bindings
from broker.store.crypto import SealBroken
from broker.store.statements import statements

#: Calls that one command has tried again, at most.
_MOST = 10_000


async def every(desk: Desk, app: str, wanted: CallFilter) -> list[Shown]:
    """Return an app's calls that keep failing, those dead longest first.

    Raises:
        NotFound: there is no such app.
    """
    owner = await app_id(desk, app)
    rows = await desk.db.fetch(statements("failing")["calls"], owner, wanted.state, None, None, wanted.limit)
    return [_told(row) for row in rows]


async def explain(desk: Desk, app: str, call: str) -> Shown:
    """Return what was tried when with which codes, what the call blocks, and what a retry or discard would do.

    Raises:
        NotFound: there is no such app, or no such call of it that keeps failing.
        Invalid: that is no call's id.
    """
    owner, (line_id, no) = await app_id(desk, app), _key(call)
    row = await desk.db.fetchrow(statements("failing")["calls"], owner, "all", line_id, no, 1)
    if row is None:
        raise _unknown(call)
    held = await desk.db.fetch(statements("failing")["bindings"], line_id)
    a, b = await _parties(desk, held)
    return {
        **_told(row),
        "mode": row["mode"],
        "line": line_id.hex,
        "line_state": row["line_state"],
        "subscription_id": row["subscription_id"],
        "a": a,
        "b": b,
        "bindings": [f"{public_id(one['pool_id'], one['id'])} ({one['state']})" for one in held],
        "begun_at": row["created_at"],
        "blocks": _blocks(row),
        "retry": _RETRY[row["op"]],
        "discard": _discard(row),
        "tries": orjson.loads(row["tries"]),
    }


async def retry(desk: Desk, app: str, ids: list[str] | None, *, who: str) -> list[Shown]:
    """Have dead calls tried again, all of the app's if none are named; running instances take them at once.

    Raises:
        NotFound: there is no such app, or no such call of it.
        Conflict: one of them is not dead; those before it are tried again.
    """
    owner = await app_id(desk, app)
    if ids is None:
        dead = await every(desk, app, CallFilter(limit=_MOST))
        told = [one["id"] for one in dead if await _retried(desk, owner, one["id"], who)]
    else:
        told = list(dict.fromkeys(ids))
        for call in told:
            if not await _retried(desk, owner, call, who):
                raise await _not_dead(desk, owner, call)
    return [{"id": call, "state": "open"} for call in told]


async def discard(desk: Desk, app: str, wanted: Discard, *, who: str) -> list[Shown]:
    """Give dead calls up without knowing what the platform holds.

    Raises:
        NotFound: there is no such app, or no such call of it.
        Conflict: one of them is not dead; those before it are given up.
    """
    owner = await app_id(desk, app)
    told: list[Shown] = []
    for call in dict.fromkeys(wanted.calls):
        done = await desk.db.fetchrow(statements("failing")["discard"], owner, *_key(call), who, wanted.reason)
        if done is None or done["op"] is None:
            raise await _not_dead(desk, owner, call)
        told.append({"id": call, "state": "discarded", "op": done["op"]})
    return told


async def _retried(desk: Desk, owner: int, call: str, who: str) -> bool:
    row = await desk.db.fetchrow(statements("failing")["retry"], owner, *_key(call), who)
    return bool(row and row["done"])


async def _not_dead(desk: Desk, owner: int, call: str) -> Conflict | NotFound:
    row = await desk.db.fetchrow(statements("failing")["calls"], owner, "all", *_key(call), 1)
    if row is None:
        return _unknown(call)
    return Conflict(f"The call {call} is not dead: it is being tried.")


async def _parties(desk: Desk, held: list[asyncpg.Record]) -> tuple[str | None, str | None]:
    """Return who is concerned, masked; nobody where that cannot be read, which may be what is wrong with the call."""
    keys = [(one["pool_id"], one["id"]) for one in held]
    try:
        found = await bindings.show(desk.db, desk.vault, keys)
    except SealBroken:
        return None, None
    one = next(iter(found.values()), None)
    return (str(one.a), None if one.b is None else str(one.b)) if one is not None else (None, None)


def _key(call: str) -> tuple[UUID, int]:
    read(Retry, {"calls": [call]})
    line, _, no = call.partition(".")
    return UUID(hex=line), int(no)


def _unknown(call: str) -> NotFound:
    return NotFound(f"There is no call {call} that keeps failing.")


def _told(row: asyncpg.Record) -> Shown:
    last: dict[str, Any] = next(
        (one for one in reversed(orjson.loads(row["tries"])) if "verdict" in one), {}
    )  # fmt: skip
    return {
        "id": f"{row['line_id'].hex}.{row['no']}",
        "op": row["op"],
        "state": row["state"],
        "reason": row["reason"] or last.get("verdict"),
        "http": last.get("http"),
        "code": last.get("code"),
        "pool": row["pool"],
        "x": row["x"],
        "extension": row["extension"] or None,
        "attempt": row["attempt"],
        "failures": row["failures"],
        "crashes": row["crashes"],
        "failing_since": row["failing_since"],
        "dead_at": row["dead_at"],
    }


def _blocks(row: asyncpg.Record) -> str:
    what = f"X {row['x']}" if row["x"] else "an X that the platform has picked, unknown to us"
    if row["op"] in {"bind", "unbind"}:
        return f"{what} stays held for these parties and given to nobody in their stead; their bindings do not end."
    return f"The line on {what} stays as it is: it takes no other change, and its release waits for this call."


_RETRY = {
    "bind": "The platform is asked first whether the bind is there; it is adopted, sent again, or another X is chosen.",
    "unbind": "The unbind is sent again; that nothing is there any more counts as done.",
    "modify": "The change is sent again, and the platform asked afterwards which of the two holds.",
    "bind_peer": "The platform is asked first whether B has a Y; only if not, another one is asked for.",
    "unbind_peer": "B's Y is taken away again; that it is gone counts as done.",
}


def _discard(row: asyncpg.Record) -> str:
    until = "for 90 days" if not row["ttl_s"] else "until its lifetime there ends"
    rest = f"X rests for them {until}, and {row['quarantine_s']} s more. The audit reports what it finds there."
    match row["op"]:
        case "bind":
            return f"The binding fails (`discarded`). If it came through, calls through X reach A and B {until}. {rest}"
        case "unbind":
            return f"The binding ends in our books only: calls through X may reach A and B {until}. {rest}"
        case "modify":
            return (
                "The line keeps its old parties and options in our books. Whether the old or the new party is reached"
                " through X is not known; the new one cannot get this X meanwhile. An audit with `--differing repair`"
                " puts the platform right."
            )
        case "bind_peer":
            return (
                "The peer fails (`discarded`). If it came through, B reaches A through a Y as long as the line lives."
            )
        case _:
            return "The peer ends in our books only: B may reach A through its Y as long as the line lives."

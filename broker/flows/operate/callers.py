"""Callers, the order systems of an app, and their API keys."""

from __future__ import annotations

import orjson

from broker.errors import Conflict, FieldError, Invalid, NotFound
from broker.flows.operate.desk import Desk, Shown, app_id, shown
from broker.flows.operate.fields import CallerChange, NewCaller, NewKey
from broker.log import scrubbed
from broker.store.registry import hash_key
from broker.store.statements import statements

_HINT_CHARS = 4


async def every(desk: Desk, app: str) -> list[Shown]:
    """Return the callers of an app, with the number of their live keys."""
    return shown(await desk.db.fetch(statements("operate")["callers"], await app_id(desk, app), None))


async def create(desk: Desk, app: str, new: NewCaller) -> Shown:
    """Create a caller.

    Raises:
        NotFound: there is no such app.
        Conflict: the app has a caller of this name.
    """
    owner = await app_id(desk, app)
    made = await desk.db.fetchrow(
        statements("operate")["add_caller"], owner, new.name, new.weight, new.requests_per_s, new.max_live_bindings
    )
    if made is None:
        raise Conflict(f"The app has a caller '{new.name}' already.")
    return await _show(desk, owner, new.name)


async def change(desk: Desk, app: str, caller: str, wanted: CallerChange) -> Shown:
    """Change a caller's share of the app's call budget, or its limits; what is not given stays.

    Raises:
        NotFound: there is no such app or caller.
    """
    owner = await app_id(desk, app)
    given = orjson.dumps(wanted.model_dump(exclude_unset=True)).decode()
    if await desk.db.fetchrow(statements("operate")["change_caller"], owner, caller, given) is None:
        raise _no_caller(caller)
    return await _show(desk, owner, caller)


async def keys(desk: Desk, app: str, caller: str | None = None) -> list[Shown]:
    """Return keys by their hints, live and revoked.

    Raises:
        NotFound: there is no such app or caller.
    """
    owner = await app_id(desk, app)
    if caller is not None:
        await _caller_id(desk, owner, caller)
    return shown(await desk.db.fetch(statements("operate")["keys"], owner, caller))


async def create_key(desk: Desk, app: str, caller: str, new: NewKey, key: str) -> Shown:
    """Store ``key`` for a caller; the answer is the only place where it is ever shown.

    Raises:
        NotFound: there is no such app or caller.
        Conflict: the caller has two live keys.
    """
    owner = await app_id(desk, app)
    caller_id = await _caller_id(desk, owner, caller)
    hint = key[-_HINT_CHARS:]
    scopes = sorted(set(new.scopes))
    if len(scopes) != len(new.scopes):
        raise Invalid("Some fields are wrong; see errors.", errors=(FieldError("/scopes", "names a scope twice"),))
    made = await desk.db.fetchrow(statements("operate")["add_key"], hash_key(key), caller_id, scopes, hint)
    if made is None:
        raise Conflict(f"The caller '{caller}' has two live keys: revoke one of them first.")
    return {"caller": caller, "key": key, "hint": hint, "scopes": scopes, "created_at": made["created_at"]}


async def rotate_key(desk: Desk, app: str, caller: str, key: str) -> Shown:
    """Store ``key`` beside the caller's only live one, with its scopes; ``replaces`` is the hint to revoke later.

    Raises:
        NotFound: there is no such app or caller.
        Conflict: the caller has no live key, or two.
    """
    caller_id = await _caller_id(desk, await app_id(desk, app), caller)
    live = await desk.db.fetch(statements("operate")["live_keys"], caller_id)
    if not live:
        raise Conflict(f"The caller '{caller}' has no live key: create one.")
    made = await create_key(desk, app, caller, NewKey(scopes=live[0]["scopes"]), key)
    return {**made, "replaces": live[0]["hint"]}


async def revoke_key(desk: Desk, app: str, caller: str, hint: str) -> Shown:
    """Revoke the live key with this hint; instances stop taking it within about a second.

    Raises:
        NotFound: there is no such app, caller, or live key.
    """
    owner = await app_id(desk, app)
    caller_id = await _caller_id(desk, owner, caller)
    if not await desk.db.fetch(statements("operate")["revoke_key"], caller_id, hint):
        raise NotFound(f"The caller '{caller}' has no live key that ends in '{scrubbed(hint)}'.")
    return {"caller": caller, "hint": hint, "revoked": True}


async def _show(desk: Desk, owner: int, caller: str) -> Shown:
    row = await desk.db.fetchrow(statements("operate")["callers"], owner, caller)
    if row is None:
        raise _no_caller(caller)
    return dict(row)


async def _caller_id(desk: Desk, owner: int, caller: str) -> int:
    row = await desk.db.fetchrow(statements("operate")["caller_id"], owner, caller)
    if row is None:
        raise _no_caller(caller)
    return int(row["id"])


def _no_caller(caller: str) -> NotFound:
    return NotFound(f"The app has no caller '{scrubbed(caller)}'.")

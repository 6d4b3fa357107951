"""Callers, the order systems of an app, and their API keys."""

from __future__ import annotations

from broker.errors import Conflict, FieldError, Invalid, NotFound
from broker.flows.operate.desk import Desk, Shown, app_id, shown
from broker.flows.operate.fields import NewCaller, NewKey
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
    if await desk.db.fetchrow(statements("operate")["add_caller"], owner, new.name, new.weight) is None:
        raise Conflict(f"The app has a caller '{new.name}' already.")
    return await _show(desk, owner, new.name)


async def set_weight(desk: Desk, app: str, caller: str, weight: int) -> Shown:
    """Change a caller's share of the app's call budget.

    Raises:
        NotFound: there is no such app or caller.
    """
    owner = await app_id(desk, app)
    if await desk.db.fetchrow(statements("operate")["set_weight"], owner, caller, weight) is None:
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


async def revoke_key(desk: Desk, app: str, caller: str, hint: str) -> Shown:
    """Revoke the live key with this hint; instances stop taking it within about a second.

    Raises:
        NotFound: there is no such app, caller, or live key.
    """
    owner = await app_id(desk, app)
    caller_id = await _caller_id(desk, owner, caller)
    if not await desk.db.fetch(statements("operate")["revoke_key"], caller_id, hint):
        raise NotFound(f"The caller '{caller}' has no live key that ends in '{hint}'.")
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
    return NotFound(f"The app has no caller '{caller}'.")

"""Asking for an audit, reading what it found, and saying what is to be made of it."""

from __future__ import annotations

from broker.errors import Conflict, FieldError, Invalid
from broker.flows.operate.desk import Desk, Shown, app_id, shown
from broker.flows.operate.fields import DriftPolicy
from broker.store import drift
from broker.store.statements import statements

_MOST_FINDINGS = 1000
_RUNS = 10


async def begin(desk: Desk, app: str) -> Shown:
    """Begin a run, for any instance to take; return the newest one.

    Raises:
        NotFound: there is no such app.
        Conflict: an import is under way.
        Invalid: the platform holds nothing for this app.
    """
    owner = await app_id(desk, app)
    asked = await desk.db.fetchrow(statements("drift")["mode_of"], owner)
    if asked is not None and asked["mode"] == "x":
        raise Invalid("In mode x the platform holds no bindings: there is nothing to compare.")
    await drift.begin(desk.db, owner, "asked")
    run = await newest(desk, app)
    if run["why"] == "import" and run["state"] == "open":
        raise Conflict("Bindings of this app are being imported: finish that first.")
    return run


async def newest(desk: Desk, app: str) -> Shown:
    """Return the newest run."""
    runs = await desk.db.fetch(statements("drift")["runs"], await app_id(desk, app), 1)
    return dict(runs[0]) if runs else {}


async def report(desk: Desk, app: str, *, everything: bool) -> Shown:
    """Return the policy, the latest runs, and what is open (or ``everything`` that is kept).

    Raises:
        NotFound: there is no such app.
    """
    owner, sql = await app_id(desk, app), statements("drift")
    policy = await desk.db.fetchrow(sql["policy"], owner)
    return {
        "app": app,
        "policy": dict(policy) if policy else {},
        "runs": shown(await desk.db.fetch(sql["runs"], owner, _RUNS)),
        "findings": shown(await desk.db.fetch(sql["findings"], owner, everything, _MOST_FINDINGS)),
    }


async def set_policy(desk: Desk, app: str, given: DriftPolicy) -> Shown:
    """Say what is to be made of differences; what is not given stays.

    Raises:
        NotFound: there is no such app.
        Invalid: it has no such caller.
    """
    owner, sql = await app_id(desk, app), statements("drift")
    if given.caller is not None and await desk.db.fetchrow(sql["caller_of"], owner, given.caller) is None:
        raise Invalid("See errors.", errors=(FieldError("/caller", "is not a caller of this app"),))
    await desk.db.fetch(
        sql["set_policy"], owner, given.unknown, given.absent, given.differing, given.every_s, given.caller
    )
    policy = await desk.db.fetchrow(sql["policy"], owner)
    return dict(policy) if policy else {}

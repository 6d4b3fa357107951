"""Into shadow, out of it, and how predictions compare with what is bound."""

from __future__ import annotations

from broker.domain import shadow as rules
from broker.errors import Conflict, Invalid
from broker.flows.operate.desk import Desk, Shown, no_app
from broker.store import shadow as store

_REFUSED, _CALL = "refused.", "call."


async def switch(desk: Desk, app: str, *, shadow: bool) -> Shown:
    """Suspend the app, or once it has been for long enough make it the other kind; ask again until ``done``.

    Raises:
        NotFound: there is no such app.
        Conflict: it is of that kind already.
        Invalid: its mode is not one in which predictions mean something.
    """
    switched = await store.switch(desk.db, app, shadow=shadow, settle_s=rules.SETTLE_S)
    match switched.outcome:
        case "none":
            raise no_app(app)
        case "already":
            raise Conflict(f"The app '{app}' is {'in shadow' if shadow else 'not in shadow'} already.")
        case "mode":
            raise Invalid("Only apps of the modes axb, ax and axe can be in shadow.")
    done = switched.outcome == "done"
    return {
        "app": app,
        "done": done,
        "ended": switched.lines if done else 0,
        "open_calls": switched.lines if switched.outcome == "calls" else 0,
        "ready_in_s": round(switched.wait_s, 1),
    }


async def report(desk: Desk, app: str) -> Shown:
    """Return how predictions compare.

    Raises:
        NotFound: there is no such app.
        Conflict: it is not in shadow.
    """
    own = await store.state(desk.db, app)
    if own is None:
        raise no_app(app)
    if not own.shadow:
        raise Conflict(f"The app '{app}' is not in shadow.")
    compared, counted, followed_at = await store.report(desk.db, own.app_id)
    return {
        "app": app,
        "shadow": True,
        "since": own.changed_at,
        "followed_at": followed_at,
        **compared,
        "refused": _named(counted, _REFUSED),
        "calls": _named(counted, _CALL),
    }


def _named(counted: dict[str, int] | object, prefix: str) -> dict[str, int]:
    items = counted.items() if isinstance(counted, dict) else ()
    return {what.removeprefix(prefix): many for what, many in items if what.startswith(prefix)}

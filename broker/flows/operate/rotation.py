"""Rotating an app's secret: stage the new one, prove it, promote it, drop the old one.

::

    current ──stage──► current + staged ──promote──► current + previous ──drop──► current
                              └───────────────drop──────────────────────────────────┘

Calls to the platform are signed with the current one. A push may be signed with either of the two.
"""

from __future__ import annotations

from broker.errors import Conflict
from broker.flows.operate import apps
from broker.flows.operate.desk import Desk, Shown, app_id, sealed
from broker.store.statements import statements


async def stage(desk: Desk, app: str, secret: str) -> Shown:
    """Keep ``secret`` beside the current one, in place of one staged before.

    Raises:
        NotFound: there is no such app.
        Conflict: the previous secret has not been dropped yet.
    """
    await app_id(desk, app)
    if await desk.db.fetchrow(statements("operate")["stage_secret"], app, sealed(desk, app, secret)) is None:
        raise Conflict(f"The app '{app}' still has its previous secret: drop it first.")
    return await apps.show(desk, app)


async def promote(desk: Desk, app: str) -> Shown:
    """Make the staged secret the current one and keep the current one as the previous.

    Raises:
        NotFound: there is no such app.
        Conflict: no secret is staged.
    """
    await app_id(desk, app)
    if await desk.db.fetchrow(statements("operate")["promote_secret"], app) is None:
        raise Conflict(f"The app '{app}' has no staged secret.")
    return await apps.show(desk, app)


async def drop(desk: Desk, app: str) -> Shown:
    """Forget the second secret, staged or previous.

    Raises:
        NotFound: there is no such app.
        Conflict: there is no second secret.
    """
    await app_id(desk, app)
    if await desk.db.fetchrow(statements("operate")["drop_secret"], app) is None:
        raise Conflict(f"The app '{app}' has no second secret.")
    return await apps.show(desk, app)

"""Taking over the calls of instances that died, froze or lost the database."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from broker.clock import boottime
from broker.domain.options import CallOptions
from broker.domain.phone import PhoneNumber
from broker.flows.calls import Dispatch, PlatformCall
from broker.store import calls
from broker.store.calls import ClaimedCall
from broker.store.crypto import Vault
from broker.store.database import Database
from broker.store.registry import Registry
from broker.store.wanted import read_wanted
from broker.workers.failing import crashed

log = structlog.get_logger()

#: Calls taken over at once.
SLICE = 200


async def rescue(
    db: Database, vault: Vault, dispatch: Dispatch, registry: Callable[[], Registry], lease_s: float
) -> int:
    """Take one slice of ownerless calls over; return how many: when it is a whole slice there may be more."""
    asked_at = boottime()
    claimed = await calls.claim(db, limit=SLICE, lease_s=lease_s)
    for found in claimed:
        if found.app_id not in registry().apps:
            log.error("call_of_unknown_app", app_id=found.app_id, line=str(found.key.line_id))
            continue
        try:
            call = _call(found, vault, lease_until=asked_at + lease_s)
        except Exception as error:
            # Whatever is wrong with this one, the others of the slice are carried out.
            log.exception("call_unreadable", line=str(found.key.line_id))
            await crashed(db, found.key, "read", error, pause_s=lease_s)
        else:
            dispatch.start(call)
    if orphans := sum(found.key.token > 1 for found in claimed):
        log.info("calls_rescued", calls=orphans)
    return len(claimed)


def _call(found: ClaimedCall, vault: Vault, *, lease_until: float) -> PlatformCall:
    pool_id, line_id = found.key.pool_id, found.key.line_id

    def party(role: str, sealed: bytes | None) -> PhoneNumber | None:
        return PhoneNumber(vault.open("line", role, pool_id, line_id, sealed)) if sealed else None

    return PlatformCall(
        key=found.key,
        op=found.op,
        app_id=found.app_id,
        caller_id=found.caller_id,
        x_id=found.x_id,
        x=found.number or "",
        a=PhoneNumber(vault.open("line", "a", pool_id, line_id, found.a_sealed)),
        b=party("b", found.b_sealed),
        a_key=found.a_key,
        b_key=found.b_key,
        direction=found.direction,
        ttl_s=found.ttl_s,
        extension=found.extension,
        callback=party("callback", found.callback_sealed),
        options=CallOptions.from_text(found.options),
        change=read_wanted(vault, pool_id, line_id, found.wanted) if found.wanted is not None else None,
        lease_until=lease_until,
        urgency=boottime(),
        subscription_id=found.subscription_id,
        attempt=found.attempt,
        # Its owner may have sent it in the moment it died; the sweep's own calls have had none before.
        maybe_sent=found.key.token > 1 and not _certainly_unsent(found),
        last_unknown_at=boottime(),
        unwanted=found.op != "unbind" and found.line_state == "releasing",
    )


def _certainly_unsent(found: ClaimedCall) -> bool:
    """Tell of a bind without an X, which is written down before it is sent, that it has not been."""
    return found.op == "bind" and found.number is None and found.attempt == 1

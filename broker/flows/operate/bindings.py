"""Bindings as an operator sees them: list, search, the whole story, release by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from broker.domain.ids import parse_public_id, public_id
from broker.domain.phone import PhoneNumber
from broker.errors import FieldError, Invalid, NotFound
from broker.flows.operate.desk import Desk, Shown, app_id, shown
from broker.flows.operate.fields import BindingFilter
from broker.flows.operate.story import story
from broker.store import bindings, listing
from broker.store.bindings import Binding, ReleaseAsk
from broker.store.listing import Place, Wanted
from broker.store.statements import statements

#: Looks into an app's bindings before a search gives up; each is bounded by itself.
_LOOKS = 200
_PAGE = 200
_SETTLE_S = 15.0
_LOOK_S = 0.2

Key = tuple[int, UUID]


async def every(desk: Desk, app: str, wanted: BindingFilter) -> list[Shown]:
    """Return bindings of an app, newest first; of what has ended a party's search finds the last on each X.

    Raises:
        NotFound: there is no such app.
    """
    owner = await app_id(desk, app)
    pools = {row["id"]: row["name"] for row in await desk.db.fetch(statements("operate")["pool_ids"], owner)}
    x = await _place(desk, owner, wanted.x) if wanted.x is not None else None
    if not pools or (wanted.x is not None and x is None):
        return []
    asked = Wanted(
        app_id=owner, pools=tuple(pools), limit=_PAGE, order_id=wanted.order_id, x=x, state=wanted.state,
        party_key=desk.vault.party_key(wanted.party) if wanted.party is not None else None,
    )  # fmt: skip
    found: list[Binding] = []
    before = asked.before
    for _ in range(_LOOKS):
        page = await listing.find(desk.db, replace(asked, before=before))
        rows = await bindings.show(desk.db, desk.vault, page.rows)
        found += [rows[key] for key in page.rows if key in rows and _fits(rows[key], wanted, owner)]
        if page.next_before is None or len(found) >= wanted.limit:
            break
        before = page.next_before
    return [_shown(binding, pools[binding.pool_id]) for binding in found[: wanted.limit]]


async def show(desk: Desk, binding: str, *, reveal_to: str | None = None) -> Shown:
    """Return a binding of any app with its whole story. ``reveal_to``: who sees the real numbers; noted first.

    Raises:
        NotFound: there is no such binding.
    """
    pool_id, row_id = _key(binding)
    sql = statements("story")
    row = await desk.db.fetchrow(sql["binding"], pool_id, row_id)
    if row is None:
        raise _unknown(binding)
    if reveal_to is not None:
        await desk.db.fetch(sql["audit"], reveal_to, "reveal", [pool_id], [row_id])
    lines = shown(await desk.db.fetch(sql["lines"], pool_id, row["line_id"], row["created_at"]))
    ids = [line["id"] for line in lines]
    calls = shown(await desk.db.fetch(sql["calls"], pool_id, ids))
    parties = [key for line in lines for key in (line["a_key"], line["b_key"])]
    rests = shown(await desk.db.fetch(sql["rests"], pool_id, parties, ids))
    audited = shown(await desk.db.fetch(sql["audited"], pool_id, row_id))
    known = (await bindings.show(desk.db, desk.vault, [(pool_id, row_id)])).get((pool_id, row_id))
    if known is None:
        raise _unknown(binding)
    line = next(line for line in lines if line["current"])
    return {
        "id": binding,
        "app": row["app"],
        "mode": row["mode"],
        "caller": row["caller"],
        "order_id": row["order_id"],
        "state": row["state"],
        "reason": row["reason"],
        "pool": row["pool"],
        "x": known.x,
        "a": _told(known.a, reveal=reveal_to is not None),
        "b": _told(known.b, reveal=reveal_to is not None),
        "direction": known.direction,
        "ttl_s": row["ttl_s"],
        "created_at": row["created_at"],
        "expires_at": row["expires_at"],
        "ended_at": row["ended_at"],
        "platform_binding_id": known.subscription_id,
        "version": row["version"],
        "options": line["options"],
        "change_failed": line["change_failed"],
        "bindings_on_line": line["bindings"],
        "story": story(dict(row), lines, calls, rests, audited),
    }


async def release(desk: Desk, ids: Sequence[str], *, who: str) -> list[Shown]:
    """Release bindings by hand; running instances send the unbinds, which is waited for some seconds.

    Raises:
        NotFound: one of them does not exist; then nothing was done.
    """
    keys = {binding: _key(binding) for binding in ids}
    found = await bindings.show(desk.db, desk.vault, list(keys.values()))
    for binding, key in keys.items():
        if key not in found:
            raise _unknown(binding)
    pools, rows = [pool for pool, _ in keys.values()], [row for _, row in keys.values()]
    await desk.db.fetch(statements("story")["audit"], who, "release", pools, rows)
    # Without a lease of ours: whichever instance looks first takes the calls over.
    asks = [ReleaseAsk(pool_id, row_id, found[pool_id, row_id].app_id) for pool_id, row_id in keys.values()]
    await bindings.release(desk.db, asks, reason="released", lease_s=0.0)
    found = await _settled(desk, list(keys.values()))
    return [{"id": binding, "state": found[key].state, "reason": found[key].reason} for binding, key in keys.items()]


async def _settled(desk: Desk, keys: Sequence[Key]) -> dict[Key, Binding]:
    loop = asyncio.get_running_loop()
    give_up = loop.time() + _SETTLE_S
    while True:
        found = await bindings.show(desk.db, desk.vault, keys)
        if all(binding.state in {"released", "failed"} for binding in found.values()) or loop.time() > give_up:
            return found
        await asyncio.sleep(_LOOK_S)


async def _place(desk: Desk, owner: int, x: str) -> Place | None:
    row = await desk.db.fetchrow(statements("story")["place_of_x"], owner, x)
    return Place(row["pool_id"], row["x_id"]) if row is not None else None


def _fits(binding: Binding, wanted: BindingFilter, owner: int) -> bool:
    """Apply every filter to what was read: an index may know some of them only, and a party's key may collide."""
    return (
        binding.app_id == owner
        and wanted.order_id in {None, binding.order_id}
        and wanted.x in {None, binding.x}
        and wanted.state in {None, binding.state}
        and (wanted.party is None or wanted.party in binding.parties)
    )


def _shown(binding: Binding, pool: str) -> Shown:
    return {
        "id": public_id(binding.pool_id, binding.id),
        "state": binding.state,
        "reason": binding.reason,
        "x": binding.x,
        "a": str(binding.a),
        "b": str(binding.b),
        "pool": pool,
        "order_id": binding.order_id,
        "created_at": binding.created_at,
        "expires_at": binding.expires_at,
        "ended_at": binding.ended_at,
    }


def _key(binding: str) -> Key:
    key = parse_public_id(binding)
    if key is None:
        raise Invalid(
            "Some fields are wrong; see errors.", errors=(FieldError("/id", "must be bnd_ and 32 characters"),)
        )
    return key


def _unknown(binding: str) -> NotFound:
    return NotFound(f"There is no binding {binding}.", code="binding_not_found")


def _told(party: PhoneNumber | None, *, reveal: bool) -> str | None:
    if party is None:
        return None
    return party.reveal() if reveal else str(party)

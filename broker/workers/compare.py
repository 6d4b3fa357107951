"""Comparing one place: both sides are read, every difference is read again, and the app's policy is carried out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from uuid import UUID

import structlog

from broker.domain.drift import Action, Difference, Kind, Ours, Theirs, action, compare, stands
from broker.domain.ids import new_id
from broker.domain.phone import is_e164
from broker.platform.protocol import PlatformLine
from broker.store import drift as store
from broker.store import shadow
from broker.store.drift import Adopted, Place
from broker.workers.looking import Look, mark_of
from broker.workers.peer_drift import compare_peers

log = structlog.get_logger()

#: A bar lasts until the second run from now, and at least so long.
_SHORTEST_BAR_S = 3600.0


async def compare_place(look: Look, place: Place) -> list[Difference]:
    """Compare one place and act on what differs; return it.

    Raises:
        Stopped: the platform does not answer.
    """
    ours = await store.ours(look.db, look.app.mode, place)
    everything = await look.looker.everything(place)
    lines = [line for line in everything if not line.y]
    look.tally.compared += len(lines)
    theirs = [look.looker.theirs(line) for line in lines]
    found = [
        one for first in await _strange(look, compare(ours, theirs)) if (one := await _again(look, place, first, ours))
    ]
    if found:
        look.tally.found += len(found)
        await _act(look, place, found, {line.subscription_id: line for line in lines})
    if look.app.mode == "axyb":
        lost = {one.subscription_id for one in found}
        held = [line for line in ours if line.settled and line.subscription_id not in lost]
        found += await compare_peers(look, place, held, [line for line in everything if line.y])
    return found


async def follow_place(look: Look, place: Place) -> None:
    """Write down what another system has bound on a place of an app in shadow: nothing is compared, nothing mended.

    Raises:
        Stopped: the platform does not answer.
    """
    theirs = [look.looker.theirs(line) for line in await look.looker.shown(place)]
    look.tally.compared += len(theirs)
    await shadow.follow(look.db, look.app.id, place, theirs)


async def _strange(look: Look, found: Sequence[Difference]) -> list[Difference]:
    """Leave out what is a line of ours in another pool: the platform has picked its X."""
    marked = {
        one.theirs.mark: one.subscription_id for one in found if one.ours is None and one.theirs and one.theirs.mark
    }
    known = await store.known_elsewhere(look.db, look.app.id, marked)
    return [one for one in found if one.ours is not None or one.theirs is None or one.theirs.mark not in known]


async def _again(look: Look, place: Place, first: Difference, seen: Sequence[Ours]) -> Difference | None:
    """Look at a difference again, on our side before and after the platform's: it must have stood all the while.

    A binding that is made while we look is in one of our two views, one that is released is missing on the platform's
    second one, and the number of its newest call tells a line that was changed in between.
    """
    if not stands(first, _only(seen, first), _theirs(first)):
        return None
    before = await store.ours(look.db, look.app.mode, place)
    lines = await look.looker.lookup(first.subscription_id)
    theirs = [look.looker.theirs(line) for line in lines if line.x in {place.number, ""}]
    after = await store.ours(look.db, look.app.mode, place)
    if stands(first, _only(before, first), theirs) and stands(first, _only(after, first), theirs):
        return first
    return None


def _only(ours: Sequence[Ours], first: Difference) -> list[Ours]:
    """Return the lines that a difference may be about: its own, and those that something is under way with."""
    return [line for line in ours if line.subscription_id == first.subscription_id or not line.settled]


def _theirs(first: Difference) -> list[Theirs]:
    return [first.theirs] if first.theirs is not None else []


async def _act(look: Look, place: Place, found: Sequence[Difference], shown: dict[str, PlatformLine]) -> None:
    actions = [action(one, look.run.policy, look.app.mode) for one in found]
    await store.note(look.db, look.app.id, look.run, place, found, [one.value for one in actions])
    for one, what in zip(found, actions, strict=True):
        # A subscription id is no phone number; it is what an operator finds the binding by.
        log.error("drift_found", app=look.app.name, kind=one.kind.value, pool=place.pool_id, x_id=place.x_id,
                  subscription=one.subscription_id, action=what.value)  # fmt: skip
        if one.kind is Kind.UNKNOWN_HERE and one.theirs is not None:
            await _stranger(look, place, one, one.theirs, what, shown)
    lines: dict[UUID, list[Difference]] = defaultdict(list)
    for one, what in zip(found, actions, strict=True):
        if one.ours is not None and what in {Action.REPAIR, Action.REBIND}:
            lines[one.ours.line_id].append(one)
        elif one.ours is not None and what is Action.END:
            await store.end_lost(look.db, place.pool_id, one.ours)
    for together in lines.values():
        if (line := together[0].ours) is not None:
            kinds = [one.kind.value for one in together]
            await store.repair(look.db, place.pool_id, line.line_id, line.subscription_id, kinds, calls=line.calls)


async def _stranger(
    look: Look, place: Place, one: Difference, theirs: Theirs, what: Action, shown: dict[str, PlatformLine]
) -> None:
    """Deal with a binding that our books do not know."""
    if what is Action.UNBIND:
        done = await look.looker.unbind(one.subscription_id)
        await store.settle_action(look.db, look.app.id, one, "unbound" if done else "failed", resolved=done)
        return
    if what is Action.ADOPT:
        caller = await store.first_caller(look.db, look.app.id)
        line = shown.get(one.subscription_id)
        if caller is not None and line is not None:
            done = (await adopt(look, caller, [(place, line)])) == 1
            await store.settle_action(look.db, look.app.id, one, "adopted" if done else "failed", resolved=done)
            if done:
                return
    if what is not Action.REPORT:
        bar_s = max(_SHORTEST_BAR_S, 2.0 * look.run.every_s)
        await store.bar(look.db, place, theirs.a_key, theirs.b_key, bar_s=bar_s)


async def adopt(look: Look, caller_id: int, found: Sequence[tuple[Place, PlatformLine]]) -> int:
    """Enter bindings of the platform into our books; return how many went in. One that names no phone is left out."""
    items = [
        _adopted(look, place, line)
        for place, line in found
        if is_e164(line.a) and (not line.b or is_e164(line.b)) and line.extension.isdigit() is bool(line.extension)
    ]
    done = sum(await store.adopt(look.db, look.app.id, caller_id, items)) if items else 0
    look.tally.adopted += done
    return done


def _extension(place: Place, line: PlatformLine) -> int | None:
    """Return what a line has of its X: an extension, the whole of it (0), or a seat beside others (None)."""
    if line.extension:
        return int(line.extension)
    return place.extension if line.b else 0


def _adopted(look: Look, place: Place, line: PlatformLine) -> Adopted:
    line_id, key = new_id(), look.vault.party_key
    # Where a query does not tell until when, our books end nothing by themselves.
    ttl_s = line.ttl_s if look.app.mode in {"axb", "axyb"} else 0
    seal = look.vault.seal
    return Adopted(
        place=place,
        extension=_extension(place, line),
        line_id=line_id,
        binding_id=new_id(),
        a_key=key(line.a),
        b_key=key(line.b) if line.b else None,
        a_sealed=seal("line", "a", place.pool_id, line_id, line.a),
        b_sealed=seal("line", "b", place.pool_id, line_id, line.b) if line.b else None,
        direction=line.direction.value if line.direction is not None else "both",
        ttl_s=ttl_s,
        subscription_id=line.subscription_id,
        # The words of whoever bound it; our own mark would be another line's.
        user_data=line.token if line.token and mark_of(line.token) is None else None,
    )

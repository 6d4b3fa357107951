"""Comparing the Y numbers of AXYB, as far as the platform shows them, and acting by the app's policy."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from broker.domain.drift import Action, Difference, Kind, Ours, Theirs
from broker.domain.peer_drift import Compared, PeerDifference, TheirPeer, compare
from broker.platform.protocol import PlatformLine
from broker.store import drift as store
from broker.store.drift import Place
from broker.workers.looking import Look, mark_of

log = structlog.get_logger()


async def compare_peers(
    look: Look, place: Place, lines: Sequence[Ours], shown: Sequence[PlatformLine]
) -> list[Difference]:
    """Compare the peers of these lines with what was shown of them, look again at what differs, and act.

    Raises:
        Stopped: the platform does not answer.
    """
    ours = await store.peers(look.db, [line.line_id for line in lines])
    noted: list[Difference] = []
    for line in lines:
        theirs = [one for one in shown if one.subscription_id == line.subscription_id]
        first = compare(ours[line.line_id], _theirs(look, line, theirs))
        look.tally.peers += first.judged
        look.tally.unverifiable += first.unverifiable
        if first.found:
            again = await _again(look, line)
            stood = [one for one in first.found if all(one in looked.found for looked in again)]
            noted += [await _act(look, place, line, one) for one in stood if await _unchanged(look, place, line)]
    look.tally.found += len(noted)
    return noted


async def _again(look: Look, line: Ours) -> tuple[Compared, Compared]:
    """Look once more at the platform, and at our side before and after that."""
    before = await store.peers(look.db, [line.line_id])
    theirs = _theirs(look, line, await look.looker.lookup(line.subscription_id, peers=True))
    after = await store.peers(look.db, [line.line_id])
    return compare(before[line.line_id], theirs), compare(after[line.line_id], theirs)


async def _unchanged(look: Look, place: Place, line: Ours) -> bool:
    """Tell whether no call of the line has begun since the first look: it may be what made the difference."""
    now = await store.ours(look.db, look.app.mode, place)
    return any(one.line_id == line.line_id and one.settled and one.calls == line.calls for one in now)


def _theirs(look: Look, line: Ours, shown: Sequence[PlatformLine]) -> list[TheirPeer]:
    return [TheirPeer(look.vault.party_key(one.b), one.y, mark_of(one.token) == line.line_id) for one in shown]


async def _act(look: Look, place: Place, line: Ours, one: PeerDifference) -> Difference:
    """Write a difference down, and end what by policy is to end: there is no telling the platform which Y to give."""
    what = Action.REPORT
    if one.kind is Kind.PEER_ABSENT_THERE and look.run.policy.absent != "report":
        what = Action.END
    elif one.kind is Kind.PEER_UNKNOWN_HERE and look.run.policy.unknown == "unbind":
        what = Action.UNBIND
    theirs = Theirs(f"{line.subscription_id}#{one.y}", line.a_key, one.b_key, mark=line.line_id)
    noted = Difference(one.kind, line, theirs)
    await store.note(look.db, look.app.id, look.run, place, [noted], [what.value])
    log.error("drift_found", app=look.app.name, kind=one.kind.value, pool=place.pool_id, x_id=place.x_id,
              subscription=line.subscription_id, action=what.value)  # fmt: skip
    if what is Action.END and one.peer is not None:
        await store.end_lost_peer(look.db, place.pool_id, line, one.peer)
    if what is Action.UNBIND:
        done = await look.looker.unbind_peer(line.subscription_id, one.y)
        await store.settle_action(look.db, look.app.id, noted, "unbound" if done else "failed", resolved=done)
    return noted

"""The peers of one AX (AXYB) against what the platform shows of them: five at most, whichever those are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from broker.domain.drift import Kind

#: Relations that a query shows of an AX, at most (contract 5.2): a list of so many may lack others.
SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class OurPeer:
    """A B that our books give a Y. ``active``: nothing is under way with it; ``stays``: nor is its end near."""

    id: UUID
    b_key: int
    y: str
    active: bool
    stays: bool


@dataclass(frozen=True, slots=True)
class TheirPeer:
    """A relation as the platform shows it; ``ours``: a call of ours for this AX has made it."""

    b_key: int
    y: str
    ours: bool


@dataclass(frozen=True, slots=True)
class PeerDifference:
    """One difference; ``peer`` is our side of it, where there is one."""

    kind: Kind
    b_key: int
    y: str
    peer: UUID | None = None


@dataclass(frozen=True, slots=True)
class Compared:
    """What came of a comparison: how many peers it could judge, and how many not, because the list is full."""

    found: tuple[PeerDifference, ...]
    judged: int
    unverifiable: int


def compare(ours: Iterable[OurPeer], theirs: Iterable[TheirPeer]) -> Compared:
    """Compare the peers of one AX.

    A relation that our books do not know is no difference unless we have made it: the platform gives a Y to
    whoever dials X. While anything is under way with a peer, nothing is said of any.
    """
    known = {peer.b_key: peer for peer in ours}
    shown = {one.b_key: one for one in theirs}
    if not all(peer.active for peer in known.values()):
        return Compared((), 0, 0)
    found: list[PeerDifference] = []
    judged = unverifiable = 0
    for peer in known.values():
        one = shown.get(peer.b_key)
        if one is None and len(shown) >= SHOWN:
            unverifiable += 1
            continue
        judged += 1
        if one is None and peer.stays:
            found.append(PeerDifference(Kind.PEER_ABSENT_THERE, peer.b_key, peer.y, peer.id))
        elif one is not None and one.y != peer.y:
            found.append(PeerDifference(Kind.PEER_DIFFERS, peer.b_key, peer.y, peer.id))
    found += [
        PeerDifference(Kind.PEER_UNKNOWN_HERE, one.b_key, one.y)
        for one in shown.values()
        if one.ours and one.b_key not in known
    ]
    return Compared(tuple(found), judged, unverifiable)

"""Whom a call may reach, and whom it must: judged from what the broker has answered, never from what it holds.

Only certain knowledge accuses. While a bind or a release is under way, and about the moment of an expiry, a call may
reach the counterpart or nobody; but never somebody else.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from enum import StrEnum

from broker.demo.city import Share


class Verdict(StrEnum):
    """What became of a call."""

    RIGHT = "right"  # reached whom it should
    NOBODY = "nobody"  # reached nobody, as it should
    MISSED = "missed"  # should have reached its counterpart
    WRONG = "wrong"  # reached somebody it must not reach, or showed a number that is not X


@dataclass(slots=True)
class _Held:
    """What is known of one share: ``x`` None = its bind is under way. Times are city seconds."""

    share: Share
    x: str | None = None
    surely_until_s: float = 0.0
    perhaps_until_s: float = float("inf")
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Reach:
    """Whom a caller may reach at a moment, and whom certainly."""

    may: frozenset[str]
    must: frozenset[str]


class Truth:
    """Follows every share of the hour.

    ``slack_s``: how far city time and the platform's clock may be apart. ``sweep_s``: how long the broker may take to
    end a share that runs out on a line which the platform was told to keep longer, for another share of the pair.
    """

    def __init__(self, slack_s: float, sweep_s: float) -> None:
        self._slack_s = slack_s
        self._sweep_s = sweep_s
        self._held: dict[str, dict[int, _Held]] = defaultdict(dict)

    def asked(self, share: Share) -> None:
        """A bind was sent: from now on the two may reach each other through whatever X it gets."""
        held = _Held(share)
        self._held[share.a][share.no] = held
        self._held[share.b][share.no] = held

    def bound(self, share: Share, x: str, asked_s: float, answered_s: float) -> None:
        """The bind was confirmed, at some moment between question and answer; its lifetime counts from there."""
        held = self._held[share.a][share.no]
        held.x = x
        held.surely_until_s = asked_s + share.ttl_s - self._slack_s
        held.perhaps_until_s = answered_s + share.ttl_s + self._slack_s
        beside = [one for one in self._held[share.a].values() if one.x == x and share.b in {one.share.a, one.share.b}]
        for one in beside if len(beside) > 1 else ():
            if not one.shared:
                one.shared = True
                one.perhaps_until_s += self._sweep_s

    def ending(self, share: Share) -> None:
        """A release was sent."""
        self._held[share.a][share.no].surely_until_s = float("-inf")

    def ended(self, share: Share) -> None:
        """Certainly over: released, or never bound."""
        for party in (share.a, share.b):
            del self._held[party][share.no]

    def reach(self, caller: str, x: str, now_s: float) -> Reach:
        """Return whom ``caller`` reaches by dialling ``x`` now."""
        may, must = set(), set()
        for held in self._held.get(caller, {}).values():
            other = held.share.b if caller == held.share.a else held.share.a
            if held.x in {None, x} and now_s < held.perhaps_until_s:
                may.add(other)
            if held.x == x and now_s < held.surely_until_s:
                must.add(other)
        return Reach(frozenset(may), frozenset(must))


def judge(x: str, connected: str | None, shown: str | None, before: Reach, after: Reach) -> Verdict:
    """Judge a call by what was known ``before`` it was placed and ``after`` it was answered."""
    if connected is None:
        return Verdict.MISSED if before.must & after.must else Verdict.NOBODY
    if connected in before.may | after.may and shown == x:
        return Verdict.RIGHT
    return Verdict.WRONG

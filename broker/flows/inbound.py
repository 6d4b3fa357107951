"""Requests a second of callers and apps: exact across instances within the slice that each has taken ahead.

Who has no limit passes without a look at the database, and who is far from it mostly, too: an instance takes a slice of
the quota ahead, as large as was used lately. Near the limit slices shrink to what is asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from broker.domain.quota import SLICE_S, Left, Quota
from broker.flows.batching import Batcher
from broker.store.inbound import Take, Taken
from broker.store.registry import Key

#: Owners that are remembered at most; beyond that all of them are asked about anew.
_MOST_OWNERS = 10_000


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a limited caller stands; ``wait_s`` is set if it must wait."""

    left: tuple[Left, ...]
    wait_s: float | None = None
    whose: str = ""


@dataclass(slots=True)
class _Share:
    """What this instance has of a quota: ``tokens`` until ``ends``; ``shut_until``: nothing is to be had before."""

    tokens: int = 0
    ends: float = 0.0
    used: int = 0
    remaining: int = 0
    shut_until: float = 0.0
    asking: bool = False

    def spend(self, cost: int) -> None:
        self.tokens -= cost
        self.used += cost


class Inbound:
    """Charges requests to whoever is limited."""

    def __init__(self, take: Batcher[Take, Taken], now: Callable[[], float]) -> None:
        """``take`` asks the database, ``now`` is a steady clock in seconds."""
        self._take = take
        self._now = now
        self._shares: dict[Quota, _Share] = {}

    async def charge(self, key: Key, cost: int = 1) -> Standing | None:
        """Charge ``cost`` requests; None = the caller has no limit, and neither has its app.

        What costs more than a whole burst needs the whole burst and is charged in full.
        """
        quotas = quotas_of(key)
        if not quotas:
            return None
        left: list[Left] = []
        shares: list[_Share] = []
        for quota in quotas:
            share = self._share(quota)
            wait_s = await self._fill(quota, share, cost)
            left.append(Left(quota, 0 if wait_s else max(share.tokens - cost, 0) + share.remaining))
            if wait_s:
                return Standing(tuple(left), wait_s, quota.whose)
            share.spend(cost)
            shares.append(share)
        return Standing(tuple(left))

    def _share(self, quota: Quota) -> _Share:
        if len(self._shares) > _MOST_OWNERS:
            self._shares.clear()
        return self._shares.setdefault(quota, _Share())

    async def _fill(self, quota: Quota, share: _Share, cost: int) -> float:
        """Have at least ``cost`` tokens in the share, or return how long to wait."""
        now = self._now()
        if share.ends <= now:
            share.tokens = 0  # too old: others count on them being used or given up
        if share.tokens >= cost:
            return 0.0
        if share.shut_until > now:
            return share.shut_until - now
        # Twice of what the last slice was used for, once at a time: others who wait take just what they need.
        more = 0 if share.asking else min(2 * share.used, quota.slice_)
        share.asking = True
        try:
            taken = await self._take.submit(Take(quota, cost, more))
        finally:
            share.asking = False
        now = self._now()
        if not taken.granted:
            if cost == 1:
                share.shut_until = now + min(taken.wait_s, 1.0)
            share.remaining = taken.remaining
            return max(taken.wait_s, 1e-3)
        if share.ends <= now:
            share.tokens, share.used, share.ends = 0, 0, now + SLICE_S
        share.tokens += taken.granted
        share.remaining = taken.remaining
        return 0.0


def quotas_of(key: Key) -> tuple[Quota, ...]:
    """Return the limits that requests with this key are charged to."""
    if key.requests_per_s is None and key.app.requests_per_s is None:
        return ()
    found = []
    if key.requests_per_s is not None:
        found.append(Quota("caller", key.caller_id, key.requests_per_s))
    if key.app.requests_per_s is not None:
        found.append(Quota("app", key.app.id, key.app.requests_per_s))
    return tuple(found)


def steady() -> float:
    """Return the running loop's time."""
    return asyncio.get_running_loop().time()

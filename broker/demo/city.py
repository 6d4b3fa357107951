"""A lunch hour in a delivery city, made from a seed: the same seed gives the same hour.

Couriers ride in rounds. In a round a courier picks up a few orders, each with a binding (courier, customer), and
delivers them one after the other, so several of them live at once; some pick-ups also need a binding (courier, shop).
A part of the bindings is released on delivery, the rest left to run out. While a binding lives both sides phone each
other; some phone again when it is over, and strangers try the number as well.

All times are seconds of city time from noon on.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

_PER_SHOP = 4  # couriers
_ORDERS_AT_ONCE = (1, 2, 2, 3, 3, 4)
_SHOP_SHARE = 0.15
_RELEASED_SHARE = 0.6
_REGULARS_SHARE = 0.1
_REGULARS_PER_COURIER = 2
_LATE_SHARE = 0.3
_STRANGER_SHARE = 0.1
_DELIVERED_TTL_S = 7200  # of a binding that will be released
_SLACK_TTL_S = 600  # beyond the promised delivery, of one that will not


class Kind(StrEnum):
    """What happens."""

    BIND = "bind"
    RELEASE = "release"
    CALL = "call"


@dataclass(frozen=True, slots=True)
class Share:
    """One binding: courier ``a`` and customer or shop ``b``. Not ``released`` = it runs out at ``ends_s``."""

    no: int
    order_id: str
    a: str
    b: str
    begins_s: float
    ends_s: float
    ttl_s: int
    released: bool


@dataclass(frozen=True, slots=True)
class Deed:
    """Something that happens to a share; ``caller`` dials its X. ``late``: only once the share has ended."""

    at_s: float
    kind: Kind
    share: int
    caller: str = ""
    late: bool = False


@dataclass(frozen=True, slots=True)
class Hour:
    """A whole hour; ``deeds`` in the order of their time."""

    couriers: int
    shops: int
    customers: int
    orders: int
    shares: tuple[Share, ...]
    deeds: tuple[Deed, ...]


def lunch_hour(*, couriers: int, minutes: int, seed: int, run: int, least_ttl_s: int = 60) -> Hour:
    """Return an hour (of ``minutes``). ``run`` (0 to 9999) keeps the phones of one run apart from another's.

    ``least_ttl_s`` is the shortest lifetime in city time that the broker can be asked for.
    """
    return _City(couriers, minutes * 60, random.Random(seed), run, least_ttl_s).hour()  # noqa: S311 - a play, no secret


class _City:
    def __init__(self, couriers: int, length_s: int, chance: random.Random, run: int, least_ttl_s: int) -> None:
        self._couriers = couriers
        self._shops = max(couriers // _PER_SHOP, 1)
        self._length_s = length_s
        self._chance = chance
        self._run = run
        self._least_ttl_s = least_ttl_s
        self._new_customers = 0
        self._orders = 0
        self._strangers = 0
        self._shares: list[Share] = []
        self._deeds: list[Deed] = []

    def hour(self) -> Hour:
        for courier in range(self._couriers):
            self._ride(self._phone(0, courier))
        for share in self._shares:
            self._deeds.extend(self._life(share))
        customers = {share.b for share in self._shares if share.b[:5] == self._phone(1, 0)[:5]}
        self._deeds.sort(key=lambda deed: (deed.at_s, deed.share))
        return Hour(self._couriers, self._shops, len(customers), self._orders, tuple(self._shares), tuple(self._deeds))

    def _ride(self, courier: str) -> None:
        """Round after round: the next one begins when most of the last is delivered."""
        at_s = self._chance.uniform(0, 300)
        while at_s < self._length_s:
            picked_s = at_s
            delivered_s = at_s + self._chance.uniform(120, 300)
            for _ in range(self._chance.choice(_ORDERS_AT_ONCE)):
                delivered_s += self._chance.uniform(240, 480)
                if picked_s < self._length_s:
                    self._order(courier, picked_s, delivered_s)
                picked_s += self._chance.uniform(30, 120)
            at_s = max(picked_s, delivered_s - self._chance.uniform(0, 300))

    def _order(self, courier: str, picked_s: float, delivered_s: float) -> None:
        self._orders += 1
        order_id = f"demo-{self._run:04}-{self._orders}"
        self._share(order_id, courier, self._customer(), picked_s, delivered_s)
        if self._chance.random() < _SHOP_SHARE:
            shop = self._phone(2, self._chance.randrange(self._shops))
            self._share(order_id, courier, shop, picked_s, picked_s + self._chance.uniform(180, 360))

    def _share(self, order_id: str, courier: str, other: str, begins_s: float, wanted_s: float) -> None:
        released = self._chance.random() < _RELEASED_SHARE
        needed_s = _DELIVERED_TTL_S if released else round(wanted_s - begins_s) + _SLACK_TTL_S
        ttl_s = max(needed_s, self._least_ttl_s)
        ends_s = wanted_s if released else begins_s + ttl_s
        self._shares.append(Share(len(self._shares), order_id, courier, other, begins_s, ends_s, ttl_s, released))

    def _life(self, share: Share) -> Iterator[Deed]:
        yield Deed(share.begins_s, Kind.BIND, share.no)
        for _ in range(self._chance.choice((1, 2, 2, 3))):
            caller = self._chance.choice((share.a, share.b))
            yield Deed(self._chance.uniform(share.begins_s, share.ends_s), Kind.CALL, share.no, caller)
        if self._chance.random() < _STRANGER_SHARE:
            self._strangers += 1
            stranger = self._phone(3, self._strangers)
            yield Deed(self._chance.uniform(share.begins_s, share.ends_s), Kind.CALL, share.no, stranger)
        if share.released:
            yield Deed(share.ends_s, Kind.RELEASE, share.no)
        if self._chance.random() < _LATE_SHARE:
            caller = self._chance.choice((share.a, share.b))
            yield Deed(share.ends_s + self._chance.uniform(120, 600), Kind.CALL, share.no, caller, late=True)

    def _customer(self) -> str:
        """A regular, who may order twice in the hour, or somebody who has not ordered yet."""
        regulars = self._couriers * _REGULARS_PER_COURIER
        if self._chance.random() < _REGULARS_SHARE:
            return self._phone(1, self._chance.randrange(regulars))
        self._new_customers += 1
        return self._phone(1, regulars + self._new_customers)

    def _phone(self, kind: int, no: int) -> str:
        return f"+861{kind + 5}{self._run:04}{no:05}"

"""What each mode is hammered with: pools small enough to be full, a few A that everybody binds, and how orders look."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from broker.domain.modes import MODES

#: The shortest lifetime that every mode has: these orders are left to expire. All others are released.
SHORT_S, _LONG_S = 60, 900
#: How many of the places may be held by such orders, so that there is something to fight for.
_SHORT_SHARE = 0.15
_REMEMBERED = 32


@dataclass(frozen=True, slots=True)
class Kind:
    """One mode, and for mode X one routing.

    ``couriers`` are A of whom all clients know. ``rests``: we choose the place, so it must have rested.
    """

    mode: str
    numbers: int
    couriers: int
    routing: str = "pair"
    extensions_per_x: int = 200
    rests: bool = True

    @property
    def pair(self) -> bool:
        """Tell whether there is a B."""
        return "b" in MODES[self.mode].needs or (self.mode == "x" and self.routing == "pair")

    @property
    def places(self) -> int:
        """Return for how many orders there is room, of pairs for those of the couriers."""
        if self.pair:
            return self.numbers * self.couriers
        return self.numbers * (self.extensions_per_x if self.mode == "axe" else 1)

    @property
    def most(self) -> int | None:
        """Return how many X an A may have at a time."""
        return MODES[self.mode].x_per_party

    @property
    def changes_a(self) -> bool:
        """Tell whether the mode lets A be changed."""
        return "a" in MODES[self.mode].changes

    def courier(self, number: int) -> str:
        """Return one of the A that everybody knows."""
        return f"+8613800000{number:03d}"


KINDS: Final[Mapping[str, Kind]] = {
    # Of a pair, what is full is each courier's X: all of them have an order of it.
    "axb": Kind("axb", numbers=12, couriers=8),
    "ax": Kind("ax", numbers=96, couriers=12),
    "axe": Kind("axe", numbers=5, couriers=12, extensions_per_x=20),
    "axyb": Kind("axyb", numbers=40, couriers=6, rests=False),
    "x-pair": Kind("x", numbers=12, couriers=8),
    "x-one": Kind("x", numbers=96, couriers=12, routing="one"),
}


class Orders:
    """Makes the orders of one load process; no other has its customers."""

    def __init__(self, kind: Kind, process: int, processes: int) -> None:
        """Begin counting."""
        self.kind = kind
        self.chance = random.Random(process)
        self._process = process
        self._made = self._orders = 0
        #: How far the clocks of the broker were moved on.
        self.ahead_s = 0.0
        self._customers: deque[str] = deque(maxlen=_REMEMBERED)
        self._extensions: deque[str] = deque(maxlen=_REMEMBERED)
        self._ends: deque[float] = deque(maxlen=max(1, int(kind.places * _SHORT_SHARE / processes)))

    def seen(self, order: Mapping[str, Any], made: Mapping[str, Any]) -> None:
        """Take in a binding: its extension may be asked for again, while it is held or rests."""
        if made.get("extension"):
            self._extensions.append(made["extension"])
        if order["ttl_s"] == SHORT_S:
            self._ends.append(self._now() + SHORT_S)

    def fresh(self) -> str:
        """Return a phone that nobody has had."""
        self._made += 1
        return f"+86139{self._process % 100:02d}{self._made % 1_000_000:06d}"

    def a(self) -> str:
        """Return an A: one of those who have orders already, where there is a B; else mostly a new one."""
        if not self.kind.pair and self.chance.random() < 0.7:
            return self.fresh()
        return self.kind.courier(self.chance.randrange(self.kind.couriers))

    def order(self) -> dict[str, Any]:
        """Return the body of a bind."""
        kind, chance = self.kind, self.chance
        self._orders += 1
        name = f"order-{self._process}-{self._orders}"
        body: dict[str, Any] = {"a": self.a(), "ttl_s": self._ttl_s(), "order_id": name}
        if kind.pair:
            body["b"] = self._customer()
        if kind.mode == "x":
            body["routing"] = kind.routing
        if self._extensions and chance.random() < 0.2:
            body["extension"] = chance.choice(self._extensions)
        return body

    def change(self) -> dict[str, str]:
        """Return the body of a change of who is behind X: of a pair B, so that the couriers stay full."""
        return {"b": self.fresh()} if self.kind.pair else {"a": self.a()}

    def _now(self) -> float:
        return time.monotonic() + self.ahead_s

    def _ttl_s(self) -> int:
        room = len(self._ends) < (self._ends.maxlen or 0) or self._ends[0] < self._now()
        return SHORT_S if room and self.chance.random() < _SHORT_SHARE else _LONG_S

    def _customer(self) -> str:
        if self._customers and self.chance.random() < 0.15:
            return self.chance.choice(self._customers)
        self._customers.append(self.fresh())
        return self._customers[-1]

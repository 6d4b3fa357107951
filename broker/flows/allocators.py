"""Who gives a line its X, by how its mode does it: pairs, places, the platform; one more is one more member here."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import Protocol, assert_never

from broker.domain.modes import MODES, Allocation
from broker.flows.allocate import Allocator, Tell
from broker.flows.calls import PlatformCall
from broker.flows.order import Allocated, BindOrder
from broker.flows.picked import Unpicked
from broker.flows.place import Placer
from broker.store.bindings import ReleaseAsk
from broker.store.registry import Registry


class Claims(Protocol):
    """What gives orders their X."""

    async def allocate(self, order: BindOrder, *, within_s: float) -> Allocated:
        """Claim for ``order``; when this returns, the claim is committed."""
        ...

    def enqueue(self, order: BindOrder, tell: Tell, *, within_s: float, gone: Callable[[], bool]) -> None:
        """Queue ``order`` and ``tell`` what :meth:`allocate` returns or raises, unless it is ``gone``."""
        ...

    def refusals(self, pool_id: int) -> dict[str, int]:
        """Return how often nothing was found in a pool, by the main reason."""
        ...


class Allocates(Claims, Protocol):
    """What every way of allocating offers to binds and to the dispatcher."""

    @property
    def lost_rounds(self) -> int:
        """How often a claim had to come again."""
        ...

    @property
    def batches(self) -> int:
        """How many batches were run."""
        ...

    @property
    def items(self) -> int:
        """How many claims they carried."""
        ...

    async def rechoose(
        self, call: PlatformCall, *, outcome: str, http: int | None, code: str | None, bar_s: float
    ) -> PlatformCall | str:
        """Give the pending binding of a refused bind something else."""
        ...


class Allocators:
    """Hands every order and call to the allocator of its kind."""

    def __init__(self, pairs: Allocator, places: Placer, unpicked: Unpicked, registry: Callable[[], Registry]) -> None:
        """``registry()`` returns the newest configuration."""
        self.pairs = pairs
        self.places = places
        self.unpicked = unpicked
        self._registry = registry
        self._all = (pairs, places, unpicked)

    async def allocate(self, order: BindOrder, *, within_s: float) -> Allocated:
        """As the order's own allocator does."""
        return await self._of(order.allocation).allocate(order, within_s=within_s)

    def enqueue(self, order: BindOrder, tell: Tell, *, within_s: float, gone: Callable[[], bool]) -> None:
        """As the order's own allocator does."""
        self._of(order.allocation).enqueue(order, tell, within_s=within_s, gone=gone)

    async def rechoose(
        self, call: PlatformCall, *, outcome: str, http: int | None, code: str | None, bar_s: float
    ) -> PlatformCall | str:
        """As the allocator that chose for the call does."""
        asked = MODES[self._registry().apps[call.app_id].mode].allocation
        kind = Allocation.PLACE if asked is Allocation.PAIR and call.b is None else asked
        return await self._of(kind).rechoose(call, outcome=outcome, http=http, code=code, bar_s=bar_s)

    def heat_note(self, pool_id: int, x_id: int) -> None:
        """Take in that an X was left here: only pairs share one."""
        self.pairs.heat_note(pool_id, x_id)

    def refusals(self, pool_id: int) -> dict[str, int]:
        """Return how often nothing was found in a pool, by the main reason."""
        found: Counter[str] = Counter()
        for one in self._all:
            found.update(one.refusals(pool_id))
        return dict(found)

    @property
    def abandoned(self) -> tuple[deque[tuple[float, ReleaseAsk]], ...]:
        """The queues of claims that may or may not have been committed."""
        return tuple(one.abandoned for one in self._all)

    @property
    def batches(self) -> int:
        """How many batches were run."""
        return sum(one.batches for one in self._all)

    @property
    def items(self) -> int:
        """How many claims they carried."""
        return sum(one.items for one in self._all)

    @property
    def lost_rounds(self) -> int:
        """How often a claim had to come again."""
        return sum(one.lost_rounds for one in self._all)

    def _of(self, kind: Allocation) -> Allocates:
        match kind:
            case Allocation.PAIR:
                return self.pairs
            case Allocation.PLACE:
                return self.places
            case Allocation.PLATFORM:
                return self.unpicked
            case _ as never:
                assert_never(never)

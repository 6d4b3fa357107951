"""Orders whose X the platform picks: claimed without one, each in a statement of its own."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from collections.abc import Callable
from datetime import datetime
from typing import Final

from broker.domain.ids import new_id
from broker.errors import Conflict, PoolExhausted, Unavailable
from broker.flows.allocate import ABANDONED_S, Tell
from broker.flows.calls import PlatformCall
from broker.flows.order import Allocated, BindOrder
from broker.store import bindings, picked
from broker.store.bindings import ReleaseAsk
from broker.store.crypto import Vault
from broker.store.database import Database, DatabaseAway
from broker.store.picked import Claim
from broker.store.registry import Pool

#: How long "the platform has none" is believed: an answer for each refusal would cost its quota and the caller's time.
_FULL_S: Final = 0.05
#: Who chose the X, as the binding's row tells.
_WHY: Final = "picked by the platform"


class Unpicked:
    """Gives every order a line without an X, or says why not; to callers it is as :class:`Allocator`."""

    def __init__(
        self,
        db: Database,
        vault: Vault,
        *,
        lease_s: float,
        boottime: Callable[[], float],
        in_flight: int = 8,
        queue_limit: int = 10_000,
    ) -> None:
        """``in_flight``: claims at the database at a time."""
        self._db = db
        self._vault = vault
        self._lease_s = lease_s
        self._boottime = boottime
        self._queue_limit = queue_limit
        self._places = asyncio.Semaphore(in_flight)
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting = 0
        #: Claims that may turn up after all, with until when (boottime) to look for them.
        self.abandoned: deque[tuple[float, ReleaseAsk]] = deque(maxlen=queue_limit)
        self.lost_rounds = 0
        self.items = 0
        self._refused: Counter[tuple[int, str]] = Counter()
        self._full_at: dict[tuple[int, bool], float] = {}

    @property
    def batches(self) -> int:
        """How many batches were run: every claim is one."""
        return self.items

    def refusals(self, pool_id: int) -> dict[str, int]:
        """Return how often an order got nothing in a pool, by the reason."""
        return {reason: count for (pool, reason), count in self._refused.items() if pool == pool_id}

    def note_full(self, call: PlatformCall) -> None:
        """Take in that the platform had no X for a bind."""
        self._full_at[call.pool_id, bool(call.options.relaxed)] = self._boottime()

    async def rechoose(
        self, call: PlatformCall, *, outcome: str, http: int | None, code: str | None, bar_s: float
    ) -> PlatformCall | str:
        """Nothing was chosen, so there is nothing else to choose: ``exhausted``."""
        del call, outcome, http, code, bar_s
        return "exhausted"

    async def allocate(self, order: BindOrder, *, within_s: float) -> Allocated:
        """Claim a line for ``order``; when this returns, the claim is committed.

        Raises:
            Conflict: A has as many X as it may have, or a twin has taken over the idempotency key.
            PoolExhausted: the pool is not open, or the platform has just said that it has no X there.
            Unavailable: too much is waiting, or no claim came about in time; nothing was accepted.
        """
        if self._waiting >= self._queue_limit:
            raise Unavailable("too many requests are waiting for a number", code="overloaded")
        self._waiting += 1
        try:
            async with asyncio.timeout(within_s), self._places:
                return await self._claim(order)
        except TimeoutError:
            raise Unavailable("no number could be claimed in time", code="overloaded") from None
        finally:
            self._waiting -= 1

    def enqueue(self, order: BindOrder, tell: Tell, *, within_s: float, gone: Callable[[], bool]) -> None:
        """Claim in a task of its own and ``tell`` what :meth:`allocate` returns or raises, unless it is ``gone``."""
        task = asyncio.create_task(self._tell(order, tell, within_s, gone), name="claim")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell(self, order: BindOrder, tell: Tell, within_s: float, gone: Callable[[], bool]) -> None:
        if gone():
            return
        try:
            result: Allocated | BaseException = await self.allocate(order, within_s=within_s)
        except Exception as error:  # noqa: BLE001 - who asked is told
            result = error
        if not tell(result) and isinstance(result, Allocated) and order.key_hash is None:
            # Whoever asked is gone and knows no id to ask for.
            self._look_for(ReleaseAsk(result.pool.id, result.binding_id, order.app.id))

    async def _claim(self, order: BindOrder) -> Allocated:
        pool = order.pools[0]
        full_at = self._full_at.get((pool.id, bool(order.options.relaxed)))
        if full_at is not None and self._boottime() - full_at < _FULL_S:
            self._refused[pool.id, "full"] += 1
            raise PoolExhausted("The platform has no X here now.", extra={"reasons": {}, "pools": [pool.name]})
        claim = self._written(order, pool)
        most = order.mode.x_per_party or 1
        self.items += 1
        while True:
            asked_at = self._boottime()
            try:
                outcome, created_at = await picked.claim(self._db, claim, most=most, lease_s=self._lease_s)
            except DatabaseAway:
                # The claim got no answer and may have been committed: look, or say 'not now'.
                outcome, created_at = "won", await self._reread(claim)
            except asyncio.CancelledError:
                self._abandon(claim)
                raise
            match outcome:
                case "won":
                    return _allocated(order, claim, created_at, asked_at)
                case "busy":
                    self.lost_rounds += 1
                    await asyncio.sleep(random.uniform(0.002, 0.02))  # noqa: S311 - jitter
                case refused:
                    self._refused[pool.id, refused] += 1
                    raise _refusal(refused, pool)

    async def _reread(self, claim: Claim) -> datetime:
        row = claim.pool_id, claim.binding_id
        try:
            found = (await bindings.show(self._db, self._vault, [row])).get(row)
        except (DatabaseAway, asyncio.CancelledError):
            self._abandon(claim)
            raise
        if found is None:
            # The server may not have noticed that we are gone, and commit it yet.
            self._abandon(claim)
            raise DatabaseAway("the database did not answer; try again")
        return found.created_at

    def _abandon(self, claim: Claim) -> None:
        """Have the claim released if it turns up: with an idempotency key the next try finds it, else nobody would."""
        if claim.key_hash is None:
            self._look_for(ReleaseAsk(claim.pool_id, claim.binding_id, claim.app_id))

    def _look_for(self, ask: ReleaseAsk) -> None:
        self.abandoned.append((self._boottime() + ABANDONED_S, ask))

    def _written(self, order: BindOrder, pool: Pool) -> Claim:
        line_id = new_id()
        return Claim(
            pool_id=pool.id,
            app_id=order.app.id,
            caller_id=order.caller_id,
            line_id=line_id,
            binding_id=order.binding_id or new_id(),
            a_key=order.a_key,
            a_sealed=self._vault.seal("line", "a", pool.id, line_id, order.a.reveal()),
            direction=order.direction,
            options=order.options.to_text(),
            line_ttl_s=order.line_ttl_s,
            ttl_s=order.ttl_s,
            chosen=_WHY,
            order_id=order.order_id,
            user_data=order.user_data,
            metadata=order.metadata,
            key_hash=order.key_hash,
            key_token=order.key_token,
        )


def _allocated(order: BindOrder, claim: Claim, created_at: datetime, asked_at: float) -> Allocated:
    pool = order.pools[0]
    explanation = {"why": _WHY, "pool": pool.name, "area_code": pool.area_code} if order.explain else None
    return Allocated(
        pool, claim.binding_id, claim.line_id, created_at, asked_at, extension=0, explanation=explanation
    )  # fmt: skip


def _refusal(outcome: str, pool: Pool) -> Conflict:
    match outcome:
        case "limit":
            return Conflict("A has as many X numbers as it may have.", code="party_limit")
        case "closed":
            return PoolExhausted("The pool is not open.", extra={"reasons": {"not_open": 0}, "pools": [pool.name]})
        case _:
            return Conflict(
                "Another request with this Idempotency-Key took over.", code="idempotency_in_progress", retry_after_s=1
            )

"""Claiming places: whole X numbers and extensions, rows that wait to be taken; in micro-batches over all pools.

What the pair allocator chooses in memory, the database chooses here: ``reserve_places()`` locks free rows that nobody
else is locking. So two processes never meet, and an item comes again only while its A is being given an X elsewhere.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any
from uuid import UUID

from broker.crashpoints import crashpoint
from broker.domain.choice import Prefix
from broker.domain.extension import text_of
from broker.domain.ids import new_id
from broker.domain.modes import MODES
from broker.domain.phone import PhoneNumber
from broker.errors import Conflict, PoolExhausted, Unavailable
from broker.flows.allocate import ABANDONED_S, Tell
from broker.flows.batching import Batcher
from broker.flows.calls import PlatformCall
from broker.flows.order import Allocated, BindOrder
from broker.flows.place_figures import PlaceFigures
from broker.store import bindings, places
from broker.store.bindings import ReleaseAsk
from broker.store.crypto import Vault
from broker.store.database import Database, DatabaseAway
from broker.store.places import Given, PlaceClaim, PlaceRechoice
from broker.store.registry import Pool, Registry

#: How many free extensions are named beside one that is taken.
_NEIGHBOURS = 5
_TRIES = 8
#: A pool that had nothing left so lately is asked by reading first: who is refused then waits for nobody's commit.
_DRY_S = 1.0


@dataclass(slots=True)
class _Memory:
    """What this process remembers of a pool: how many X it needs, when it last had nothing, and why it refused."""

    prefix: Prefix = field(default_factory=Prefix)
    dry_at: float = float("-inf")
    refusals: Counter[str] = field(default_factory=Counter)


class Placer:
    """Gives every order of one party a place or says why not."""

    def __init__(
        self,
        db: Database,
        vault: Vault,
        registry: Callable[[], Registry],
        *,
        lease_s: float,
        boottime: Callable[[], float],
        size: int = 200,
        in_flight: int = 2,
        queue_limit: int = 10_000,
    ) -> None:
        """``registry()`` returns the newest configuration."""
        self._db = db
        self._vault = vault
        self._registry = registry
        self._lease_s = lease_s
        self._boottime = boottime
        self._queue_limit = queue_limit
        self._batcher: Batcher[PlaceClaim, tuple[Given, float]] = Batcher(
            "place", self._reserve, size=size, in_flight=in_flight, queue_limit=queue_limit,
            # Two of one A whose X numbers are limited would only be told to come again.
            distinct=lambda claim: claim.line_id if claim.most is None else (claim.app_id, claim.a_key),
        )  # fmt: skip
        self._sights: Batcher[PlaceClaim, Given] = Batcher(
            "sight", lambda claims: places.sight(db, claims), size=size, in_flight=in_flight, queue_limit=queue_limit
        )
        self._figures = PlaceFigures(db)
        self._memory: dict[int, _Memory] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        #: As the pair allocator's: claims that may or may not have been committed.
        self.abandoned: deque[tuple[float, ReleaseAsk]] = deque(maxlen=queue_limit)
        self.lost_rounds = 0

    @property
    def batches(self) -> int:
        """How many batches were run."""
        return self._batcher.batches

    @property
    def items(self) -> int:
        """How many claims they carried."""
        return self._batcher.items

    async def allocate(self, order: BindOrder, *, within_s: float) -> Allocated:
        """Claim a place for ``order``; when this returns, the claim is committed.

        Raises:
            PoolExhausted: no place of the allowed pools is free.
            Conflict: A has as many X as it may have; the extension asked for is taken; or a twin of the request has
                taken over its idempotency key.
            Unavailable: too much is waiting, or no claim came about in time; nothing was accepted.
        """
        future: asyncio.Future[Allocated] = asyncio.get_running_loop().create_future()

        def tell(result: Allocated | BaseException) -> bool:
            if future.done():
                return False
            if isinstance(result, Allocated):
                future.set_result(result)
            else:
                future.set_exception(result)
            return True

        self.enqueue(order, tell, within_s=within_s, gone=future.done)
        return await future

    def enqueue(self, order: BindOrder, tell: Tell, *, within_s: float, gone: Callable[[], bool]) -> None:
        """Queue ``order`` and ``tell`` what :meth:`allocate` returns or raises, unless it is ``gone``.

        Raises:
            Unavailable: too much is waiting.
        """
        if len(self._tasks) >= self._queue_limit:
            raise Unavailable("too many requests are waiting for a number", code="overloaded")
        deadline = asyncio.get_running_loop().time() + within_s
        task = asyncio.create_task(self._serve(order, tell, deadline, gone), name="place")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def refusals(self, pool_id: int) -> dict[str, int]:
        """Return how often this process found nothing in a pool since it began, by the main reason."""
        memory = self._memory.get(pool_id)
        return dict(memory.refusals) if memory is not None else {}

    # -- one order -------------------------------------------------------------------------------------------------

    async def _serve(self, order: BindOrder, tell: Tell, deadline: float, gone: Callable[[], bool]) -> None:
        try:
            allocated = await self._in_some_pool(order, deadline, gone)
        except Exception as error:  # noqa: BLE001 - whatever it is, who asked must hear of it
            tell(error)
            return
        if not tell(allocated) and order.key_hash is None:
            # Whoever asked is gone and knows no id to ask for.
            self._release_later(ReleaseAsk(allocated.pool.id, allocated.binding_id, order.app.id))

    async def _in_some_pool(self, order: BindOrder, deadline: float, gone: Callable[[], bool]) -> Allocated:
        line_id, binding_id = new_id(), order.binding_id or new_id()
        taken: list[Pool] = []
        for tried in order.pools:
            pool = self._registry().pools.get(tried.id, tried)
            claim = self._claim(order, pool, line_id, binding_id)
            given, asked_at = await self._refused_at_sight(claim) or await self._in_pool(claim, deadline, gone)
            match given.outcome:
                case "won":
                    return await self._won(order, pool, claim, given, asked_at)
                case "superseded":
                    raise _taken_over()
                case "limit":
                    raise Conflict("A has as many X numbers as it may have.", code="party_limit")
                case "taken":
                    taken.append(pool)
                case "closed":
                    self._of(pool).refusals["not_open"] += 1
                case "exhausted":
                    self._of(pool).dry_at = time.monotonic()
        if taken:
            raise await self._extension_taken(order, taken)
        raise await self._exhausted(order)

    async def _refused_at_sight(self, claim: PlaceClaim) -> tuple[Given, float] | None:
        """Ask a pool that has just had nothing by reading; None: a claim is worth its while."""
        memory = self._memory.get(claim.pool_id)
        if memory is None or claim.asked is not None or time.monotonic() - memory.dry_at > _DRY_S:
            return None
        asked_at = self._boottime()
        seen = await self._sights.submit(claim)
        return None if seen.outcome == "open" else (seen, asked_at)

    async def _in_pool(self, claim: PlaceClaim, deadline: float, gone: Callable[[], bool]) -> tuple[Given, float]:
        """Claim in one pool, again and again while the order's A is busy elsewhere."""
        losses = 0
        while True:
            if asyncio.get_running_loop().time() >= deadline or gone():
                raise Unavailable("no number could be claimed in time", code="overloaded")
            asked_at = self._boottime()
            try:
                given, asked_at = await self._batcher.submit(claim)
            except DatabaseAway:
                return await self._reread(claim), asked_at
            if given.outcome != "busy":
                return given, asked_at
            losses += 1
            self.lost_rounds += 1
            await asyncio.sleep(random.uniform(0.0005, 0.004 * losses))  # noqa: S311 - jitter

    async def _reserve(self, claims: Sequence[PlaceClaim]) -> list[tuple[Given, float]]:
        asked_at = self._boottime()
        crashpoint("in_batch")
        return [(given, asked_at) for given in await places.reserve(self._db, claims, lease_s=self._lease_s)]

    async def _reread(self, claim: PlaceClaim) -> Given:
        """The claim got no answer and may have been committed: look, or say 'not now'."""
        key = claim.pool_id, claim.binding_id
        try:
            stored = (await bindings.show(self._db, self._vault, [key])).get(key)
        except DatabaseAway:
            self._abandon(claim)
            raise
        if stored is None:
            # The server may not have noticed that we are gone, and commit it yet.
            self._abandon(claim)
            raise DatabaseAway("the database did not answer; try again")
        return Given("won", stored.created_at, stored.x_id, stored.extension, number=stored.x)

    async def _won(self, order: BindOrder, pool: Pool, claim: PlaceClaim, given: Given, asked_at: float) -> Allocated:
        self._learn(pool, given.first_fit)
        explanation = await self._explanation(pool, given) if order.explain else None
        return Allocated(
            pool, claim.binding_id, claim.line_id, given.created_at, asked_at, given.x_id, given.extension,
            explanation=explanation, number=given.number,
        )  # fmt: skip

    # -- why, and why not ------------------------------------------------------------------------------------------

    async def _explanation(self, pool: Pool, given: Given) -> dict[str, Any]:
        return {"policy": "places", "why": given.chosen, "pool": pool.name, **asdict(await self._figures.of(pool.id))}

    async def _exhausted(self, order: BindOrder) -> PoolExhausted:
        reasons: Counter[str] = Counter()
        for pool in order.pools:
            counts = asdict(await self._figures.of(pool.id))
            del counts["free"]  # none was: those that were counted are gone
            reasons.update(counts)
            if pool.open:
                # What bars most of its places is why the pool refused.
                self._of(pool).refusals[max(counts, key=lambda reason: counts[reason])] += 1
        return PoolExhausted(
            "No place of these pools is free now.",
            extra={"reasons": dict(reasons), "pools": [tried.name for tried in order.pools]},
        )

    async def _extension_taken(self, order: BindOrder, pools: Sequence[Pool]) -> Conflict:
        asked, digits = order.extension or 0, order.app.extension_digits
        for pool in pools:
            self._of(pool).refusals["taken"] += 1
        free = {code for pool in pools for code in await places.free_codes(self._db, pool.id, asked, most=_NEIGHBOURS)}
        nearest = sorted(free, key=lambda code: (abs(code - asked), code))[:_NEIGHBOURS]
        return Conflict(
            "The extension asked for is not free.",
            code="extension_taken",
            extra={"free": [text_of(code, digits) for code in nearest]},
        )

    # -- parts -----------------------------------------------------------------------------------------------------

    def _of(self, pool: Pool) -> _Memory:
        return self._memory.setdefault(pool.id, _Memory())

    def prefix(self, pool: Pool) -> int | None:
        """Return how many X the pool needs; None where they are given out by extensions."""
        return None if "extension" in MODES[pool.app.mode].binds else self._of(pool).prefix.length(time.monotonic())

    def _learn(self, pool: Pool, first_fit: int | None) -> None:
        if first_fit is not None:
            self._of(pool).prefix.note(first_fit, time.monotonic())

    def _claim(self, order: BindOrder, pool: Pool, line_id: UUID, binding_id: UUID) -> PlaceClaim:
        return PlaceClaim(
            most=order.mode.x_per_party,
            pool_id=pool.id,
            prefix=self.prefix(pool),
            asked=order.extension,
            app_id=order.app.id,
            caller_id=order.caller_id,
            line_id=line_id,
            binding_id=binding_id,
            a_key=order.a_key,
            a_sealed=self._vault.seal("line", "a", pool.id, line_id, order.a.reveal()),
            callback_sealed=self._sealed_callback(pool.id, line_id, order.callback),
            direction=order.direction,
            options=order.options.to_text(),
            line_ttl_s=order.line_ttl_s,
            ttl_s=order.ttl_s,
            order_id=order.order_id,
            user_data=order.user_data,
            metadata=order.metadata,
            key_hash=order.key_hash,
            key_token=order.key_token,
        )

    def _sealed_callback(self, pool_id: int, line_id: UUID, callback: PhoneNumber | None) -> bytes | None:
        if callback is None:
            return None
        return self._vault.seal("line", "callback", pool_id, line_id, callback.reveal())

    def _abandon(self, claim: PlaceClaim) -> None:
        """Have the claim released if it turns up: with an idempotency key the next try finds it, else nobody would."""
        if claim.key_hash is None:
            self._release_later(ReleaseAsk(claim.pool_id, claim.binding_id, claim.app_id))

    def _release_later(self, ask: ReleaseAsk) -> None:
        self.abandoned.append((self._boottime() + ABANDONED_S, ask))

    async def rechoose(
        self, call: PlatformCall, *, outcome: str, http: int | None, code: str | None, bar_s: float
    ) -> PlatformCall | str:
        """Give the pending binding of a refused bind another place of its pool.

        Returns the bind call to send next, or ``superseded`` (not ours), ``released`` (nobody wants it any more),
        ``exhausted`` (no other place: nothing was changed).
        """
        pool = self._registry().pools[call.pool_id]
        for _ in range(_TRIES):
            line_id = new_id()
            asked_at = self._boottime()
            item = PlaceRechoice(
                pool_id=pool.id, old_line=call.line_id, no=call.key.no, token=call.key.token, bar_s=bar_s,
                outcome=outcome, http=http, code=code, prefix=self.prefix(pool), line_id=line_id,
                a_sealed=self._vault.seal("line", "a", pool.id, line_id, call.a.reveal()),
                callback_sealed=self._sealed_callback(pool.id, line_id, call.callback),
            )  # fmt: skip
            done = await places.rechoose(self._db, item, lease_s=self._lease_s)
            if done.outcome == "won" and done.x_id is not None:
                self._learn(pool, done.first_fit)
                return replace(
                    call, key=replace(call.key, line_id=line_id, no=1, token=1), x_id=done.x_id,
                    x=done.number or "", extension=done.extension, lease_until=asked_at + self._lease_s,
                    attempt=0, maybe_sent=False,
                )  # fmt: skip
            if done.outcome != "busy":
                return done.outcome if done.outcome in {"superseded", "released"} else "exhausted"
        return "exhausted"


def _taken_over() -> Conflict:
    return Conflict(
        "Another request with this Idempotency-Key took over.", code="idempotency_in_progress", retry_after_s=1
    )

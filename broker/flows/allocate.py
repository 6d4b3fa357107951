"""Choosing and claiming X: histories → choose (pure) → ``reserve()``, in micro-batches over all pools of a database.

Everything about other processes is settled by ``reserve()``: an item that loses there (a party busy elsewhere, a seat
taken) is queued again. Inside this process two items of one party never run in two batches at once; inside a batch the
choice itself keeps them apart.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

import structlog

from broker.crashpoints import crashpoint
from broker.domain.choice import Choice, PartyView, Policy, choose, refusal
from broker.domain.ids import new_id
from broker.errors import Conflict, PoolExhausted, Problem, Unavailable
from broker.flows.calls import PlatformCall
from broker.flows.order import Allocated, BindOrder
from broker.flows.pace import Pace
from broker.flows.pool_memory import FULL_S, PoolMemory
from broker.store import allocation, bindings, sharing
from broker.store.allocation import BatchTorn, Claim, LockMode, LocksBusy, Rechoice
from broker.store.bindings import ReleaseAsk
from broker.store.crypto import Vault
from broker.store.database import Database, DatabaseAway
from broker.store.registry import Pool, Registry
from broker.store.sharing import Joined

log = structlog.get_logger()

#: How long a claim without an answer is looked for: longer than the server lets a statement run.
ABANDONED_S = 60.0
#: After this many lost rounds an item goes alone and waits for its locks.
_PATIENCE = 4


#: Hears what became of an order: its claim, or why there is none. False: nobody is there any more to hear it.
Tell = Callable[["Allocated | BaseException"], bool]


@dataclass(slots=True, eq=False)
class _Item:
    order: BindOrder
    deadline: float
    tell: Tell
    gone: Callable[[], bool]
    binding_id: UUID
    line_id: UUID = field(default_factory=new_id)
    place: int = 0
    losses: int = 0
    queued: bool = True
    full: dict[int, int] = field(default_factory=dict)  # pool id → X numbers found full while this item waited
    sure_since: float | None = None  # an X found full before (monotonic) may have room again
    refused: dict[str, int] = field(default_factory=dict)
    explanation: dict[str, Any] | None = None
    over: bool = False

    def done(self) -> bool:
        """Whether nothing is left to do: told, or nobody waits."""
        return self.over or self.gone()

    def explain(self, **reasons: Any) -> None:
        """Keep why this X, for an order that asks."""
        if self.order.explain:
            self.explanation = reasons

    @property
    def pool(self) -> Pool:
        return self.order.pools[self.place]

    def parties(self) -> tuple[tuple[int, int], tuple[int, int]]:
        pool_id = self.pool.id
        return (pool_id, self.order.a_key), (pool_id, self.order.other_key)


class Allocator:
    """Gives every order an X or says why not."""

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
        mode: LockMode = LockMode.TRY,
    ) -> None:
        """``registry()`` returns the newest configuration; ``mode`` OFF is for tests of the last guard."""
        self._db = db
        self._vault = vault
        self._registry = registry
        self._lease_s = lease_s
        self._boottime = boottime
        self._size = size
        self._queue_limit = queue_limit
        self._mode = mode
        self._queue: deque[_Item] = deque()
        self._parties: set[tuple[int, int]] = set()
        self._memory: dict[int, PoolMemory] = {}
        self._pace = Pace("allocate", self._begin, lambda: len(self._queue), size=size, in_flight=in_flight)
        #: Claims that may or may not have been committed, and were answered "not now": to be released when found.
        #: With each: until when (boottime) to look for it.
        self.abandoned: deque[tuple[float, ReleaseAsk]] = deque(maxlen=queue_limit)
        #: X numbers by pool that carry as many calls as they may, as a bitmap: others are taken while there are some.
        self.hot: Mapping[int, int] = {}
        self.batches = 0
        self.items = 0
        self.lost_rounds = 0

    async def allocate(self, order: BindOrder, *, within_s: float) -> Allocated:
        """Claim an X for ``order``; when this returns, the claim is committed.

        Raises:
            PoolExhausted: no X of the allowed pools may be given to this pair now.
            Conflict: a twin of the request has taken over its idempotency key.
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

        Orders queued in one turn of the loop share a batch.

        Raises:
            Unavailable: too much is waiting.
        """
        if len(self._queue) >= self._queue_limit:
            raise Unavailable("too many requests are waiting for a number", code="overloaded")
        until = asyncio.get_running_loop().time() + within_s
        self._queue.append(_Item(order, until, tell, gone, order.binding_id or new_id()))
        self._pace.wake()

    async def pick(self, order: BindOrder, *, avoid: int = 0) -> Choice | None:
        """Return the X that the order would get in its first pool, reserving nothing; None = there is none."""
        pool = order.pools[0]
        parties = (pool.id, order.a_key), (pool.id, order.other_key)
        views = await allocation.histories(self._db, parties)
        return self._pick(order, pool, views[parties[0]], views[parties[1]], avoid=avoid)

    def heat_note(self, pool_id: int, x_id: int) -> None:
        """Take in that a seat on an X was freed here."""
        memory = self._memory.get(pool_id)
        if memory is not None:
            memory.found_room(x_id)

    def refusals(self, pool_id: int) -> dict[str, int]:
        """Return how often this process found nothing in a pool since it began, by the main reason."""
        memory = self._memory.get(pool_id)
        return dict(memory.refusals) if memory is not None else {}

    def _begin(self) -> Coroutine[Any, Any, None] | None:
        if not (batch := self._take()):
            return None
        self.batches += 1
        self.items += len(batch)
        return self._work(batch)

    def _take(self) -> list[_Item]:
        """Take queued items whose parties no running batch holds; an unlucky one goes alone."""
        batch: list[_Item] = []
        skipped: list[_Item] = []
        now = asyncio.get_running_loop().time()
        looked = 0
        while self._queue and len(batch) < self._size and looked < 4 * self._size:
            looked += 1
            item = self._queue.popleft()
            item.queued = False
            if item.done():
                continue
            if item.deadline <= now:
                _refuse(item, Unavailable("no number could be claimed in time", code="overloaded"))
            elif any(party in self._parties for party in item.parties()) or (item.losses >= _PATIENCE and batch):
                skipped.append(item)
            else:
                batch.append(item)
                if item.losses >= _PATIENCE:
                    break
        self._queue.extendleft(reversed(skipped))
        for item in skipped:
            item.queued = True
        for item in batch:
            self._parties.update(item.parties())
        return batch

    async def _work(self, batch: list[_Item]) -> None:
        held = {party for item in batch for party in item.parties()}
        try:
            await self._round(batch, held)
        except Exception as error:  # noqa: BLE001 - each waiter must hear of it; a batch splits once per item
            if isinstance(error, Problem) or len(batch) == 1:
                for item in batch:
                    _refuse(item, error)
            else:
                log.warning("allocation_split", items=len(batch), error=type(error).__name__)
                for item in batch:
                    if not item.queued:
                        item.losses = max(item.losses, _PATIENCE)
                        self._again(item)
        finally:
            self._parties -= held

    async def _round(self, batch: list[_Item], held: set[tuple[int, int]]) -> None:
        views = await allocation.histories(self._db, held)
        mode = self._mode
        if mode is LockMode.TRY and batch[0].losses >= _PATIENCE:
            mode = LockMode.WAIT
        alone = await self._share(batch, views)
        pairs: set[tuple[int, int, int]] = set()
        chosen = [(item, claim) for item in alone if (claim := self._choose(item, views, pairs)) is not None]
        crashpoint("in_batch")
        while chosen:
            asked_at = self._boottime()
            try:
                results = await allocation.reserve(
                    self._db, [claim for _, claim in chosen], mode=mode, lease_s=self._lease_s
                )
            except BatchTorn as torn:
                for place in torn.places:
                    self._again(chosen[place][0])
                chosen = [pair for place, pair in enumerate(chosen) if place not in torn.places]
                continue
            except LocksBusy:
                for item, _ in chosen:
                    self._again(item)
                return
            except DatabaseAway:
                await self._reread(chosen, asked_at)
                return
            for (item, claim), result in zip(chosen, results, strict=True):
                self._judge(item, claim, result.outcome, result.created_at, asked_at)
            return

    async def _share(self, batch: list[_Item], views: dict[tuple[int, int], PartyView]) -> list[_Item]:
        """Have items join a line that their pair has already; return those that need one of their own."""
        wanted = [(item, line) for item in batch if item.order.share for line in _lines_seen(item, views)]
        if not wanted:
            return batch
        found = await sharing.lines(self._db, self._vault, [(item.pool.id, line) for item, line in wanted])
        joining: dict[_Item, Claim] = {}
        for item, line_id in wanted:
            line, order = found.get(line_id), item.order
            if line is None or not item.pool.open_mask >> line.x_id & 1:
                continue  # an X that is to be emptied takes in nobody
            if line.fits(a=order.a, b=order.other, direction=order.direction, options=order.options.to_text()):
                claim = self._claim(item, item.pool, line.x_id, "joined", views)
                joining.setdefault(item, claim._replace(line_id=line_id))
        if joining:
            results = await self._join(joining)
            for (item, claim), result in zip(joining.items(), results, strict=True):
                self._judge_join(item, claim, result)
        return [item for item in batch if item not in joining]

    async def _join(self, joining: dict[_Item, Claim]) -> list[Joined]:
        claims = list(joining.values())
        try:
            return await sharing.join(self._db, claims)
        except DatabaseAway:
            for claim in claims:
                self._abandon(claim)
            raise

    def _judge_join(self, item: _Item, claim: Claim, result: Joined) -> None:
        match result.outcome:
            case "joined":
                item.explain(why="joined", pool=item.pool.name)
                self._won(item, claim, result.created_at, self._boottime(), joined=result)
            case "superseded":
                _refuse(item, _taken_over())
            case _:
                self._again(item)

    def _choose(
        self, item: _Item, views: dict[tuple[int, int], PartyView], pairs: set[tuple[int, int, int]]
    ) -> Claim | None:
        """Choose in the item's pool, or move it on to its next pool, or refuse it."""
        pool = self._registry().pools.get(item.pool.id, item.pool)
        a, b = (views[party] for party in item.parties())
        pair = pool.id, min(item.order.a_key, item.order.other_key), max(item.order.a_key, item.order.other_key)
        if item.order.share and pair in pairs:
            self._again(item)  # its twin in this batch makes the line that this one may share
            return None
        choice = self._pick(item.order, pool, a, b, avoid=item.full.get(pool.id, 0))
        if choice is None:
            self._next_pool(item, pool, a, b)
            return None
        self._memory[pool.id].chosen(choice.x, time.monotonic())
        if item.order.explain:
            a_barred, b_barred = a.barred(item.order.other_key), b.barred(item.order.a_key)
            item.explain(
                policy=item.order.policy.value, why=choice.why, pool=pool.name, numbers=len(pool.numbers),
                open=pool.open_mask.bit_count(), barred_for_a=a_barred.bit_count(), barred_for_b=b_barred.bit_count(),
                usable=(pool.open_mask & ~a_barred & ~b_barred).bit_count(), first_fit=choice.first_fit + 1,
            )  # fmt: skip
        claim = self._claim(item, pool, choice.x, choice.why, views)
        # The next item of this batch must see what this one is about to hold.
        a.live |= 1 << choice.x
        b.live |= 1 << choice.x
        pairs.add(pair)
        return claim

    def _pick(self, order: BindOrder, pool: Pool, a: PartyView, b: PartyView, *, avoid: int = 0) -> Choice | None:
        now = time.monotonic()
        memory = self._memory.setdefault(pool.id, PoolMemory())
        usable = pool.open_mask & ~avoid & ~a.barred(order.other_key) & ~b.barred(order.a_key) if pool.open else 0
        if memory.full:
            # Who met a full X already looks at another such one only if there is nothing else.
            usable = (avoid and usable & ~memory.full) or usable & ~memory.kept_off(now)
        heat = memory.warmed(len(pool.numbers), now)
        choice = choose(
            order.policy, usable=usable, prefix=memory.prefix.length(now), a=a, b=b, b_key=order.other_key, heat=heat,
            hot=self.hot.get(pool.id, 0),
        )  # fmt: skip
        if choice is not None:
            memory.prefix.note(choice.first_fit, now)
        return choice

    def _next_pool(self, item: _Item, pool: Pool, a: PartyView, b: PartyView) -> None:
        order = item.order
        memory, found_full = self._memory[pool.id], item.full.get(pool.id, 0)
        open_ = pool.open_mask if pool.open else 0
        a_barred, b_barred = a.barred(order.other_key), b.barred(order.a_key)
        if item.sure_since is None:
            item.sure_since = time.monotonic() - FULL_S
        if memory.doubt(open_ & ~found_full & ~a_barred & ~b_barred, item.sure_since):
            self._requeue(item)  # to look, or to hear what another order finds
            return
        counts = refusal(
            size=len(pool.numbers),
            open_=open_,
            full=memory.full | found_full,
            a_barred=a_barred,
            b_barred=b_barred,
            a_live=a.live,
            b_live=b.live,
        )
        reasons = counts.counts()
        # What bars most of its numbers is why the pool refused.
        memory.refusals[max(reasons, key=lambda reason: reasons[reason])] += 1
        for reason, count in reasons.items():
            item.refused[reason] = item.refused.get(reason, 0) + count
        if item.place + 1 < len(order.pools):
            item.place += 1
            item.losses = 0
            item.sure_since = None
            self._requeue(item)
            return
        _refuse(
            item,
            PoolExhausted(
                "No X number may be given to this pair now.",
                extra={
                    "reasons": item.refused,
                    "pools": [tried.name for tried in order.pools],
                },
            ),
        )

    def _claim(self, item: _Item, pool: Pool, x: int, why: str, views: dict[tuple[int, int], PartyView]) -> Claim:
        order = item.order
        a, b = (views[party] for party in item.parties())
        return Claim(
            pool_id=pool.id,
            x_id=x,
            cap=order.app.cap,
            app_id=order.app.id,
            caller_id=order.caller_id,
            line_id=item.line_id,
            binding_id=item.binding_id,
            a_key=order.a_key,
            b_key=order.other_key,
            a_sealed=self._vault.seal("line", "a", pool.id, item.line_id, order.a.reveal()),
            b_sealed=self._vault.seal("line", "b", pool.id, item.line_id, order.other.reveal()),
            direction=order.direction,
            options=order.options.to_text(),
            joinable=order.share,
            line_ttl_s=order.line_ttl_s,
            ttl_s=order.ttl_s,
            chosen=why,
            order_id=order.order_id,
            user_data=order.user_data,
            metadata=order.metadata,
            key_hash=order.key_hash,
            key_token=order.key_token,
            lines_seen=len(_lines_seen(item, views)) if order.share else None,
            seen_by_a=_size(a) <= _size(b),
            at_once=order.mode.at_once or None,
        )

    def _judge(self, item: _Item, claim: Claim, outcome: str, created_at: datetime, asked_at: float) -> None:
        memory = self._memory[claim.pool_id]
        match outcome:
            case "won":
                memory.heat[claim.x_id] += 1
                memory.found_room(claim.x_id)
                self._won(item, claim, created_at, asked_at)
            case "superseded":
                _refuse(item, _taken_over())
            case "full" | "closed":
                # No contention, so no loss: the item goes on at once with one X fewer.
                memory.found_full(claim.x_id, time.monotonic())
                item.full[claim.pool_id] = item.full.get(claim.pool_id, 0) | 1 << claim.x_id
                self._requeue(item)
            case _:
                self.lost_rounds += 1
                self._again(item)

    def _won(
        self, item: _Item, claim: Claim, created_at: datetime, asked_at: float, joined: Joined | None = None
    ) -> None:
        item.over = True
        # As it is known now: the X may have come to the pool since the order was checked.
        pool = self._registry().pools.get(item.pool.id, item.pool)
        allocated = Allocated(
            pool, claim.binding_id, claim.line_id, created_at, asked_at, claim.x_id,
            joined=joined, explanation=item.explanation, at_once=joined is None and bool(claim.at_once),
        )  # fmt: skip
        if not item.tell(allocated) and claim.key_hash is None:
            # Whoever asked is gone and knows no id to ask for.
            self._abandon(claim)

    def _again(self, item: _Item) -> None:
        """Queue a loser again, a little later each time: the winner's transaction is over in milliseconds."""
        item.losses += 1
        item.queued = True
        loop = asyncio.get_running_loop()
        loop.call_later(random.uniform(0.0005, 0.004 * item.losses), self._requeue, item)  # noqa: S311 - jitter

    def _requeue(self, item: _Item) -> None:
        item.queued = True
        self._queue.append(item)
        self._pace.wake()

    async def _reread(self, chosen: list[tuple[_Item, Claim]], asked_at: float) -> None:
        """The claim got no answer and may have been committed: look, or say 'not now'."""
        try:
            found = await bindings.show(self._db, self._vault, [(c.pool_id, c.binding_id) for _, c in chosen])
        except DatabaseAway:
            for _, claim in chosen:
                self._abandon(claim)
            raise
        for item, claim in chosen:
            stored = found.get((claim.pool_id, claim.binding_id))
            if stored is None:
                # The server may not have noticed that we are gone, and commit it yet.
                self._abandon(claim)
                _refuse(item, DatabaseAway("the database did not answer; try again"))
            else:
                self._won(item, claim, stored.created_at, asked_at)

    def _abandon(self, claim: Claim) -> None:
        """Have the claim released if it turns up: with an idempotency key the next try finds it, else nobody would."""
        if claim.key_hash is None:
            ask = ReleaseAsk(claim.pool_id, claim.binding_id, claim.app_id)
            self.abandoned.append((self._boottime() + ABANDONED_S, ask))

    async def rechoose(
        self, call: PlatformCall, *, outcome: str, http: int | None, code: str | None, bar_s: float
    ) -> PlatformCall | str:
        """Give the pending binding of a refused bind another X of its pool.

        Returns the bind call to send next, or ``superseded`` (not ours), ``released`` (nobody wants it any more),
        ``exhausted`` (no other X: nothing was changed).
        """
        registry = self._registry()
        pool, app = registry.pools[call.pool_id], registry.apps[call.app_id]
        order = BindOrder(
            app=app, caller_id=call.caller_id, a=call.a, b=call.b, a_key=call.a_key, b_key=call.b_key, pools=(pool,),
            ttl_s=call.ttl_s, direction=call.direction, policy=Policy.PACK,
        )  # fmt: skip
        avoid = 1 << call.x_id if call.x_id is not None else 0
        for _ in range(2 * _PATIENCE):
            choice = await self.pick(order, avoid=avoid)
            if choice is None:
                return "exhausted"
            line_id = new_id()
            asked_at = self._boottime()
            result = await allocation.rechoose(
                self._db,
                Rechoice(
                    pool_id=pool.id, old_line=call.line_id, no=call.key.no, token=call.key.token, bar_s=bar_s,
                    outcome=outcome, http=http, code=code, x_id=choice.x, cap=app.cap, line_id=line_id,
                    a_sealed=self._vault.seal("line", "a", pool.id, line_id, call.a.reveal()),
                    b_sealed=self._vault.seal("line", "b", pool.id, line_id, order.other.reveal()), chosen=choice.why,
                ),
                mode=LockMode.WAIT,
                lease_s=self._lease_s,
            )  # fmt: skip
            if result == "won":
                return replace(
                    call, key=replace(call.key, line_id=line_id, no=1, token=1), x_id=choice.x,
                    x=pool.numbers[choice.x], lease_until=asked_at + self._lease_s, attempt=0, maybe_sent=False,
                )  # fmt: skip
            if result in {"superseded", "released"}:
                return result
            avoid |= 1 << choice.x if result != "busy" else 0
        return "exhausted"


def _lines_seen(item: _Item, views: dict[tuple[int, int], PartyView]) -> list[UUID]:
    """Return the live lines of the item's pair, as told by the party that has fewer X to look at."""
    a_party, b_party = item.parties()
    a, b = views[a_party], views[b_party]
    if not a.live_with or not b.live_with:
        return []
    return a.lines_with(item.order.other_key) if _size(a) <= _size(b) else b.lines_with(item.order.a_key)


def _size(view: PartyView) -> int:
    return len(view.left) + len(view.live_with)


def _taken_over() -> Conflict:
    return Conflict(
        "Another request with this Idempotency-Key took over.", code="idempotency_in_progress", retry_after_s=1
    )


def _refuse(item: _Item, error: BaseException) -> None:
    if not item.over:
        item.over = True
        item.tell(error)


def open_pools(pools: Iterable[Pool]) -> tuple[Pool, ...]:
    """Return those that hand out numbers."""
    return tuple(pool for pool in pools if pool.open)

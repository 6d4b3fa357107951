"""One statement for many: items that queue while a statement runs share the next one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Sequence
from typing import Any, Generic, TypeVar

import structlog

from broker.errors import Unavailable
from broker.flows.pace import GAP_S, Pace
from broker.store.database import DatabaseAway

log = structlog.get_logger()

T = TypeVar("T")
R = TypeVar("R")


class Batcher(Generic[T, R]):
    """Runs ``run(items) -> results`` (same order) on what has queued, when its :class:`~broker.flows.pace.Pace` says.

    At most ``in_flight`` batches of at most ``size`` items run at once, a lone item at once; over ``queue_limit``
    waiting items a submit is refused. Two items with the same ``distinct`` key never share a batch. A batch that fails
    for a reason of its own is split until the bad item stands alone, so one poisonous item harms no neighbour.
    """

    def __init__(
        self,
        name: str,
        run: Callable[[Sequence[T]], Awaitable[Sequence[R]]],
        *,
        size: int = 200,
        in_flight: int = 2,
        queue_limit: int = 20_000,
        distinct: Callable[[T], Hashable] | None = None,
        hurried: bool = False,
        gap_s: float = GAP_S,
    ) -> None:
        """Describe the statement; nothing runs before the first submit. ``hurried``, ``gap_s``: as of the pace."""
        self._name = name
        self._run = run
        self._size = size
        self._queue_limit = queue_limit
        self._distinct = distinct
        self._queue: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._pace = Pace(
            f"batch {name}", self._begin, lambda: len(self._queue), size=size, in_flight=in_flight, hurried=hurried,
            gap_s=gap_s,
        )  # fmt: skip
        self.batches = 0
        self.items = 0

    async def submit(self, item: T) -> R:
        """Put ``item`` into the next batch and return its result.

        Raises:
            Unavailable: if too many items wait already.
            DatabaseAway: if the statement got no answer; whether it took effect is unknown.
        """
        return await self.enqueue(item)

    def enqueue(self, item: T) -> asyncio.Future[R]:
        """Put ``item`` into the next batch: what :meth:`submit` waits for, without a task for each of many items.

        Raises:
            Unavailable: if too many items wait already.
        """
        if len(self._queue) >= self._queue_limit:
            raise Unavailable("too much is waiting for the database", code="overloaded")
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._queue.append((item, future))
        self._pace.wake()
        return future

    def _begin(self) -> Coroutine[Any, Any, None]:
        batch = self._take()
        self.batches += 1
        self.items += len(batch)
        return self._execute(batch)

    def _take(self) -> list[tuple[T, asyncio.Future[R]]]:
        if self._distinct is None:
            return [self._queue.popleft() for _ in range(min(self._size, len(self._queue)))]
        batch: list[tuple[T, asyncio.Future[R]]] = []
        seen: set[Hashable] = set()
        again: list[tuple[T, asyncio.Future[R]]] = []
        while self._queue and len(batch) < self._size:
            entry = self._queue.popleft()
            key = self._distinct(entry[0])
            (again if key in seen else batch).append(entry)
            seen.add(key)
        self._queue.extendleft(reversed(again))
        return batch

    async def _execute(self, batch: list[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            results = await self._run([item for item, _ in batch])
        except DatabaseAway as away:
            _fail(batch, away)
        except Exception as error:  # noqa: BLE001 - whatever it is, each waiter must hear of it
            await self._isolate(batch, error)
        else:
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)

    async def _isolate(self, batch: list[tuple[T, asyncio.Future[R]]], error: Exception) -> None:
        """Halve a failed batch until the item that spoils it stands alone."""
        if len(batch) == 1:
            log.warning("batch_item_failed", batch=self._name, error=type(error).__name__)
            _fail(batch, error)
            return
        half = len(batch) // 2
        await self._execute(batch[:half])
        await self._execute(batch[half:])


def _fail(batch: Sequence[tuple[object, asyncio.Future[R]]], error: Exception) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import asyncpg
import pytest

from broker.errors import Unavailable
from broker.flows.batching import Batcher
from broker.store.database import DatabaseAway


class Statement:
    """Stands for a statement: answers each item with its square, one batch at a time as the test lets them go."""

    def __init__(self, *, held: bool = False, poison: frozenset[int] = frozenset()) -> None:
        self.batches: list[list[int]] = []
        self.running = 0
        self.most = 0
        self.poison = poison
        self.failures: list[Exception] = []
        self.begun = asyncio.Event()
        self.gate = asyncio.Event()
        if not held:
            self.gate.set()

    async def __call__(self, items: Sequence[int]) -> list[int]:
        """Run a batch."""
        self.batches.append(list(items))
        self.begun.set()
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(0)
            await self.gate.wait()
            if self.failures:
                raise self.failures.pop(0)
            if self.poison & set(items):
                raise asyncpg.exceptions.InvalidTextRepresentationError("poison")
            return [item * item for item in items]
        finally:
            self.running -= 1


async def _all(batcher: Batcher[int, int], items: Sequence[int]) -> list[int | BaseException]:
    return await asyncio.gather(*(batcher.submit(item) for item in items), return_exceptions=True)


async def test_what_queues_shares_a_statement() -> None:
    """Items of one turn of the loop go in one batch; each gets its own result; sizes and flights are bounded."""
    statement = Statement()
    batcher = Batcher[int, int]("test", statement, size=10, in_flight=2)
    assert await _all(batcher, range(35)) == [n * n for n in range(35)]
    assert [len(batch) for batch in statement.batches] == [10, 10, 10, 5]
    assert statement.most == 2
    assert (batcher.batches, batcher.items) == (4, 35)


async def test_a_lone_item_does_not_wait_for_company() -> None:
    """A batch is never held back to be filled."""
    statement = Statement()
    assert await Batcher[int, int]("test", statement).submit(3) == 9
    assert statement.batches == [[3]]


async def test_what_comes_while_a_statement_runs_goes_into_the_next() -> None:
    """With one flight, everything that arrives during a statement shares the next one."""
    statement = Statement(held=True)
    batcher = Batcher[int, int]("test", statement, in_flight=1)
    first = asyncio.create_task(batcher.submit(1))
    await statement.begun.wait()
    rest = asyncio.gather(*(batcher.submit(n) for n in range(2, 6)))
    await asyncio.sleep(0)
    statement.gate.set()
    assert await rest == [4, 9, 16, 25]
    assert await first == 1
    assert statement.batches == [[1], [2, 3, 4, 5]]


async def test_a_poisonous_item_fails_alone() -> None:
    """A batch that fails is halved until the bad items stand alone; every neighbour gets its result."""
    statement = Statement(poison=frozenset({3, 14}))
    answers = await _all(Batcher[int, int]("test", statement, size=16), range(16))
    for item, answer in enumerate(answers):
        if item in statement.poison:
            assert isinstance(answer, asyncpg.PostgresError)
        else:
            assert answer == item * item
    assert len(statement.batches) <= 1 + 2 * 2 * 4


async def test_a_database_that_is_away_fails_all() -> None:
    """Whether it took effect is unknown, so nothing is sent again: every item of the batch hears DatabaseAway."""
    statement = Statement()
    statement.failures = [DatabaseAway("gone")]
    answers = await _all(Batcher[int, int]("test", statement), range(4))
    assert all(isinstance(answer, DatabaseAway) for answer in answers)
    assert len(statement.batches) == 1


async def test_equal_keys_never_share_a_batch() -> None:
    """Items with the same distinct key go one after the other, in their order; the others are not held up."""
    statement = Statement()
    batcher = Batcher[int, int]("test", statement, in_flight=1, distinct=lambda item: item % 10)
    assert await _all(batcher, [1, 11, 21, 2]) == [1, 121, 441, 4]
    assert statement.batches == [[1, 2], [11], [21]]


async def test_the_queue_has_an_end() -> None:
    """Over the limit a submit is refused at once as overloaded, and what waits is served."""
    statement = Statement(held=True)
    batcher = Batcher[int, int]("test", statement, size=2, in_flight=1, queue_limit=3)
    waiting = [asyncio.create_task(batcher.submit(n)) for n in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable) as refused:
        await batcher.submit(99)
    assert refused.value.code == "overloaded"
    statement.gate.set()
    assert await asyncio.gather(*waiting) == [0, 1, 4]


async def test_a_waiter_that_went_away_harms_nobody() -> None:
    """A cancelled submit loses its result only; its neighbours get theirs."""
    statement = Statement(held=True)
    batcher = Batcher[int, int]("test", statement)
    gone, stays = asyncio.create_task(batcher.submit(1)), asyncio.create_task(batcher.submit(2))
    await statement.begun.wait()
    gone.cancel()
    await asyncio.sleep(0)
    statement.gate.set()
    assert await stays == 4
    assert gone.cancelled()


async def test_a_submit_in_the_moment_a_batch_ends_is_not_forgotten() -> None:
    """Whoever submits as soon as its first result is there is served, also when nobody else comes along."""
    batcher = Batcher[int, int]("test", Statement(), in_flight=1)

    async def twice(item: int) -> int:
        return await batcher.submit(await batcher.submit(item))

    async with asyncio.timeout(1):
        assert await twice(2) == 16


async def test_among_few_a_batch_gathers_for_as_long_as_two_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes right after a batch has begun shares the next, which begins soon; later a lone item goes at once."""
    loop, statement = asyncio.get_running_loop(), Statement()
    now_s = loop.time()
    monkeypatch.setattr(loop, "time", lambda: now_s)
    batcher = Batcher[int, int]("test", statement, size=10, in_flight=2)

    async def one_that_takes_5_ms(item: int) -> None:
        nonlocal now_s
        statement.gate.clear()
        statement.begun.clear()
        asked = asyncio.ensure_future(batcher.submit(item))
        await statement.begun.wait()
        now_s += 0.005
        statement.gate.set()
        await asked

    for item in range(30):
        await one_that_takes_5_ms(item)
        now_s += 1.0
    await batcher.submit(30)
    shared = asyncio.gather(batcher.submit(31), batcher.submit(32))
    await asyncio.sleep(0)
    later = asyncio.ensure_future(batcher.submit(33))
    now_s += 0.007  # 30 took no time: two take 8 ms now
    for _ in range(5):
        await asyncio.sleep(0)
    assert statement.batches[30:] == [[30]]
    now_s += 0.002
    await asyncio.gather(shared, later)
    assert statement.batches[31:] == [[31, 32, 33]]
    now_s += 1.0
    assert await batcher.submit(34) == 34 * 34

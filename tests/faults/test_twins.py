"""One effect and one answer for each Idempotency-Key, however many ask at once and whoever dies meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from tests.faults.service import QUICK, eventually, send, service
from tests.faults.twins import Twins

pytestmark = pytest.mark.slow

KEYS, TWINS = int(os.environ.get("TEST_KEYS", "200")), 50


async def test_twins_of_many_keys_and_killed_workers(make_database: Callable[[], str], folder: Path) -> None:
    """One worker is killed after a commit, the other one in the middle of everything: a binding and an answer a key."""
    async with service(
        folder, database=make_database(), **QUICK, BROKER_TEST_CRASH_AT=f"after_commit:kill:{KEYS // 5}"
    ) as running:
        twins = Twins(running, KEYS, TWINS, connections=100)
        sending = asyncio.create_task(twins.run(within_s=150))

        async def half() -> bool:
            return twins.answered > KEYS * TWINS / 2 or sending.done()

        await eventually(half, within_s=150)
        crashed = await running.crashed(within_s=1)
        assert crashed in running.workers
        for pid in set(running.workers) - {crashed}:
            send(pid, signal.SIGKILL)
        await sending
        print(f"{twins.answered} answers, {twins.lost} connections lost, again: {dict(twins.repeated)}")  # noqa: T201

        assert [sum(told.values()) for told in twins.told] == [TWINS] * KEYS
        assert [len(told) for told in twins.told] == [1] * KEYS
        answers = [next(iter(told)) for told in twins.told]
        assert {answer.status for answer in answers} <= {201, 202}
        # Whoever was not given a replay was the one that did the work; what a killed worker did is only replayed.
        assert max(twins.first) == 1
        assert twins.first.count(0) <= twins.lost
        ids = {orjson.loads(answer.body)["id"] for answer in answers}
        assert {answer.location for answer in answers} == {f"/v1/bindings/{binding}" for binding in ids}
        assert len(ids) == KEYS

        async def settled() -> bool:
            return await running.open_calls() == 0

        await eventually(settled, within_s=30)
        assert await running.ask("SELECT array[count(*), count(DISTINCT order_id)] FROM binding") == [KEYS, KEYS]
        assert await running.ask("SELECT count(*) FROM line WHERE state = 'active'") == KEYS
        parties = {twins.order(key)["a"] for key in range(KEYS)}
        effects = [row["a"] for row in await running.ledger() if row["op"] == "bind"]
        assert len(effects) == KEYS
        assert set(effects) == parties
        assert await running.books() == []

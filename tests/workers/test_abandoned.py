"""A claim whose answer was lost, and which commits later, is not left to bind for nobody."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from broker.errors import Unavailable
from broker.store.database import Database, DatabaseAway
from broker.workers.housekeeping import release_abandoned
from tests.emulator.support import Emulated
from tests.workers.rig import Gate, eventually, instance

A, B = "+8613900000001", "+8613900000002"


@pytest.mark.parametrize("readable", [True, False])
async def test_a_claim_that_commits_later_is_released(seeded: str, emu: Emulated, *, readable: bool) -> None:
    """The connection is cut while the claim runs; whether or not the re-read works, what turns up later is released."""
    gate = Gate(seeded)
    await gate.open()
    direct = Database(seeded, connections=3, timeout_s=5)
    await direct.open()
    blocker = await asyncpg.connect(seeded)
    try:
        async with instance(gate.dsn, emu) as one:
            holding = blocker.transaction()
            await holding.start()
            await blocker.execute("LOCK TABLE slot IN SHARE MODE")
            asked = asyncio.create_task(one.bind(A, B, ttl_s=0))

            async def blocked() -> bool:
                row = await direct.fetchrow("SELECT count(*) AS n FROM pg_locks WHERE NOT granted")
                return bool(row and row["n"])

            await eventually(blocked)
            if readable:
                gate.cut()
            else:
                await gate.shut()
            with pytest.raises(Unavailable):
                await asked
            if not readable:
                await gate.open()
            await eventually(lambda: _looked(one.db, one.allocator.abandoned))
            assert len(one.allocator.abandoned) == 1
            await holding.rollback()

            async def found() -> bool:
                await release_abandoned(direct, one.allocator.abandoned)
                return not one.allocator.abandoned

            await eventually(found)
            await one.end_leases()
            await one.rescue()
            await one.idle()
            assert await emu.bindings() == []
            states = await direct.fetch("SELECT state, reason FROM binding")
            assert [(row["state"], row["reason"]) for row in states] == [("released", "withdrawn")]
    finally:
        await blocker.close()
        await direct.close()
        await gate.shut()


async def _looked(db: Database, queue: object) -> bool:
    try:
        await release_abandoned(db, queue)  # type: ignore[arg-type]
    except DatabaseAway:
        return False
    return True

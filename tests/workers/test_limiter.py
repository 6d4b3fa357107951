"""The outbound limit is exact over instances, and nearly all of it can be used."""

from __future__ import annotations

import asyncio
import time

from bench.windows import excess
from broker.flows.calls import Active
from broker.platform.huawei.app import AppAccess
from broker.platform.huawei.axb import HuaweiAxb
from broker.platform.huawei.request import Scheme
from broker.platform.protocol import Answer, BindLine, Permit
from broker.store.database import Database
from broker.store.registry import App
from tests.emulator.support import Emulated
from tests.workers.rig import Instance, effects, forget_lease, instance, seed

RATE, BURST, CALLS = 50.0, 5, 300


class _Watched(HuaweiAxb):
    """Notes when each bind leaves, by the clock that both instances of the test share."""

    def __init__(self, app: App, left: list[float]) -> None:
        super().__init__(AppAccess(app.app_key, app.secret, app.base_url, Scheme(app.auth_scheme)))
        self._left = left

    async def bind(self, request: BindLine, *, permit: Permit, timeout_s: float) -> Answer:
        def watched() -> bool:
            if not permit():
                return False
            self._left.append(time.monotonic())
            return True

        return await super().bind(request, permit=watched, timeout_s=timeout_s)


async def test_two_instances_never_exceed_the_rate(database_url: str, emu: Emulated) -> None:
    """300 calls at once from two instances: no window is over burst + rate x T, and 95 % of it is used.

    Measured where the calls leave: a machine short of time lets them queue on the way and arrive in one clump.
    """
    db = Database(database_url, connections=2, timeout_s=5)
    await db.open()
    await seed(db, emu, rate=RATE, burst=BURST)
    await db.close()
    times: list[float] = []

    def watched(app: App) -> _Watched:
        return _Watched(app, times)

    async with (
        instance(database_url, emu, platform=watched) as first,
        instance(database_url, emu, platform=watched) as second,
    ):

        async def load(one: Instance, begin: int) -> list[object]:
            pairs = ((f"+86139{n:08d}", f"+86138{n:08d}") for n in range(begin, begin + CALLS // 2))
            made = await asyncio.gather(*(one.bind(*pair, within_s=20) for pair in pairs))
            return [accepted.outcome for accepted in made]

        outcomes = await asyncio.gather(load(first, 0), load(second, 1000))
    assert all(isinstance(outcome, Active) for listed in outcomes for outcome in listed)
    assert len(effects(await emu.ledger(), "bind")) == len(times) == CALLS
    times.sort()
    over = excess(times, rate=RATE, burst=BURST)
    used = CALLS / (BURST + RATE * (times[-1] - times[0]))
    print(f"limiter: {used:.1%} of the budget used, worst window {over:+.2f} calls against the bound")  # noqa: T201
    assert over <= 0
    assert used >= 0.95


async def test_a_slot_that_passed_while_the_lease_was_renewed_is_given_up(database_url: str, emu: Emulated) -> None:
    """A call whose renewal takes longer than a slot may be late asks for another slot instead of sending late."""
    db = Database(database_url, connections=2, timeout_s=5)
    await db.open()
    await seed(db, emu, rate=1.0, burst=10)
    await db.fetch("INSERT INTO limiter (app_id, tat) VALUES (1, clock_timestamp())")
    await db.close()
    async with instance(database_url, emu) as one:
        await one.bind("+8613900000001", "+8613900000002")
        before = (await one.rows("SELECT tat FROM limiter"))[0]["tat"]
        await one.db.fetch(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql"
            " AS $$ BEGIN PERFORM pg_sleep(0.1); RETURN NEW; END $$"
        )
        await one.db.fetch(
            "CREATE TRIGGER slow BEFORE UPDATE ON platform_call FOR EACH ROW WHEN (NEW.state = 'open')"
            " EXECUTE FUNCTION slow()"
        )
        await one.bind("+8613900000003", "+8613900000004", wait=False)
        forget_lease(one.only_call())
        await one.idle()
        after = (await one.rows("SELECT tat FROM limiter"))[0]["tat"]
        assert (after - before).total_seconds() == 2.0
        assert len(effects(await emu.ledger(), "bind")) == 2

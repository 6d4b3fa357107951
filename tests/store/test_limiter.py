from __future__ import annotations

import asyncio
import random

import asyncpg
import pytest

from broker.store.limits import Limit, Slots, give_back, stop_for_flow, take_slots
from tests.store.shop import Shop

_ASK = "SELECT at_s, every_s, granted FROM take_slots($1, $2, $3, $4, make_interval(secs => $5))"
_TAT = "SELECT extract(epoch FROM tat)::double precision FROM limiter WHERE app_id = $1"


async def _rested(shop: Shop) -> None:
    await shop.run("INSERT INTO limiter (app_id, tat) VALUES ($1, clock_timestamp() - interval '1 hour')", shop.app_id)


async def test_after_a_pause_the_burst_goes_out_at_once(shop: Shop) -> None:
    """A rested limiter grants its burst for now, but for 50 ms' worth that late sends may need, and the rest spaced."""
    await _rested(shop)
    slots = await take_slots(shop.db, shop.app_id, want=8, limit=Limit(10.0, 5), horizon_s=10)
    assert slots.granted == 8
    times = [max(0.0, slots.first_s + k * slots.every_s) for k in range(8)]
    assert times == pytest.approx([0, 0, 0, 0, 0.05, 0.15, 0.25, 0.35], abs=1e-5)


async def test_a_lost_state_starts_without_burst(shop: Shop) -> None:
    """Without a row (new, or lost in a crash) the first slot is now and the next ones are spaced: no burst."""
    slots = await take_slots(shop.db, shop.app_id, want=4, limit=Limit(10.0, 5), horizon_s=10)
    times = [max(0.0, slots.first_s + k * slots.every_s) for k in range(slots.granted)]
    assert times == pytest.approx([0, 0.1, 0.2, 0.3], abs=0.01)


async def test_slots_beyond_the_horizon_are_left(shop: Shop) -> None:
    """No slot later than the horizon is granted; who gets none is told when to come back, and takes nothing."""
    await _rested(shop)
    first = await take_slots(shop.db, shop.app_id, want=100, limit=Limit(1.0, 1), horizon_s=3.5)
    assert first.granted == 4
    tat = await shop.value(_TAT, shop.app_id)
    nothing = await take_slots(shop.db, shop.app_id, want=100, limit=Limit(1.0, 1), horizon_s=1)
    assert nothing.granted == 0
    assert 3 < nothing.first_s <= 4
    assert await shop.value(_TAT, shop.app_id) == tat
    more = await take_slots(shop.db, shop.app_id, want=1, limit=Limit(1.0, 1), horizon_s=4.5)
    assert more.granted == 1


async def test_apps_do_not_share_a_limit(shop: Shop) -> None:
    """Each app has its own state."""
    for app_id in (shop.app_id, shop.app_id + 1):
        slots = await take_slots(shop.db, app_id, want=5, limit=Limit(1.0, 1), horizon_s=1.5)
        assert slots.granted == 2


@pytest.mark.parametrize("rate", [3.0, 7.0, 300.0, 700.0, 1111.0, 30_000.0])
async def test_many_single_slots_do_not_add_up_rounding(shop: Shop, rate: float) -> None:
    """The database counts microseconds: rounding never lets more through than the rate, nor wastes a hundredth."""
    await _rested(shop)
    # So many at first that the state stays ahead of the clock throughout.
    await shop.run(_ASK, shop.app_id, int(rate * 10), rate, 1, 3600.0)
    begun = await shop.value(_TAT, shop.app_id)
    for _ in range(40):
        await shop.run(_ASK, shop.app_id, 25, rate, 1, 3600.0)
    passed = await shop.value(_TAT, shop.app_id) - begun
    due = 40 * 25 / rate
    assert due - 1e-6 <= passed <= due * 1.01


_RATE, _BURST = 400.0, 7
_ENOUGH = 250


async def _hammer(url: str, app_id: int, dice: random.Random, sent: list[float]) -> None:
    """Take slots as fast as possible; note each one's time, from the limiter's state under its own lock."""
    connection = await asyncpg.connect(url)
    try:
        while len(sent) < _ENOUGH:
            async with connection.transaction():
                answer = await connection.fetchrow(_ASK, app_id, dice.randrange(1, 6), _RATE, _BURST, 0.02)
                assert answer is not None
                first_s, every_s, granted = answer
                tat = await connection.fetchval(_TAT, app_id)
            if granted:
                base = tat - granted * every_s
                now = base - (_BURST - 1) * every_s - first_s
                sent += [max(now, now + first_s + k * every_s) for k in range(granted)]
    finally:
        await connection.close()


async def test_no_window_is_over_the_limit_however_many_ask(shop: Shop, database_url: str) -> None:
    """Several connections hammering: in every window of length T at most burst + rate x T slots, and few are wasted."""
    await _rested(shop)
    sent: list[float] = []
    dice = random.Random(3)  # noqa: S311 - sizes of asks
    await asyncio.gather(*(_hammer(database_url, shop.app_id, dice, sent) for _ in range(5)))
    sent.sort()
    least = float("inf")
    for place, at in enumerate(sent):
        least = min(least, place - _RATE * at)
        # Slots from the one where the difference was least up to this one.
        assert place + 1 - _RATE * at - least <= _BURST + 0.01
    assert len(sent) >= 0.9 * min(_ENOUGH, _BURST + _RATE * (sent[-1] - sent[0]))


async def test_unused_slots_go_back_unless_somebody_took_more(shop: Shop) -> None:
    """What nobody used is free again; once others have taken slots it is lost."""
    await _rested(shop)
    limit = Limit(1000.0, 500)
    first = await take_slots(shop.db, shop.app_id, want=1, limit=limit, horizon_s=0.2, slice_s=0.01, ahead_s=0.02)
    assert first.granted == 21
    before = await shop.value(_TAT, shop.app_id)
    assert await give_back(shop.db, shop.app_id, first, 20)
    assert await shop.value(_TAT, shop.app_id) == pytest.approx(before - 0.02, abs=1e-5)
    second = await take_slots(shop.db, shop.app_id, want=1, limit=limit, horizon_s=0.2)
    await take_slots(shop.db, shop.app_id, want=1, limit=limit, horizon_s=0.2)
    assert not await give_back(shop.db, shop.app_id, second, 1)


async def test_near_the_limit_a_slice_is_short(shop: Shop) -> None:
    """With the burst gone only the slots of the next moment are given, or one that is further away."""
    fast = await take_slots(shop.db, shop.app_id, want=500, limit=Limit(1000.0, 1), horizon_s=0.2, slice_s=0.01)
    assert 1 <= fast.granted <= 11
    slow = await take_slots(shop.db, shop.app_id + 1, want=500, limit=Limit(20.0, 1), horizon_s=0.2, slice_s=0.01)
    assert slow.granted == 1
    later = await take_slots(shop.db, shop.app_id + 1, want=500, limit=Limit(20.0, 1), horizon_s=0.2, slice_s=0.01)
    assert later.granted == 1
    assert later.first_s > 0


async def test_an_interface_with_its_own_rate_leaves_the_others_their_slots(shop: Shop) -> None:
    """One that is used up takes nothing of the app's limit, and says when it may be asked again."""
    await _rested(shop)

    async def take(interface: str) -> Slots:
        own = 1.0 if interface else None
        return await take_slots(
            shop.db, shop.app_id, want=5, limit=Limit(100.0, 50), horizon_s=0.2, interface=interface, own_rate=own
        )

    assert (await take("query")).granted == 1
    tat = await shop.value(_TAT + " AND interface = ''", shop.app_id)
    refused = await take("query")
    assert refused.granted == 0
    assert 0.5 < refused.first_s <= 1
    assert await shop.value(_TAT + " AND interface = ''", shop.app_id) == tat
    assert (await take("")).granted == 5


async def test_a_pause_stops_and_then_halves(shop: Shop) -> None:
    """While the platform wants silence nothing is given; afterwards slots are twice as far apart."""
    await stop_for_flow(shop.db, shop.app_id, 30.0)
    nothing = await take_slots(shop.db, shop.app_id, want=1, limit=Limit(10.0, 1), horizon_s=0.2)
    assert nothing.granted == 0
    assert 20 < nothing.first_s <= 30
    await stop_for_flow(shop.db, shop.app_id, 30.0)
    assert await shop.value("SELECT pace FROM platform_stop") == 0.5
    await shop.run("UPDATE platform_stop SET until = clock_timestamp()")
    slots = await take_slots(shop.db, shop.app_id, want=1, limit=Limit(10.0, 1), horizon_s=0.2)
    assert slots.every_s == pytest.approx(0.2, rel=0.2)
    await shop.run("UPDATE platform_stop SET until = clock_timestamp() - interval '1 minute'")
    slots = await take_slots(shop.db, shop.app_id, want=1, limit=Limit(10.0, 1), horizon_s=5)
    assert slots.every_s == pytest.approx(0.1)

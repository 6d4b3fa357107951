from __future__ import annotations

import asyncio
import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from broker.domain.number_status import Status, standing
from broker.flows.number_status import Applied, apply_number_status, heed_account, heed_refusal
from broker.flows.operate import numbers, pools
from broker.flows.operate.fields import Closing, NumberFilter, Numbers
from tests.store.shop import Shop
from tests.store.test_operate import desk_of

_T = datetime(2026, 3, 1, 12, tzinfo=UTC)


async def first_x(shop: Shop) -> str:
    """The number in the first place of the first pool."""
    return str(await shop.value("SELECT number FROM x_number WHERE pool_id = $1 AND x_id = 0", shop.pool))


async def push(shop: Shop, hours: float, status: str, cause: str = "") -> Applied:
    """A push about the first number, created so many hours after noon."""
    at = _T + timedelta(hours=hours)
    return await apply_number_status(shop.db, shop.app_id, await first_x(shop), status, cause, at)


async def shown(shop: Shop) -> dict[str, Any]:
    """The first number as operators see it."""
    x = await first_x(shop)
    (row,) = [row for row in await numbers.every(desk_of(shop), "shop", NumberFilter()) if row["number"] == x]
    return row


async def evacuations(shop: Shop) -> list[tuple[str, str]]:
    """What moves: (why, state)."""
    return [tuple(row) for row in await shop.db.fetch("SELECT why, state FROM evacuation ORDER BY x_id")]


async def test_a_status_closes_and_shows_why_since_when(shop: Shop) -> None:
    """Suspended by a status: not handed out, in the lists of numbers and pools with its reason; told as an event."""
    await shop.run("UPDATE app SET event_days = 1")
    assert await push(shop, 0, "10", "5") is Applied.CHANGED
    row = await shown(shop)
    assert (row["state"], row["closed_by"], row["evacuation"]) == ("suspended", "status", "open")
    assert row["state_reason"] == "platform status 10 (unavailable, cause 5: restricted by the operator)"
    assert row["platform_status"] == row["state_reason"]
    assert row["platform_status_at"] == _T
    assert await shop.reserve(shop.claim(1, 2)) == ["closed"]
    pool = next(pool for pool in await pools.every(desk_of(shop), "shop") if pool["name"] == "pool-1")
    assert (pool["open_numbers"], pool["suspended_numbers"], pool["frozen_numbers"]) == (3, 1, 0)
    (event,) = await shop.db.fetch("SELECT type, x, reason, data ->> 'state' AS state, data ->> 'by' AS by FROM event")
    assert tuple(event) == ("number.status", await first_x(shop), row["state_reason"], "suspended", "status")
    assert await push(shop, 0, "10", "5") is Applied.UNCHANGED
    assert await shop.value("SELECT count(*) FROM event") == 1


async def test_frozen_by_a_status_keeps_its_lines(shop: Shop) -> None:
    """Binding frozen: no new lines; what is there goes on, so nothing is moved."""
    await push(shop, 0, "11")
    row = await shown(shop)
    assert (row["state"], row["evacuation"]) == ("frozen", None)


async def test_normal_opens_what_a_status_closed_after_six_hours_only(shop: Shop) -> None:
    """A 5 sooner is noted and shown, not believed; one six hours after the last other opens."""
    await push(shop, 0, "9")
    since = (await shown(shop))["state_since"]
    await push(shop, 2, "5")
    row = await shown(shop)
    assert row["state"] == "suspended"
    assert row["state_since"] == since
    assert "normal 2 h 0 min later" in row["state_reason"]
    assert await push(shop, 6, "5") is Applied.CHANGED
    row = await shown(shop)
    assert (row["state"], row["state_reason"], row["closed_by"]) == ("open", None, None)
    assert await shop.reserve(shop.claim(1, 2)) == ["won"]
    assert await push(shop, 1, "10", "2") is Applied.CHANGED
    assert (await shown(shop))["state"] == "suspended"


async def test_an_operators_freeze_is_never_undone(shop: Shop) -> None:
    """Frozen by hand before, or after a status did: a 5 opens neither; but a dead number is evacuated all the same."""
    desk, x = desk_of(shop), await first_x(shop)
    await numbers.freeze(desk, "shop", Closing(numbers=[x], reason="spam list"))
    await push(shop, 0, "9")
    row = await shown(shop)
    assert (row["state"], row["state_reason"], row["closed_by"]) == ("frozen", "spam list", "operator")
    assert row["platform_status"] == "platform status 9 (suspended)"
    assert await evacuations(shop) == [("status", "open")]
    await push(shop, 24, "5")
    assert (await shown(shop))["state"] == "frozen"
    await numbers.reopen(desk, "shop", Numbers(numbers=[x]))
    await shop.run("DELETE FROM number_status")
    now = (datetime.now(UTC) - _T).total_seconds() / 3600
    await push(shop, now + 1, "11")
    assert (await shown(shop))["closed_by"] == "status"
    await numbers.freeze(desk, "shop", Closing(numbers=[x], reason="ours now"))
    row = await shown(shop)
    assert (row["state"], row["closed_by"], row["state_reason"]) == ("frozen", "operator", "ours now")
    await push(shop, now + 24, "5")
    assert (await shown(shop))["state"] == "frozen"


async def test_what_an_operator_opened_stays_open_for_old_pushes(shop: Shop) -> None:
    """Late pushes from before the operator's word change nothing; a newer one closes again."""
    desk, x = desk_of(shop), await first_x(shop)
    await push(shop, 0, "9")
    await numbers.reopen(desk, "shop", Numbers(numbers=[x]))
    await push(shop, 1, "10", "1")
    assert (await shown(shop))["state"] == "open"
    later = (datetime.now(UTC) - _T).total_seconds() / 3600 + 1
    await push(shop, later, "10", "1")
    assert (await shown(shop))["state"] == "suspended"


async def test_any_order_of_arrival_comes_to_the_same(shop: Shop) -> None:
    """All orders of five pushes, some at the same time: the number stands as the rule says of the set."""
    pushes = [(0, "9", ""), (7, "5", ""), (8, "11", ""), (3, "10", "2"), (13, "5", "")]
    wanted = standing([Status(_T + timedelta(hours=at), status, cause) for at, status, cause in pushes])
    for order in itertools.islice(itertools.permutations(pushes), 0, 120, 7):
        await shop.run("DELETE FROM number_status")
        await shop.run("UPDATE x_number SET state = 'open', closed_by = NULL, state_reason = NULL, opened_at = NULL")
        await asyncio.gather(*(push(shop, *one) for one in order))
        row = await shown(shop)
        assert (row["state"], row["state_reason"]) == (wanted.state, wanted.reason), order


async def test_a_number_of_another_app_is_not_known(shop: Shop) -> None:
    """What is no number of the app changes nothing."""
    x = await first_x(shop)
    assert await apply_number_status(shop.db, shop.app_id + 1, x, "9", "", _T) is Applied.UNKNOWN_NUMBER
    assert await apply_number_status(shop.db, shop.app_id, "+8610", "9", "", _T) is Applied.UNKNOWN_NUMBER
    assert (await shown(shop))["state"] == "open"


async def test_what_is_no_number_of_the_app_by_its_code_is_suspended(shop: Shop) -> None:
    """1011001 and 1012001 of a bind suspend the X; no status opens it again, an operator does."""
    for x_id, code in ((0, "1011001"), (1, "1012001")):
        await heed_refusal(shop.db, code, (shop.pool, x_id), (1, 2))
    closed = await shop.db.fetch(
        "SELECT state, closed_by, state_reason FROM x_number WHERE state <> 'open' ORDER BY x_id"
    )
    assert [tuple(row) for row in closed] == [
        ("suspended", "code", f"result code {code}: it is not a number of this app") for code in ("1011001", "1012001")
    ]
    assert await evacuations(shop) == []
    await push(shop, 0, "5")
    assert (await shown(shop))["state"] == "suspended"


async def test_a_blacklisted_x_is_told_from_a_blacklisted_party(shop: Shop) -> None:
    """One pair, pairs with a party in common, a pair that other X refuse, too: it stays open. Two others freeze it."""
    x = shop.pool, 0
    await heed_refusal(shop.db, "1012102", x, (1, 2))
    await heed_refusal(shop.db, "1012102", x, (1, 3))
    await heed_refusal(shop.db, "1012102", (shop.pool, 1), (1, 3))
    await heed_refusal(shop.db, "1012102", x, (4, 5))
    assert (await shown(shop))["state"] == "open"
    await heed_refusal(shop.db, "1012102", x, (6, None))
    row = await shown(shop)
    assert (row["state"], row["closed_by"]) == ("frozen", "code")
    assert "blacklist" in row["state_reason"]


@pytest.mark.parametrize("code", ["1010029", "1010008", None])
async def test_a_frozen_account_suspends_the_app(shop: Shop, code: str | None) -> None:
    """1010029 does, with the reason and since when; other codes do not."""
    await heed_account(shop.db, code, shop.app_id)
    row = await shop.db.fetchrow("SELECT state, state_reason, state_since IS NOT NULL AS dated FROM app")
    assert row is not None
    frozen = "result code 1010029: the account is frozen, usually for arrears"
    assert tuple(row) == (("suspended", frozen, True) if code == "1010029" else ("open", None, False))

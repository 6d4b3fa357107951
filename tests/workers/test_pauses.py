"""When the platform wants silence: flow control, wrong secrets, a blocked source address."""

from __future__ import annotations

import asyncio

import pytest

from broker.errors import PlatformRefused
from broker.flows.calls import Active, Failed
from broker.store.registry import App
from tests.emulator.support import KEY, X1, X2, X3, Emulated, Json
from tests.workers.rig import Instance, eventually, instance, milliseconds, requests, vault


def pair(number: int) -> tuple[str, str]:
    """Return the parties of the nth order."""
    return f"+86139{number:08d}", f"+86138{number:08d}"


async def answers(emu: Emulated) -> Json:
    """What the emulator has answered so far, unsigned and refused requests included."""
    return dict((await emu.ask("GET", "health")).body["answers"])


@pytest.mark.parametrize("code", ["1010010", "1011006"])
async def test_flow_control_pauses_the_lane(one: Instance, code: str) -> None:
    """After one refusal nothing is sent for the pause, then everything is done; no bind is lost or doubled."""
    await one.emu.fault(interface="bind", kind="code", http=403, code=code, count=1)
    first = asyncio.create_task(one.bind(*pair(0)))

    async def refused() -> bool:
        return one.dispatcher.backlog_s(one.app.id) > 0

    await eventually(refused)
    made = await asyncio.gather(first, *(one.bind(*pair(number)) for number in range(1, 20)))
    assert all(isinstance(accepted.outcome, Active) for accepted in made)
    ledger = requests(await one.emu.ledger(), "bind", "query")
    assert [row["result_code"] for row in ledger] == [code] + ["0"] * 20
    assert milliseconds(ledger[1]["received_at"]) - milliseconds(ledger[0]["received_at"]) >= 398


async def spoil_secret(one: Instance) -> None:
    """Write a wrong secret into the app's row."""
    sealed = vault().seal("app", "secret", 0, "test", "mistyped")
    await one.db.fetch("UPDATE app SET secret_sealed = $1", sealed)
    await one.reload()


async def test_two_bad_digests_shut_the_lane(one: Instance) -> None:
    """However many calls wait, a wrong secret is tried twice; they fail, and so does what is asked after them."""
    await spoil_secret(one)
    made = await asyncio.gather(*(one.bind(*pair(number)) for number in range(30)))
    assert {accepted.outcome.reason for accepted in made if isinstance(accepted.outcome, Failed)} == {
        "platform_refused"
    }
    assert all(isinstance(accepted.outcome, Failed) for accepted in made)
    assert await answers(one.emu) == {"401/1010010": 2}
    with pytest.raises(PlatformRefused):
        await one.bind(*pair(99))
    assert await answers(one.emu) == {"401/1010010": 2}
    assert await one.held() == []


async def test_a_secret_that_goes_bad_under_load(one: Instance) -> None:
    """After the first refused signature only one call at a time is risked."""
    await one.bind(*pair(0))
    await one.emu.app(secret="rotated")
    made = await asyncio.gather(*(one.bind(*pair(number)) for number in range(1, 200)))
    assert all(isinstance(accepted.outcome, Failed) for accepted in made)
    refused = (await answers(one.emu))["401/1010010"]
    assert refused <= one.width + 1


async def test_a_new_secret_opens_the_lane(one: Instance) -> None:
    """When the app's secret changes, calls are sent again, signed with the new one."""
    await spoil_secret(one)
    await asyncio.gather(*(one.bind(*pair(number)) for number in range(3)))
    await one.emu.app(secret="brand-new")
    await one.db.fetch("UPDATE app SET secret_sealed = $1", vault().seal("app", "secret", 0, "test", "brand-new"))
    await one.reload()
    assert isinstance((await one.bind(*pair(9))).outcome, Active)


async def test_an_unbind_survives_a_shut_lane(one: Instance) -> None:
    """A release accepted while the secret is wrong holds its number and is carried out once the secret is right."""
    made = await one.bind(*pair(0))
    right = (await one.rows("SELECT secret_sealed FROM app"))[0]["secret_sealed"]
    await spoil_secret(one)
    await asyncio.gather(*(one.bind(*pair(number)) for number in range(1, 3)))
    assert (await one.release(made, wait=False)).state == "releasing"
    assert await one.held() == [(X1, True), (X1, True)]
    await one.db.fetch("UPDATE app SET secret_sealed = $1", right)
    await one.reload()
    assert (await one.state(made, "released")).reason == "released"
    assert await one.emu.bindings() == []


async def second_app(one: Instance) -> None:
    """Add another app with one number to the emulator and the database."""
    await one.emu.app(key="app-two", secret="secret-two")
    await one.emu.numbers("+8617000000201", key="app-two")
    sealed = vault().seal("app", "secret", 0, "second", "secret-two")
    await one.db.fetch(
        "WITH made AS (INSERT INTO app (name, mode, app_key, secret_sealed, base_url)"
        " VALUES ('second', 'axb', 'app-two', $1, $2) RETURNING id),"
        " pool AS (INSERT INTO pool (app_id, name, area_code) SELECT id, 'other', '0755' FROM made RETURNING id)"
        " INSERT INTO x_number (pool_id, x_id, number) SELECT id, 0, '+8617000000201' FROM pool",
        sealed,
        one.emu.wire,
    )
    await one.reload()


def other_app(one: Instance) -> App:
    """The app that :func:`second_app` added."""
    return next(app for app in one.known.apps.values() if app.name == "second")


@pytest.mark.parametrize("known", [True, False], ids=["its lane is open", "its lane is new"])
async def test_a_blocked_source_stops_every_app(one: Instance, *, known: bool) -> None:
    """1020176 is about our address: no app sends anything until the block is over."""
    await second_app(one)
    if known:
        one.dispatcher.backlog_s(other_app(one).id)
    await one.emu.fault(interface="bind", kind="code", http=403, code="1020176", count=1)
    first = asyncio.create_task(one.bind(*pair(0)))

    async def blocked() -> bool:
        return one.dispatcher.backlog_s(one.app.id) > 0.1

    await eventually(blocked)
    assert one.dispatcher.backlog_s(other_app(one).id) > 0.1
    made = await asyncio.gather(first, *(one.bind(*pair(number)) for number in range(1, 5)))
    assert all(isinstance(accepted.outcome, Active) for accepted in made)
    ledger = await one.emu.ledger()
    assert [row["result_code"] for row in ledger] == ["1020176"] + ["0"] * 5
    assert milliseconds(ledger[1]["received_at"]) - milliseconds(ledger[0]["received_at"]) >= 998


async def test_a_block_outlives_a_corrected_secret(one: Instance) -> None:
    """A lane that is made anew while our address is blocked keeps silent too."""
    await one.emu.fault(interface="bind", kind="code", http=403, code="1020176", count=1)
    first = asyncio.create_task(one.bind(*pair(0), within_s=3))

    async def blocked() -> bool:
        return one.dispatcher.backlog_s(one.app.id) > 0.1

    await eventually(blocked)
    await one.emu.app(secret="brand-new")
    await one.db.fetch("UPDATE app SET secret_sealed = $1", vault().seal("app", "secret", 0, "test", "brand-new"))
    await one.reload()
    assert isinstance((await one.bind(*pair(1))).outcome, Active)
    await first
    ledger = await one.emu.ledger()
    assert milliseconds(ledger[1]["received_at"]) - milliseconds(ledger[0]["received_at"]) >= 998


async def test_waiting_calls_move_to_the_new_lane(seeded: str, emu: Emulated) -> None:
    """Calls that wait in a lane whose app's access changes are sent by the new driver, without a wasted turn."""
    async with instance(seeded, emu) as one:
        await one.db.fetch("UPDATE app SET rate = 1, burst = 1")
        await one.reload()
        binds = [asyncio.create_task(one.bind(*pair(number))) for number in range(12)]

        async def queued() -> bool:
            return one.dispatcher.running == 12

        await eventually(queued)
        await one.db.fetch("UPDATE app SET rate = 1000, burst = 100")
        await one.reload()
        last = await one.bind(*pair(50))
        made = await asyncio.wait_for(asyncio.gather(*binds), 4)
        assert all(isinstance(accepted.outcome, Active) for accepted in [*made, last])
        assert {row["result_code"] for row in await emu.ledger()} == {"0"}


async def test_calls_wait_for_a_platform_that_is_down(one: Instance) -> None:
    """Nothing is sent to a port where nobody listens; the bind stays pending, and is sent when the address is right."""
    await one.db.fetch("UPDATE app SET base_url = 'http://127.0.0.1:9'")
    await one.reload()
    made = await one.bind(*pair(0), within_s=0.3)
    assert made.outcome is None
    await one.db.fetch("UPDATE app SET base_url = $1", one.emu.wire)
    await one.reload()
    assert (await one.state(made, "active")).x in {X1, X2, X3}
    assert [row["app_key"] for row in await one.emu.ledger()] == [KEY]

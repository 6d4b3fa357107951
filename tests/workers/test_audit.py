"""The audit beside a real emulator: each kind of difference is found, dealt with by policy, and nothing else is."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any
from uuid import UUID

import orjson
import pytest

from broker.clock import boottime
from broker.store import drift
from broker.workers.audit import SWEEP, Auditor
from broker.workers.looking import Pace
from tests.emulator.support import X2, Emulated
from tests.workers.rig import Instance, eventually

A, B, C, D, E, F = (f"+861390000000{n}" for n in range(1, 7))

pytestmark = pytest.mark.timeout(60)


async def policy(one: Instance, **fields: Any) -> None:
    """Set what the app's operator wants."""
    await one.db.fetch("INSERT INTO drift_policy (app_id) VALUES ($1) ON CONFLICT DO NOTHING", one.app.id)
    for name, value in fields.items():
        await one.db.fetch(f"UPDATE drift_policy SET {name} = $1", value)  # noqa: S608 - names of this test


async def audit(one: Instance) -> list[dict[str, Any]]:
    """Run a whole audit; return what is open after it."""
    auditor = Auditor(one.db, one.vault, one.sender, lambda: one.known, every_s=0, share=1.0, per_s=500.0, lease_s=60.0)
    assert await drift.begin(one.db, one.app.id, "asked")
    while await auditor.look():
        pass
    (run,) = await one.rows("SELECT * FROM drift_run ORDER BY id DESC LIMIT 1")
    assert (run["state"], run["steps_done"]) == ("done", run["steps"])
    return await one.rows("SELECT * FROM drift WHERE resolved_at IS NULL ORDER BY kind")


async def bound(one: Instance, a: str = A, b: str = B, ttl_s: int = 3600) -> tuple[Any, str]:
    """Bind a pair; return it and its subscription."""
    made = await one.bind(a, b, ttl_s=ttl_s)
    return made, str((await one.show(made)).subscription_id)


async def test_nothing_differs(one: Instance) -> None:
    """Bindings that are as our books say are no finding, whatever their lifetime."""
    await one.bind(A, B)
    await one.bind(C, D, ttl_s=0)
    assert await audit(one) == []


async def test_a_stranger_is_reported_and_its_parties_are_kept_from_that_x(one: Instance, emu: Emulated) -> None:
    """Until it is gone the pair gets other numbers; then the finding is resolved."""
    sid = await emu.bound("+8617000000101", E, F)
    (found,) = await audit(one)
    assert (found["kind"], found["action"], found["subscription_id"], found["ours"]) == (
        "unknown_here",
        "barred",
        sid,
        False,
    )
    made = await one.bind(E, F)
    assert (await one.show(made)).x != "+8617000000101"
    await emu.unbind(subscriptionId=sid)
    assert await audit(one) == []


async def test_a_stranger_is_unbound_by_policy(one: Instance, emu: Emulated) -> None:
    """And nothing else on its X is."""
    await one.bind(A, B)
    await emu.bound("+8617000000101", E, F)
    await policy(one, unknown="unbind")
    assert await audit(one) == []
    assert [row["a"] for row in await emu.bindings()] == [A]


async def test_a_stranger_is_adopted_by_policy(one: Instance, emu: Emulated) -> None:
    """It is a binding of ours from then on, and the next audit finds nothing."""
    sid = await emu.bound(X2, E, F, duration=3600, userData="theirs-1")
    await policy(one, unknown="adopt")
    assert await audit(one) == []
    (row,) = await one.rows(
        "SELECT b.state, b.user_data, l.subscription_id FROM binding AS b JOIN line AS l ON l.id = b.line_id"
    )
    assert (row["state"], row["user_data"], row["subscription_id"]) == ("active", "theirs-1", sid)
    assert await audit(one) == []


@pytest.mark.parametrize("policy_of", ["report", "rebind", "end"])
async def test_a_line_that_the_platform_lost(one: Instance, emu: Emulated, policy_of: str) -> None:
    """It is reported, bound anew on its X, or ended, as the policy says."""
    made, sid = await bound(one)
    await policy(one, absent=policy_of)
    await emu.unbind(subscriptionId=sid)
    (found,) = await audit(one)
    assert (found["kind"], found["line_id"]) == ("absent_there", made.line_id)
    await one.rescue()
    if policy_of == "end":
        assert (await one.state(made, "released")).reason == "platform_lost"
    if policy_of == "rebind":

        async def again() -> bool:
            return [(row["a"], row["b"]) for row in await emu.bindings()] == [(A, B)]

        await eventually(again)
        await one.idle()
        shown = await one.show(made)
        assert shown.state == "active"
        assert shown.subscription_id != sid
    if policy_of != "report":
        assert await audit(one) == []


async def test_what_differs_is_repaired(one: Instance, emu: Emulated) -> None:
    """Other parties, another lifetime, another direction: the platform is told again what we have."""
    _, parties = await bound(one, A, B)
    _, expiry = await bound(one, C, D)
    await emu.modify(parties, calleeNum=E, callDirection=1)
    await emu.modify(expiry, duration=60_000)
    found = await audit(one)
    assert [(row["kind"], row["subscription_id"]) for row in found] == [
        ("direction_differs", parties), ("expiry_differs", expiry), ("parties_differ", parties),
    ]  # fmt: skip
    await one.rescue()
    await one.idle()
    assert await audit(one) == []
    rows = {row["subscription_id"]: row for row in await emu.bindings()}
    assert rows[parties]["b"] == B


async def test_what_is_under_way_is_left_alone(one: Instance, emu: Emulated) -> None:
    """A bind whose answer is not in yet is no stranger, and a release no loss."""
    await emu.fault(interface="bind", kind="delay", ms=1500, when="after", count=1)
    made = await one.bind(A, B, wait=False)

    async def there() -> bool:
        return len(await emu.bindings()) == 1

    await eventually(there)
    assert await audit(one) == []
    await one.state(made, "active")
    assert await audit(one) == []


async def test_a_run_goes_on_where_another_process_has_left_it(one: Instance, emu: Emulated) -> None:
    """Its cursor and counts are kept; while its lease lasts nobody else takes it."""
    await emu.bound(X2, E, F)
    assert await drift.begin(one.db, one.app.id, "asked")
    first = await drift.take(one.db, one.app.id, UUID(int=1), lease_s=60)
    assert first is not None
    assert await drift.take(one.db, one.app.id, UUID(int=2), lease_s=60) is None
    await one.db.fetch(
        "UPDATE drift_run SET lease_until = '-infinity', at_pool = 1, at_x = 1, steps = 3, steps_done = 2"
    )
    auditor = Auditor(one.db, one.vault, one.sender, lambda: one.known, every_s=0, share=1.0, per_s=500.0, lease_s=60.0)
    while await auditor.look():
        pass
    (run,) = await one.rows("SELECT * FROM drift_run")
    assert (run["state"], run["steps_done"], run["found"], run["calls"]) == ("done", 3, 0, 1)


async def test_two_processes_share_no_place(one: Instance, emu: Emulated) -> None:
    """Of two that look for work at the same time one works on the run: each X is asked about once."""
    await emu.bound(X2, E, F)
    assert await drift.begin(one.db, one.app.id, "asked")
    auditors = [
        Auditor(one.db, one.vault, one.sender, lambda: one.known, every_s=0, share=1.0, per_s=50.0, lease_s=60.0)
        for _ in range(2)
    ]

    async def work(auditor: Auditor) -> None:
        for _ in range(3):
            while await auditor.look():
                pass

    await asyncio.gather(*(work(auditor) for auditor in auditors))
    (run,) = await one.rows("SELECT state, steps, steps_done, compared FROM drift_run")
    assert run == {"state": "done", "steps": 3, "steps_done": 3, "compared": 1}
    assert sorted(auditor.calls > 0 for auditor in auditors) == [False, True]


async def test_questions_go_at_the_pace_of_the_share(one: Instance) -> None:
    """A tenth of the limit: each question waits for its tenth."""
    auditor = Auditor(one.db, one.vault, one.sender, lambda: one.known, every_s=0, share=0.1, per_s=7.0, lease_s=60.0)
    assert auditor._pace(one.app).per_s == 7.0
    assert auditor._pace(replace(one.app, rate=50.0)).per_s == 5.0
    pace = Pace(20.0)
    began = boottime()
    await asyncio.gather(*(pace.turn() for _ in range(5)))
    assert boottime() - began >= 4 / 20.0


async def test_extensions_that_rest_for_long_are_looked_at_in_turn(one: Instance) -> None:
    """Live and recently released ones in every run, each of the others in one of so many runs."""
    sql = "INSERT INTO place (pool_id, x_id, extension) SELECT $1, 0, n FROM generate_series(1, 100) AS n"
    await one.db.fetch(sql, next(iter(one.known.pools)))
    await one.db.fetch("UPDATE place SET until = 'infinity' WHERE extension = 7")
    await one.db.fetch("UPDATE place SET until = broker_now() - interval '1 hour' WHERE extension = 8")
    seen: Counter[int | None] = Counter()
    for run in range(SWEEP):
        places = await drift.steps(one.db, one.app.id, "axe", (0, 0, 0), run_id=run, sweep=SWEEP, limit=1000)
        assert len(places) == await drift.count(one.db, one.app.id, "axe", run_id=run, sweep=SWEEP)
        seen.update(place.extension for place in places)
    assert seen == Counter({n: SWEEP if n in {7, 8} else 1 for n in range(1, 101)})


async def test_a_difference_is_told_once(one: Instance, emu: Emulated) -> None:
    """As an event, when it is found: not again while it stands."""
    await one.db.fetch("UPDATE app SET event_days = 1")
    await emu.bound(X2, E, F)
    await audit(one)
    await audit(one)
    (told,) = await one.rows("SELECT data FROM event WHERE type = 'audit.drift'")
    assert orjson.loads(told["data"]) == {"kind": "unknown_here", "action": "barred"}

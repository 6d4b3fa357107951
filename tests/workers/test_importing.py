"""Entering what the platform holds into empty books, stopped on the way and begun again."""

from __future__ import annotations

from typing import Any

import pytest

from broker.errors import Conflict
from broker.workers.importing import Importer
from tests.emulator.support import X1, X2, X3, Emulated
from tests.workers.rig import Instance

pytestmark = pytest.mark.timeout(60)


def importer(one: Instance) -> Importer:
    """An import of the only app."""
    return Importer(one.db, one.vault, one.sender, one.app, per_s=500.0, places=None)


def phone(nth: int) -> str:
    """Phones."""
    return f"+86139{nth:08d}"


async def strangers(emu: Emulated, many: int) -> None:
    """Somebody else's bindings, evenly on three X."""
    for nth in range(many):
        await emu.bound(
            (X1, X2, X3)[nth % 3], phone(2 * nth), phone(2 * nth + 1), duration=3600, userData=f"order-{nth}"
        )


async def lines(one: Instance) -> list[dict[str, Any]]:
    """What our books have."""
    return await one.rows(
        "SELECT b.user_data, l.subscription_id, l.state FROM line AS l JOIN binding AS b ON b.line_id = l.id"
    )


async def test_all_pages_of_every_x_are_entered(one: Instance, emu: Emulated) -> None:
    """More than a page on an X; who is behind it gets another X from us; a second import finds all known."""
    await strangers(emu, 330)
    steps = await importer(one).count()
    done = await importer(one).carry_out(1, steps, lambda _: None)
    assert (done.places, done.shown, done.adopted, done.left_out, done.calls) == (3, 330, 330, 0, 6)
    assert {row["user_data"] for row in await lines(one)} == {f"order-{nth}" for nth in range(330)}
    made = await one.bind(phone(0), phone(3))
    assert (await one.show(made)).x == X3
    again = await importer(one).carry_out(1, steps, lambda _: None)
    assert (again.shown, again.adopted, again.known) == (331, 0, 331)


async def test_a_dry_run_changes_nothing(one: Instance, emu: Emulated) -> None:
    """It counts what an import would enter."""
    await strangers(emu, 9)
    done = await importer(one).probe(lambda _: None)
    assert (done.shown, done.adopted) == (9, 9)
    assert await lines(one) == []
    assert await one.rows("SELECT FROM drift_run") == []


async def test_what_was_stopped_goes_on(one: Instance, emu: Emulated) -> None:
    """One process at a time imports; after its lease another one goes on behind the places that it has done."""
    await strangers(emu, 6)
    await one.db.fetch(
        "INSERT INTO drift_run (app_id, why, owner, lease_until, at_pool, at_x, steps, steps_done) VALUES"
        " ($1, 'import', gen_random_uuid(), clock_timestamp() + interval '1 minute', 1, 1, 3, 2)",
        one.app.id,
    )
    with pytest.raises(Conflict):
        await importer(one).carry_out(1, 3, lambda _: None)
    await one.db.fetch("UPDATE drift_run SET lease_until = '-infinity'")
    done = await importer(one).carry_out(1, 3, lambda _: None)
    assert (done.places, done.adopted) == (1, 2)
    (run,) = await one.rows("SELECT state, steps_done, adopted FROM drift_run")
    assert (run["state"], run["steps_done"], run["adopted"]) == ("done", 3, 2)


async def test_what_is_no_phone_or_ours_already_is_left_out(one: Instance, emu: Emulated) -> None:
    """An X that somebody of ours is behind with the same party keeps what it has."""
    made = await one.bind(phone(0), phone(1))
    shown = await one.show(made)
    await emu.unbind(subscriptionId=str(shown.subscription_id))
    await emu.bound(str(shown.x), phone(0), phone(9))
    done = await importer(one).carry_out(1, 3, lambda _: None)
    assert (done.shown, done.adopted, done.left_out) == (1, 0, 1)
    assert len(await lines(one)) == 1

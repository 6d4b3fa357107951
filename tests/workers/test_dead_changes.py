"""Dead changes and dead calls of peers: what a retry and a discard make of them."""

from __future__ import annotations

import pytest

from broker.flows.calls import Active
from broker.flows.operate import calls as desk_calls
from broker.flows.operate.desk import Desk
from broker.flows.operate.fields import Discard
from broker.platform.protocol import Answer, Verdict
from tests.emulator.support import X1, Emulated
from tests.workers.fake import FakeAxb
from tests.workers.rig import Instance, eventually, instance
from tests.workers.test_dead import WHO, dead, others_served, until_dead
from tests.workers.test_modify import A, B, C, D, change
from tests.workers.test_peers import Y1, shop

pytestmark = pytest.mark.timeout(90)

NO_ANSWER = Answer(Verdict.UNKNOWN)


async def give_up(one: Instance, call: str) -> None:
    """Discard it."""
    await desk_calls.discard(Desk(one.db, one.vault), "test", Discard(calls=[call], reason="seen"), who=WHO)


@pytest.mark.parametrize("released", [False, True])
async def test_a_change_that_is_given_up(seeded: str, emu: Emulated, *, released: bool) -> None:
    """The line is as it was and free for other changes; the party that was to come may not have the X for long.

    Released while the change was dead: the discard lets the unbind go out.
    """
    fake = FakeAxb()
    fake.modify_script.extend([lambda _: NO_ANSWER] * 10_000)
    async with instance(seeded, emu, platform=lambda _: fake, dead_after_tries=4, dead_after_s=0.1) as one:
        made = await one.bind(A, B)
        await change(one, made, wait=False)
        async with others_served(one):
            told = await until_dead(one)
        assert (told["op"], told["reason"]) == ("modify", "unknown")
        if released:
            assert (await one.release(made, wait=False)).state == "releasing"
        fake.modify_script.clear()
        await give_up(one, told["id"])
        if released:
            await one.rescue()
            await one.state(made, "released")
            assert A not in {held.a for held in fake.bound.values()}
            return
        binding = await one.show(made)
        assert (binding.state, str(binding.b)[-4:]) == ("active", B[-4:])
        (line,) = await one.rows("SELECT changing, change_failed FROM line WHERE id = $1", binding.line_id)
        assert line == {"changing": False, "change_failed": "discarded"}
        elsewhere = await one.bind(C, D)
        assert isinstance(elsewhere.outcome, Active)
        assert elsewhere.outcome.x != X1


async def test_a_dead_change_is_made_by_a_retry(seeded: str, emu: Emulated) -> None:
    """The platform is asked which of the two holds, whatever was sent before."""
    fake = FakeAxb()
    fake.modify_script.extend([lambda _: NO_ANSWER] * 10_000)
    async with instance(seeded, emu, platform=lambda _: fake, dead_after_tries=4, dead_after_s=0.1) as one:
        made = await one.bind(A, B)
        await change(one, made, wait=False)
        async with others_served(one):
            await until_dead(one)
        fake.modify_script.clear()
        await desk_calls.retry(Desk(one.db, one.vault), "test", None, who=WHO)
        await one.rescue()
        await one.idle()
        assert str((await one.show(made)).b)[-4:] == C[-4:]
        assert [held.b for held in fake.bound.values() if held.a == A] == [C]


async def test_a_peer_that_is_given_up(seeded: str, emu: Emulated) -> None:
    """Its bind can be neither read nor sent; given up it has failed, and the line takes other calls again."""
    async with shop(seeded, emu, Y1) as it:
        fake, one = it.fake, it.one
        original = fake.bind_peer

        async def broken(*_args: object, **_more: object) -> Answer:
            raise RuntimeError("no rule")

        fake.bind_peer = broken  # type: ignore[method-assign]
        peer, _ = await it.add(B, wait=False)

        async def buried() -> bool:
            await one.end_leases()
            await one.rescue()
            await one.idle()
            return bool(await dead(one))

        await eventually(buried, within_s=30.0)
        (told,) = await dead(one)
        assert told["op"] == "bind_peer"
        await give_up(one, told["id"])
        assert (await it.state(peer, "failed")).reason == "discarded"
        fake.bind_peer = original  # type: ignore[method-assign]
        again, _ = await it.add(B)
        assert again.y == Y1

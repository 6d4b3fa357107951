"""Ways in which a stranger was once reached, or a bind went on for nobody."""

from __future__ import annotations

import pytest

from broker.errors import PoolExhausted, Unavailable
from broker.flows import bind as bind_flow
from broker.flows.calls import Failed
from tests.emulator.support import X1, Emulated
from tests.workers.rig import Instance, effects, eventually, instance, requests

A, B, D = "+8613900000001", "+8613900000002", "+8613900000004"


async def test_a_refused_return_opens_x_to_nobody(one: Instance) -> None:
    """A and B come back to their X, the platform refuses: whoever of them redials X reaches no third party."""
    await one.db.fetch("UPDATE x_number SET state = 'frozen' WHERE x_id > 0")
    await one.reload()
    await one.release(await one.bind(A, B))
    await one.emu.fault(interface="bind", kind="code", http=403, code="1010029", count=1)
    assert isinstance((await one.bind(A, B)).outcome, Failed)
    with pytest.raises(PoolExhausted):
        await one.bind(B, D)
    assert (await one.emu.call(B, X1))[0] is None


async def test_a_late_bind_that_was_undone_rests(seeded: str, emu: Emulated) -> None:
    """It was live at the platform for a while, so both parties rest on its X."""
    async with instance(seeded, emu, absence_s=0.8) as one:
        await emu.fault(interface="bind", kind="late_commit", ms=400, count=1)
        await emu.fault(interface="bind", kind="code", http=403, code="1010029", count=1)
        assert isinstance((await one.bind(A, B)).outcome, Failed)
        assert len(effects(await emu.ledger(), "bind")) == 1
        assert await one.held() == [(X1, False), (X1, False)]


async def test_a_released_bind_is_not_sent_for_ever(one: Instance) -> None:
    """The platform answers nothing useful to a bind: after its release its owner sends it no more and lets X go."""
    await one.emu.fault(interface="bind", kind="code", http=500, code="1020002")
    made = await one.bind(A, B, wait=False)

    async def sent() -> bool:
        return bool(requests(await one.emu.ledger(), "bind"))

    await eventually(sent)
    await one.release(made, within_s=3.0)
    await one.state(made, "released")
    await one.idle()
    before = len(requests(await one.emu.ledger(), "bind"))
    await one.rescue()
    await one.idle()
    assert len(requests(await one.emu.ledger(), "bind")) == before
    assert await one.held() == []


async def test_calls_in_hand_have_a_bound(one: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over the bound a bind is refused before anything is claimed."""
    monkeypatch.setattr(bind_flow, "MOST_CALLS", 1)
    await one.emu.fault(interface="bind", kind="delay", ms=1500, count=1)
    await one.bind(A, B, wait=False)
    with pytest.raises(Unavailable):
        await one.bind(B, D)
    assert len(await one.lines()) == 1

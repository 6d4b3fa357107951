from __future__ import annotations

import pytest

from tests.emulator.support import X1, X2, A, B, C, D, Emulated


async def test_both_parties_reach_each_other_and_see_x(emu: Emulated) -> None:
    """A dialling X gets B, B gets A, and both see X."""
    await emu.bound()
    assert await emu.call(A, X1) == (B, X1, 0)
    assert await emu.call(B, X1) == (A, X1, 0)


async def test_strangers_and_unbound_numbers_reach_nobody(emu: Emulated) -> None:
    """Whoever is not bound on that X, and any X without binding, ends in 8014."""
    await emu.bound(X1, A, B)
    await emu.bound(X2, C, D)
    for caller, x in ((C, X1), (A, X2), (A, "+8617999999999")):
        assert await emu.call(caller, x) == (None, None, 8014)


@pytest.mark.parametrize(("direction", "barred"), [(1, B), (2, A)])
async def test_call_direction(emu: Emulated, direction: int, barred: str) -> None:
    """``callDirection`` lets one party call; the other is told 8016."""
    await emu.bound(callDirection=direction)
    allowed = A if barred == B else B
    assert await emu.call(barred, X1) == (None, None, 8016)
    assert await emu.call(allowed, X1) == (barred, X1, 0)


async def test_an_expired_or_released_binding_connects_nobody(emu: Emulated) -> None:
    """After the duration, and after an unbind, X leads nowhere; a re-bound X leads to the new party only."""
    await emu.bound(duration=60)
    await emu.advance(60)
    assert await emu.call(A, X1) == (None, None, 8014)
    subscription_id = await emu.bound(X1, A, C)
    assert await emu.call(A, X1) == (C, X1, 0)
    await emu.unbind(subscriptionId=subscription_id)
    assert await emu.call(A, X1) == (None, None, 8014)


async def test_a_landline_cannot_dial_x(emu: Emulated) -> None:
    """A landline party can be called and may not call: 8023."""
    landline = "+861065550001"
    await emu.bound(X1, A, landline)
    assert await emu.call(A, X1) == (landline, X1, 0)
    assert await emu.call(landline, X1) == (None, None, 8023)

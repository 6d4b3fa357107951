"""The AX driver against the emulator."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from broker.domain.options import DEFAULT, CallOptions
from broker.platform.huawei.ax import HuaweiAx
from broker.platform.protocol import Answer, BindLine, Direction, ModifyLine, PlatformLine, Verdict
from tests.platform.emulated import NOT_OURS, OTHER_X, A, B, C, D, X, emulating_to, yes

running = partial(emulating_to, HuaweiAx, "ax")


async def bind(driver: HuaweiAx, x: str = X, a: str = A, **asked: Any) -> Answer:
    """Bind A to X."""
    return await driver.bind(BindLine(x, a, token=f"{a[-1]}.1", **asked), permit=yes, timeout_s=5)


async def set_callee(driver: HuaweiAx, subscription_id: str, callee: str, ttl_s: int = 60) -> Answer:
    """Set whom A reaches."""
    return await driver.set_callee(subscription_id, callee=callee, ttl_s=ttl_s, token="c.1", permit=yes, timeout_s=5)


async def test_life_of_a_line(tmp_path: Path) -> None:
    """Anybody reaches A, A reaches the callee that was set, a new A takes over, and nothing is left at the end."""
    async with running(tmp_path) as (emulator, driver):
        made = await bind(driver)
        (line,) = made.bindings
        assert (made.verdict, line.x, made.total) == (Verdict.DONE, X, 1)
        whole = PlatformLine(line.subscription_id, X, A, token="1.1", direction=Direction.BOTH)
        assert (await driver.query(x=X, permit=yes, timeout_s=5)).bindings == (whole,)
        assert (await driver.query(x="", a=A, permit=yes, timeout_s=5)).bindings == (whole,)
        assert (await driver.lookup(line.subscription_id, permit=yes, timeout_s=5)).bindings == (whole,)
        reached = await emulator.dial(B, X)
        assert (reached["connected_to"], reached["shown"], reached["state_code"]) == (A, X, 0)
        assert (await emulator.dial(A, X))["state_code"] == 8013
        assert (await set_callee(driver, line.subscription_id, B)).verdict is Verdict.DONE
        assert (await set_callee(driver, line.subscription_id, C)).verdict is Verdict.DONE
        reached = await emulator.dial(A, X)
        assert (reached["connected_to"], reached["shown"]) == (C, X)
        change = ModifyLine(line.subscription_id, "1.2", a=D, options=CallOptions(display="caller"))
        assert (await driver.modify(change, permit=yes, timeout_s=5)).verdict is Verdict.DONE
        assert (await driver.query(x=X, permit=yes, timeout_s=5)).bindings == (replace(whole, a=D, token="1.2"),)
        reached = await emulator.dial(B, X)
        assert (reached["connected_to"], reached["shown"]) == (D, B)
        assert (await driver.unbind(line.subscription_id, permit=yes, timeout_s=5)).verdict is Verdict.DONE
        assert (await emulator.dial(B, X))["state_code"] == 8018
        assert (await driver.unbind(line.subscription_id, permit=yes, timeout_s=5)).verdict is Verdict.NOT_FOUND
        assert (await bind(driver, a=C)).verdict is Verdict.DONE


@pytest.mark.parametrize("code", ["1016001", "1011004"])
async def test_nothing_is_bound(tmp_path: Path, code: str) -> None:
    """Whichever of the two codes the platform has for it, a query finds nothing."""
    async with running(tmp_path, ax_query_missing_code=code) as (_, driver):
        for answered in (
            await driver.query(x=X, permit=yes, timeout_s=5),
            await driver.lookup("nobody", permit=yes, timeout_s=5),
            await driver.modify(ModifyLine("nobody", "t", a=C), permit=yes, timeout_s=5),
            await set_callee(driver, "nobody", C),
        ):
            assert (answered.verdict, answered.bindings) == (Verdict.NOT_FOUND, ())


async def test_refusals(tmp_path: Path) -> None:
    """A taken X, the same pair again, one X too many, a foreign X, and A as its own callee."""
    async with running(tmp_path, ax_x_per_a=1) as (_, driver):
        made = (await bind(driver)).bindings[0]
        assert (await bind(driver, a=B)).verdict is Verdict.CONFLICT
        assert (await bind(driver)).verdict is Verdict.CONFLICT
        assert (await bind(driver, x=OTHER_X)).verdict is Verdict.PARTY_LIMIT
        assert (await bind(driver, x=NOT_OURS, a=B)).verdict is Verdict.NUMBER_REFUSED
        assert (await set_callee(driver, made.subscription_id, A)).verdict is Verdict.BAD_REQUEST
        await bind(driver, x=OTHER_X, a=B)
        taken_over = ModifyLine(made.subscription_id, "1.2", a=B)
        assert (await driver.modify(taken_over, permit=yes, timeout_s=5)).verdict is Verdict.PARTY_LIMIT


async def test_a_callee_lives_as_long_as_was_said(tmp_path: Path) -> None:
    """After its seconds A reaches nobody."""
    async with running(tmp_path) as (emulator, driver):
        made = (await bind(driver)).bindings[0]
        await set_callee(driver, made.subscription_id, B, ttl_s=90)
        await emulator.pass_by(89, driver)
        assert (await emulator.dial(A, X))["connected_to"] == B
        await emulator.pass_by(2, driver)
        assert (await emulator.dial(A, X))["state_code"] == 8013


EVERY = CallOptions(
    recording=True,
    hint_tone="hint.wav",
    max_call_minutes=30,
    last_minute_tone="last.wav",
    sms=False,
    caller_tone="a.wav",
    callee_tone="b.wav",
    display="caller",
)
TONES = "hint.wav,last.wav,a.wav,b.wav,other.wav"


async def shown(emulator: Any) -> dict[str, Any]:
    """Return the options of the one binding, as the emulator's ledger has them."""
    *_, row = (await emulator.operate("GET", "ledger"))["items"]
    return {**(row["extras"] or {}), "maxDuration": row["max_duration"]}


async def test_options(tmp_path: Path) -> None:
    """Every option goes out with a bind, changes with a modification, and goes away again."""
    async with running(tmp_path, known_tones=TONES) as (emulator, driver):
        made = (await bind(driver, options=EVERY)).bindings[0].subscription_id
        bound = await shown(emulator)
        other = replace(EVERY, hint_tone="other.wav", max_call_minutes=20)
        assert (
            await driver.modify(ModifyLine(made, "t", options=other, was=EVERY), permit=yes, timeout_s=5)
        ).verdict is Verdict.DONE
        assert await shown(emulator) == {**bound, "recordHintTone": "other.wav", "maxDuration": 20}
        plain = ModifyLine(made, "t", options=DEFAULT, was=other)
        assert (await driver.modify(plain, permit=yes, timeout_s=5)).verdict is Verdict.DONE
        left = await shown(emulator)
        assert (left["recordFlag"], left["calleeNumDisplay"], left["maxDuration"]) == ("false", "0", 0)
        assert not left.get("recordHintTone")
        assert not left.get("lastMinVoice")

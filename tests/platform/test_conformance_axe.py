"""The AXE driver against the emulator."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from broker.domain.options import DEFAULT, CallOptions
from broker.platform.huawei.axe import HuaweiAxe
from broker.platform.protocol import Answer, BindLine, ModifyLine, PlatformLine, Verdict
from tests.platform.emulated import NOT_OURS, A, B, C, D, X, emulating_to, yes

E, F = "0042", "0043"

running = partial(emulating_to, HuaweiAxe, "axe")


async def bind(driver: HuaweiAxe, a: str = A, extension: str = E, x: str = X, **asked: Any) -> Answer:
    """Bind A to an extension."""
    request = BindLine(x, a, token=f"{a[-1]}.1", extension=extension, **asked)
    return await driver.bind(request, permit=yes, timeout_s=5)


async def modify(driver: HuaweiAxe, subscription_id: str, **change: Any) -> Answer:
    """Change one."""
    return await driver.modify(ModifyLine(subscription_id, "1.2", **change), permit=yes, timeout_s=5)


async def query(driver: HuaweiAxe, extension: str = E) -> Answer:
    """Ask who is behind an extension."""
    return await driver.query(x=X, extension=extension, permit=yes, timeout_s=5)


async def test_life_of_a_line(tmp_path: Path) -> None:
    """Who enters the extension reaches A, who then reaches them; options change, and nothing is left at the end."""
    async with running(tmp_path) as (emulator, driver):
        made = await bind(driver, ttl_s=3600)
        (line,) = made.bindings
        assert (made.verdict, line.x, line.extension, made.total) == (Verdict.DONE, X, E, 1)
        assert (await bind(driver, a=C, extension=F)).verdict is Verdict.DONE
        whole = PlatformLine(line.subscription_id, X, A, token="1.1", ttl_s=3600, extension=E)
        assert (await query(driver)).bindings == (whole,)
        assert (await driver.lookup(line.subscription_id, permit=yes, timeout_s=5)).bindings == (whole,)
        assert (await emulator.dial(A, X))["state_code"] == 8019
        reached = await emulator.dial(B, X, E)
        assert (reached["connected_to"], reached["shown"], reached["state_code"]) == (A, X, 0)
        assert (await emulator.dial(A, X))["connected_to"] == B
        changed = await modify(driver, line.subscription_id, options=CallOptions(display="caller"))
        assert changed == Answer(Verdict.DONE, 200, "0", "Success")
        assert (await emulator.dial(D, X, E))["shown"] == D
        assert (await query(driver)).bindings == (replace(whole, token="1.2"),)
        assert (await driver.unbind(line.subscription_id, permit=yes, timeout_s=5)).verdict is Verdict.DONE
        assert (await emulator.dial(B, X, E))["state_code"] == 8022
        assert (await emulator.dial(B, X, F))["connected_to"] == C
        assert (await driver.unbind(line.subscription_id, permit=yes, timeout_s=5)).verdict is Verdict.NOT_FOUND
        assert (await query(driver)).verdict is Verdict.NOT_FOUND
        assert (await bind(driver, a=D)).verdict is Verdict.DONE


@pytest.mark.parametrize("code", ["1013102", "1020167"])
async def test_refusals(tmp_path: Path, code: str) -> None:
    """A taken extension, whichever code says so; a foreign X; a wrong digit count; nothing bound."""
    async with running(tmp_path, axe_taken_code=code) as (_, driver):
        await bind(driver)
        assert (await bind(driver, a=B)).verdict is Verdict.CONFLICT
        assert (await bind(driver, a=B, x=NOT_OURS)).verdict is Verdict.NUMBER_REFUSED
        assert (await bind(driver, a=B, extension="7")).verdict is Verdict.BAD_REQUEST
        assert (await modify(driver, "nobody", ttl_s=60)).verdict is Verdict.NOT_FOUND
        assert (await driver.lookup("nobody", permit=yes, timeout_s=5)).verdict is Verdict.NOT_FOUND


async def test_lifetimes(tmp_path: Path) -> None:
    """Minutes are honoured, a renewal counts anew, 0 is for ever, and a query goes on to show the bind's lifetime."""
    async with running(tmp_path) as (emulator, driver):
        renewed = (await bind(driver, ttl_s=120)).bindings[0].subscription_id
        await bind(driver, a=B, extension=F, ttl_s=0)
        await bind(driver, a=C, extension="0044", ttl_s=2_592_000)
        assert [(await query(driver, one)).bindings[0].ttl_s for one in (F, "0044")] == [0, 2_592_000]
        await bind(driver, a=D, extension="0045", ttl_s=120)
        await emulator.pass_by(90, driver)
        assert (await modify(driver, renewed, ttl_s=120)).verdict is Verdict.DONE
        await emulator.pass_by(31, driver)
        assert (await query(driver, "0045")).verdict is Verdict.NOT_FOUND
        assert (await query(driver)).bindings[0].ttl_s == 120
        assert (await modify(driver, renewed, ttl_s=0)).verdict is Verdict.DONE
        await emulator.pass_by(2_592_000, driver)
        assert [(await query(driver, one)).verdict for one in (E, F, "0044")] == [
            Verdict.DONE,
            Verdict.DONE,
            Verdict.NOT_FOUND,
        ]


async def test_callbacks(tmp_path: Path) -> None:
    """A reaches the number that was given, then a tone; who called last is forgotten when it was said."""
    async with running(tmp_path, known_tones="sorry.wav") as (emulator, driver):
        asked = CallOptions(callback_ttl_s=90)  # rounded up to two minutes
        line = (await bind(driver, ttl_s=600, callback=D, options=asked)).bindings[0].subscription_id
        assert (await emulator.dial(A, X))["connected_to"] == D
        await emulator.dial(B, X, E)
        await emulator.pass_by(119, driver)
        assert (await emulator.dial(A, X))["connected_to"] == B
        await emulator.pass_by(2, driver)
        assert (await emulator.dial(A, X))["connected_to"] == D
        tone = replace(asked, callback_tone="sorry.wav")
        change = await modify(driver, line, callback="", options=tone, was=asked)
        assert change.verdict is Verdict.DONE
        assert (await emulator.dial(A, X))["state_code"] == 8019
        assert (await modify(driver, line, callback=C, options=asked, was=tone)).verdict is Verdict.DONE
        assert (await emulator.dial(A, X))["connected_to"] == C
        longer = replace(asked, callback_ttl_s=600)
        assert (await modify(driver, line, options=longer, was=asked)).verdict is Verdict.DONE
        await emulator.dial(B, X, E)
        await emulator.pass_by(300, driver)
        assert (await emulator.dial(A, X))["connected_to"] == B


async def test_recording_options(tmp_path: Path) -> None:
    """Recording and its tone go out with a bind and a modification, and recording goes off again."""
    async with running(tmp_path, known_tones="a.wav,b.wav") as (emulator, driver):
        first = CallOptions(recording=True, hint_tone="a.wav")
        line = (await bind(driver, options=first)).bindings[0].subscription_id
        second = CallOptions(recording=True, hint_tone="b.wav")
        shown = []
        for was, wanted in ((first, second), (second, DEFAULT)):
            assert (await modify(driver, line, options=wanted, was=was)).verdict is Verdict.DONE
            *_, row = (await emulator.operate("GET", "ledger"))["items"]
            shown.append((row["extras"]["recordFlag"], row["extras"]["recordHintTone"]))
        assert shown == [("true", "b.wav"), ("false", "b.wav")]

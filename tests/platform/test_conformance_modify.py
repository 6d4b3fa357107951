"""The driver against the emulator: options of a line, and what a modification does to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from broker.domain.options import DEFAULT, CallOptions
from broker.platform.protocol import Answer, BindLine, Direction, ModifyLine, PlatformLine, Verdict
from tests.platform.emulated import A, B, C, D, X, bind, closing, emulating, modify, yes


@pytest.mark.parametrize(
    "change",
    [
        {"a": C},
        {"b": C},
        {"a": B, "b": A},
        {"direction": Direction.BOTH},
        {"direction": Direction.B_TO_A},
        {"ttl_s": 60},
        {"ttl_s": 0},
        {"a": C, "b": D, "direction": Direction.BOTH, "ttl_s": 60},
    ],
    ids="+".join,
)
async def test_modify_changes_what_is_asked_and_nothing_else(tmp_path: Path, change: dict[str, Any]) -> None:
    """A query shows the same binding with the change and the new token; the ledger says what it replaced."""
    async with emulating(tmp_path) as emulator, closing(emulator.driver()) as driver:
        made = (await bind(driver)).bindings[0]
        before = PlatformLine(made.subscription_id, X, A, B, "1.1", 86400, Direction.A_TO_B)
        assert await modify(driver, made.subscription_id, **change) == Answer(Verdict.DONE, 200, "0", "Success")
        found = await driver.query(x=X, permit=yes, timeout_s=5)
        assert found.bindings == (replace(before, token="1.2", **change),)
        names = {"token": "user_data", "direction": "call_direction", "ttl_s": "duration"}
        bound, changed, _ = (await emulator.operate("GET", "ledger"))["items"]
        wanted = {names.get(name, name) for name in ("token", *change)}
        assert changed["op"] == "modify"
        assert changed["was"].keys() - {"expires_at"} == wanted
        assert all(changed["was"][name] == bound[name] != changed[name] for name in wanted)


async def test_modify_restarts_the_clock(tmp_path: Path) -> None:
    """A new lifetime counts from the modification; without one the old clock runs on."""
    async with emulating(tmp_path) as emulator, closing(emulator.driver()) as driver:
        renewed = (await bind(driver, ttl_s=100)).bindings[0].subscription_id
        left = (await bind(driver, a=C, b=D, ttl_s=100)).bindings[0].subscription_id
        await emulator.operate("POST", "clock", {"advance_s": 90})
        driver.set_clock_offset(90)
        assert (await modify(driver, renewed, ttl_s=100)).verdict is Verdict.DONE
        assert (await modify(driver, left, direction=Direction.BOTH)).verdict is Verdict.DONE
        await emulator.operate("POST", "clock", {"advance_s": 11})
        driver.set_clock_offset(101)
        found = await driver.query(x=X, permit=yes, timeout_s=5)
        assert [binding.subscription_id for binding in found.bindings] == [renewed]
        assert (await modify(driver, left, ttl_s=100)).verdict is Verdict.NOT_FOUND


EVERY = CallOptions(
    recording=True,
    hint_tone="hint.wav",
    max_call_minutes=30,
    last_minute_tone="last.wav",
    sms=False,
    caller_tone="a.wav",
    callee_tone="b.wav",
)
TONES = "hint.wav,last.wav,m.wav,a.wav,b.wav,c.wav"


def listed(options: CallOptions) -> dict[str, Any]:
    """Return what the emulator's ledger shows of a line that was bound with ``options``."""
    flat = {
        "recordFlag": None if options.recording is None else str(options.recording).lower(),
        "recordHintTone": options.hint_tone,
        "lastMinVoice": options.last_minute_tone,
        "privateSms": None if options.sms is None else str(options.sms).lower(),
    }
    tones = {"callerHintTone": options.caller_tone, "calleeHintTone": options.callee_tone}
    extras: dict[str, Any] = {name: value for name, value in flat.items() if value is not None}
    if any(tones.values()):
        extras["preVoice"] = {name: tone for name, tone in tones.items() if tone is not None}
    return {"extras": extras or None, "max_duration": options.max_call_minutes or 0}


@pytest.mark.parametrize("options", [DEFAULT, EVERY, CallOptions(sms=True, callee_tone="b.wav")])
async def test_options_of_a_bind(tmp_path: Path, options: CallOptions) -> None:
    """The platform understands each option, and is told of none that nobody asked for."""
    async with emulating(tmp_path, known_tones=TONES) as emulator, closing(emulator.driver()) as driver:
        await driver.bind(BindLine(X, A, B, Direction.BOTH, 60, "t", options), permit=yes, timeout_s=5)
        (row,) = (await emulator.operate("GET", "ledger"))["items"]
        assert {name: row[name] for name in ("extras", "max_duration")} == listed(options)


@pytest.mark.parametrize(
    ("wanted", "neutral"),
    [
        (replace(EVERY, recording=False), {}),
        (replace(EVERY, max_call_minutes=31), {}),
        (replace(EVERY, last_minute_tone="m.wav"), {}),
        (replace(EVERY, sms=True), {}),
        (replace(EVERY, caller_tone="c.wav"), {}),
        (replace(EVERY, callee_tone="c.wav"), {}),
        (replace(EVERY, callee_tone=None), {"preVoice": {"callerHintTone": "a.wav", "calleeHintTone": ""}}),
        (
            DEFAULT,
            {
                "recordFlag": "false",
                "recordHintTone": "hint.wav",
                "lastMinVoice": "",
                "privateSms": "true",
                "preVoice": {"callerHintTone": "", "calleeHintTone": ""},
            },
        ),
    ],
)
async def test_options_of_a_modification(tmp_path: Path, wanted: CallOptions, neutral: dict[str, Any]) -> None:
    """A line gets the wanted set; an option dropped from it has the platform's default, and the hint tone stays."""
    async with emulating(tmp_path, known_tones=TONES) as emulator, closing(emulator.driver()) as driver:
        made = await driver.bind(BindLine(X, A, B, Direction.BOTH, 60, "t", EVERY), permit=yes, timeout_s=5)
        done = await modify(driver, made.bindings[0].subscription_id, options=wanted, was=EVERY)
        assert done.verdict is Verdict.DONE
        row = (await emulator.operate("GET", "ledger"))["items"][1]
        expected = listed(wanted)
        assert row["extras"] == {**(expected["extras"] or {}), **neutral}
        assert row["max_duration"] == expected["max_duration"]
        assert {"extras", "max_duration"} & row["was"].keys()


@pytest.mark.parametrize(
    "options",
    [
        CallOptions(recording=True, hint_tone="x.wav"),
        CallOptions(max_call_minutes=30, last_minute_tone="x.wav"),
        CallOptions(callee_tone="x.wav"),
    ],
)
async def test_a_tone_that_is_not_approved(tmp_path: Path, options: CallOptions) -> None:
    """A bind with it is a bad request, and so is a modification where it may name one; nothing changes."""
    async with emulating(tmp_path) as emulator, closing(emulator.driver()) as driver:
        refused = await driver.bind(BindLine(X, A, B, Direction.BOTH, 60, "t", options), permit=yes, timeout_s=5)
        assert (refused.verdict, refused.http, refused.code) == (Verdict.BAD_REQUEST, 403, "1010002")
        made = (await bind(driver)).bindings[0].subscription_id
        if options.hint_tone is None:
            assert (await modify(driver, made, options=options, was=DEFAULT)).verdict is Verdict.BAD_REQUEST
        assert [row["op"] for row in (await emulator.operate("GET", "ledger"))["items"] if row["http"] == 200] == [
            "bind"
        ]


async def test_refused_modifications(tmp_path: Path) -> None:
    """A new party in use on that X is a conflict, an unknown id not found, a bad value a bad request: all unchanged."""
    async with emulating(tmp_path) as emulator, closing(emulator.driver()) as driver:
        first = (await bind(driver)).bindings[0].subscription_id
        await bind(driver, a=C, b=D)
        for change in ({"b": C}, {"a": D}):
            refused = await modify(driver, first, **change)
            assert (refused.verdict, refused.http, refused.code) == (Verdict.CONFLICT, 403, "1012010")
        refused = await modify(driver, "none", b=C)
        assert (refused.verdict, refused.http, refused.code) == (Verdict.NOT_FOUND, 403, "1012007")
        assert (await modify(driver, first, ttl_s=99_999_999)).verdict is Verdict.BAD_REQUEST
        found = await driver.lookup(first, permit=yes, timeout_s=5)
        assert found.bindings == (PlatformLine(first, X, A, B, "1.1", 86400, Direction.A_TO_B),)


async def test_a_modification_without_an_answer(tmp_path: Path) -> None:
    """A lost answer is unknown and the query tells by its token; withheld and not sent have left nothing."""
    async with emulating(tmp_path) as emulator, closing(emulator.driver()) as driver:
        made = (await bind(driver)).bindings[0].subscription_id

        async def seen() -> tuple[str, str]:
            (found,) = (await driver.lookup(made, permit=yes, timeout_s=5)).bindings
            return found.b, found.token

        await emulator.fault(interface="modify", kind="reset")
        assert (await modify(driver, made, b=C)).verdict is Verdict.UNKNOWN
        assert await seen() == (B, "1.1")
        await emulator.fault(interface="modify", kind="drop_answer")
        assert (await modify(driver, made, b=C)).verdict is Verdict.UNKNOWN
        assert await seen() == (C, "1.2")
        request = ModifyLine(made, "1.3", b=D)
        withheld = await driver.modify(request, permit=lambda: False, timeout_s=5)
        assert withheld.verdict is Verdict.WITHHELD
        late = await driver.modify(request, permit=yes, timeout_s=0)
        assert late.verdict is Verdict.NOT_SENT
        assert await seen() == (C, "1.2")
        rows = (await emulator.operate("GET", "ledger"))["items"]
        assert [row["fault"] for row in rows if row["op"] == "modify"] == ["reset", "drop_answer"]

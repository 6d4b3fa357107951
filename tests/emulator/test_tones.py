from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.emulator.support import KEY, X1, X2, Emulated, emulator

_ANY: list[tuple[dict[str, Any], str]] = [
    ({"recordFlag": "true", "recordHintTone": "new.wav"}, "recordHintTone"),
    ({"maxDuration": 5, "lastMinVoice": "new.wav"}, "lastMinVoice"),
    ({"preVoice": {"callerHintTone": "new.wav"}}, "preVoice.callerHintTone"),
    ({"preVoice": {"callerHintTone": "", "calleeHintTone": "new.wav"}}, "preVoice.calleeHintTone"),
]


@pytest.mark.parametrize(("more", "parameter"), _ANY)
async def test_a_bind_names_approved_files_only(emu: Emulated, more: dict[str, Any], parameter: str) -> None:
    """An unknown file in any field is 403/1010002 that names the field, and nothing is bound; approved, it binds."""
    reply = await emu.bind(X1, **more)
    assert reply.outcome == (403, "1010002")
    assert f" {parameter} " in reply.body["resultdesc"]
    assert await emu.bindings() == []
    await emu.tones("new.wav")
    assert (await emu.bind(X1, **more)).outcome == (200, "0")


@pytest.mark.parametrize(("more", "parameter"), _ANY[1:])  # a modification has no recordHintTone
async def test_a_modification_names_approved_files_only(emu: Emulated, more: dict[str, Any], parameter: str) -> None:
    """An unknown file refuses the modification whole; the files that a binding has already are not asked about."""
    await emu.tones("old.wav")
    bound = await emu.bound(X1, preVoice={"callerHintTone": "old.wav"}, recordFlag="true", maxDuration=9)
    await emu.ask("DELETE", f"apps/{KEY}/tones/old.wav")
    assert (await emu.modify(bound, privateSms="false")).outcome == (200, "0")
    reply = await emu.modify(bound, callDirection=1, **more)
    assert reply.outcome == (403, "1010002")
    assert f" {parameter} " in reply.body["resultdesc"]
    (item,) = (await emu.query(relationNum=X1)).body["relationNumList"]
    assert (item["callDirection"], item["preVoice"]) == (0, {"callerHintTone": "old.wav"})
    await emu.tones("new.wav")
    assert (await emu.modify(bound, **more)).outcome == (200, "0")


async def test_files_belong_to_an_app(emu: Emulated) -> None:
    """What is approved for one app is unknown in another; the list shows an app's own."""
    await emu.app("other", "s")
    await emu.tones("hint.wav", "a.wav", key="other")
    await emu.tones("a.wav", "a.wav")
    assert (await emu.bind(X1, recordFlag="true", recordHintTone="hint.wav")).code == "1010002"
    assert (await emu.ask("GET", "apps/other/tones")).body == {"items": ["a.wav", "hint.wav"]}
    assert (await emu.ask("GET", f"apps/{KEY}/tones")).body == {"items": ["a.wav"]}


async def test_files_of_the_settings_are_known_to_every_app(tmp_path: Path) -> None:
    """``known_tones`` names files that no app has to be given."""
    async with emulator(tmp_path, known_tones="bell.wav,wait.wav") as emu:
        await emu.bound(X1, preVoice={"callerHintTone": "wait.wav", "calleeHintTone": "bell.wav"})
        assert (await emu.ask("GET", f"apps/{KEY}/tones")).body == {"items": ["bell.wav", "wait.wav"]}
        assert (await emu.ask("DELETE", f"apps/{KEY}/tones/bell.wav")).http == 404


async def test_whether_files_without_effect_are_checked_is_a_setting(tmp_path: Path) -> None:
    """Unconfirmed: a hint without recording, a last-minute voice without a limit. Checked unless told otherwise."""
    idle: list[dict[str, Any]] = [{"recordHintTone": "new.wav"}, {"maxDuration": 0, "lastMinVoice": "new.wav"}]
    async with emulator(tmp_path / "strict") as emu:
        for more in idle:
            assert (await emu.bind(X1, **more)).code == "1010002"
    async with emulator(tmp_path / "lenient", idle_tones_checked=False) as emu:
        await emu.bound(X1, **idle[0])
        limited = await emu.bound(X2, **idle[1])
        # With the limit it would be played.
        assert (await emu.modify(limited, maxDuration=5, lastMinVoice="new.wav")).code == "1010002"
        for more, _ in _ANY:
            assert (await emu.bind(X1, "+8613900000007", "+8613900000008", **more)).code == "1010002"


async def test_files_are_restored(tmp_path: Path) -> None:
    """Approved files are known after a restart, and after one that compacts the journal."""
    async with emulator(tmp_path) as emu:
        await emu.tones("a.wav", "b.wav")
        await emu.ask("DELETE", f"apps/{KEY}/tones/a.wav")
    for compact_after in (1, 1_000):
        async with emulator(tmp_path, compact_after=compact_after) as emu:
            assert (await emu.ask("GET", f"apps/{KEY}/tones")).body == {"items": ["b.wav"]}


@pytest.mark.parametrize(
    ("method", "path", "http"),
    [
        ("PUT", "apps/nobody/tones/a.wav", 404),
        ("GET", "apps/nobody/tones", 404),
        ("PUT", f"apps/{KEY}/tones/a%20b.wav", 422),
        ("PUT", f"apps/{KEY}/tones/" + "a" * 129, 422),
        ("DELETE", f"apps/{KEY}/tones/a.wav", 404),
    ],
)
async def test_mistakes_on_the_admin_port(emu: Emulated, method: str, path: str, http: int) -> None:
    """Unknown apps and files, and names that no file can have, are said in a sentence."""
    reply = await emu.ask(method, path)
    assert reply.http == http
    assert reply.body["detail"]


async def test_an_app_has_a_bounded_number_of_files(emu: Emulated, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more than allowed is a conflict; one that is there is put again."""
    monkeypatch.setattr("broker.emulator.admin._TONES_MAX", 2)
    await emu.tones("a.wav", "b.wav")
    assert (await emu.ask("PUT", f"apps/{KEY}/tones/c.wav")).http == 409
    await emu.tones("a.wav")

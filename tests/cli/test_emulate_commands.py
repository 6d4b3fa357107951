"""``broker emulate calls`` at an emulator, and the mixes it draws from."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from broker.traffic.mix import Dice, Mix, MixError, read
from tests.cli.test_commands import run
from tests.contract.service import CHECKOUT
from tests.emulator.support import X1, A, B, Emulated, emulator

_SHORT = "ring_s = [0, 0.2]\ntalk_s = [0, 0.2]\nmessages = 0.25\nstrangers = 0\n[outcomes]\nanswer = 3\nbusy = 1\n"


async def drive(emu: Emulated, *options: str) -> Any:
    """Run the command beside an emulator that runs in this process."""
    return await asyncio.to_thread(run, "emulate", "calls", "--emulator", emu.admin, *options)


async def test_a_mix_is_driven_and_told(tmp_path: Path) -> None:
    """As many as wanted are placed through what is bound, as the mix says; the report has what became of each push."""
    mix = tmp_path / "mix.toml"
    mix.write_text(_SHORT, encoding="utf-8")
    async with emulator(tmp_path / "state") as emu:
        await emu.bound(X1, A, B)
        ended = await drive(emu, "--rate", "50", "--count", "40", "--mix", str(mix), "--json")
        assert ended.returncode == 0, ended.stderr
        told = orjson.loads(ended.stdout)
        counts = (await emu.ask("GET", "traffic")).body
        calls = counts["calls"]
        assert (told["placed"], told["up"], told["waiting"]) == (40, 0, 0)
        assert told["calls"] == {"answer": calls["answered"], "busy": calls["8102"]}
        assert told["messages"] == {"forwarded": counts["messages"]["0"], "not": 0}
        assert sum(told["calls"].values()) + told["messages"]["forwarded"] == 40
        # This app has no addresses.
        assert (
            told["pushes"]["unaddressed"]
            == counts["told"]
            == calls["answered"] * 6 + calls["8102"] * 4 + counts["messages"]["sent"]
        )


async def test_what_cannot_be_driven_is_one_sentence(tmp_path: Path) -> None:
    """Nothing bound, an address that is far or no emulator's, a file that is no mix, nobody there: exit code 2."""
    bad = tmp_path / "bad.toml"
    bad.write_text("[outcomes]\nasleep = 1\n", encoding="utf-8")
    async with emulator(tmp_path / "state") as emu:
        for options, words in (
            ((), "No binding is live"),
            (("--mix", str(bad)), "asleep is none of"),
            (("--emulator", "http://192.0.2.1"), "is not this machine"),
            (("--emulator", "http://127.0.0.1:1"), "Cannot connect"),
            (("--emulator", emu.wire), "answers 404"),
        ):
            ended = await drive(emu, *options)
            assert (ended.returncode, ended.stdout) == (2, ""), (options, ended.stderr)
            assert words in ended.stderr
            assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "text", ["ring_s = [5, 1]", "messages = 2", "unknown = 1", "[outcomes]\nbusy = 0", "[[", "talk_s = [0, 4000]"]
)
def test_a_bad_mix_is_one_sentence(tmp_path: Path, text: str) -> None:
    """The place in the file and what is wrong there."""
    path = tmp_path / "mix.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(MixError, match=r"mix\.toml: .") as raised:
        read(path)
    assert "\n" not in str(raised.value)
    with pytest.raises(MixError, match="No such file"):
        read(tmp_path / "none.toml")


def test_the_example_is_the_default() -> None:
    """The file that the manual names says what is drawn without one."""
    assert read(CHECKOUT / "docs" / "city.toml") == Mix()


def test_who_dials_what() -> None:
    """A dials Y where there is one, an extension follows X, and one without B is dialled by strangers."""
    dice = Dice(Mix(strangers=0), 1)
    row = {"mode": "axyb", "a": A, "b": B, "x": X1, "y": "+8617000000109", "extension": None}
    assert {tuple(dice.deed(row).values()) for _ in range(50)} == {(A, row["y"]), (B, X1)}
    extended = dice.deed({"mode": "axe", "a": A, "b": "", "x": X1, "y": None, "extension": "0007"})
    assert (extended["to"], extended["digits"]) == (X1, "0007")
    assert extended["from"] not in {A, ""}
    strange = Dice(Mix(strangers=1), 1).deed({"mode": "axb", "a": A, "b": B, "x": X1, "y": None, "extension": None})
    assert strange["from"] not in {A, B}

"""``broker tones`` against a running `up`."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.cli.demo import TONE
from broker.domain import wav
from tests.cli.test_commands import run
from tests.cli.test_operate_commands import ask, plain
from tests.contract.service import Service, client_of, command, environment, eventually, memory, up
from tests.pg import state_folder
from tests.tones import pcm, tone, wav_of


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """One `broker up` for all tests of the module."""
    with state_folder(memory()) as folder, up(folder, "--workers", "1") as running:
        yield running


def told(service: Service, what: str, *arguments: str, code: int = 0) -> Any:
    """What a command about the tones of the demonstration app says."""
    return ask(service, "tones", what, *arguments, "--app", "demo-axb", code=code)


def ended_of(service: Service, what: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """How a command about the tones of the demonstration app ends."""
    return plain(service, "tones", what, *arguments, "--app", "demo-axb")


def exported(service: Service, name: str) -> bytes:
    """What `export` writes to standard output."""
    return subprocess.run(
        command("tones", "export", "--app", "demo-axb", name, "-", "--state-dir", str(service.folder)),
        capture_output=True, env=environment(), check=True,
    ).stdout  # fmt: skip


async def test_a_file_from_its_folder_to_the_platform(service: Service, tmp_path: Path) -> None:
    """Added, exported for the console, submitted, approved: then the emulator binds with it."""
    file = tmp_path / "greeting.wav"
    file.write_bytes(tone())
    assert told(service, "add", str(file))["state"] == "draft"
    upload = tmp_path / "upload.wav"
    assert ended_of(service, "export", "greeting.wav", str(upload)).returncode == 0
    assert upload.read_bytes() == file.read_bytes()
    ended = ended_of(service, "export", "greeting.wav", str(upload))
    assert (ended.returncode, ended.stderr) == (1, f"{upload}: File exists\n")
    assert "only a tone that is submitted" in ask(
        service, "tones", "approve", "--app", "demo-axb", "greeting.wav", code=1
    )
    assert told(service, "submit", "greeting.wav")["state"] == "submitted"
    assert told(service, "approve", "greeting.wav")["state"] == "approved"
    app_key = service.ready["apps"][0]["app_key"]
    async with client_of(service) as client:

        async def known() -> bool:
            return "greeting.wav" in (await client.emulator("GET", f"apps/{app_key}/tones"))["items"]

        await eventually(known, "the emulator knows the approved tone")
    assert told(service, "remove", "greeting.wav", "--yes") == {
        "name": "greeting.wav",
        "removed": True,
    }
    assert told(service, "show", "greeting.wav", code=1) == "The app has no tone 'greeting.wav'.\n"


async def test_up_has_a_tone_that_both_sides_know(service: Service) -> None:
    """The demonstration app's tone is approved here and at the emulator, and is a sound that the platform takes."""
    shown = told(service, "show", TONE)
    assert (shown["state"], shown["duration_ms"]) == ("approved", 1_000)
    sound = wav.read(exported(service, TONE))
    assert (sound.tag, sound.rate, len(set(sound.data)) > 50) == (wav.ALAW, 8_000, True)
    async with client_of(service) as client:
        app_key = service.ready["apps"][0]["app_key"]
        assert TONE in (await client.emulator("GET", f"apps/{app_key}/tones"))["items"]


def test_other_wav_files_are_converted_on_request(service: Service, tmp_path: Path) -> None:
    """Without --convert: exit 1 and what is wrong; with it: taken. A file that is no wav is never taken."""
    file = tmp_path / "music.wav"
    file.write_bytes(pcm([300, -300] * 4_000, channels=2, rate=16_000))
    said = told(service, "add", str(file), code=1)
    assert said.splitlines()[0] == "The file is not taken:"
    assert "16-bit PCM instead of A-law, 16000 Hz instead of 8000, 2 channels instead of one" in said
    assert told(service, "add", str(file), "--convert", "--name", "loud.wav")["converted"] is True
    assert told(service, "submit", "loud.wav")["state"] == "submitted"
    assert told(service, "reject", "loud.wav", "--reason", "too loud")["state_reason"] == "too loud"
    listed = ended_of(service, "list", "--state", "rejected").stdout.splitlines()
    assert [line.split("\t")[:3] for line in listed] == [["name", "state", "state_reason"],
                                                         ["loud.wav", "rejected", "too loud"]]  # fmt: skip
    for content in (b"", b"\xff" * 100, b"RIFF\xff\xff\xff\x7fWAVEfmt ", wav_of(bytes(6), bits=24)):
        file.write_bytes(content)
        ended = ended_of(service, "add", str(file), "--convert")
        assert (ended.returncode, ended.stdout, len(ended.stderr.splitlines())) == (1, "", 2), ended.stderr


def test_mistakes_are_sentences(service: Service, tmp_path: Path) -> None:
    """Names, files, sizes, states that cannot be: exit 1 or 2 and words, no traceback; danger needs --yes."""
    file = tmp_path / "a b.wav"
    file.write_bytes(tone())
    assert "name: must be up to 128 of" in told(service, "add", str(file), code=1)
    large = tmp_path / "large.wav"
    large.write_bytes(bytes(8 * 1024 * 1024 + 1))
    assert told(service, "add", str(large), code=1) == "The file has more than 8,388,608 bytes.\n"
    assert ended_of(service, "add", str(tmp_path / "none.wav")).returncode == 2
    assert ended_of(service, "add", str(tmp_path)).returncode == 2
    assert "--name" in ended_of(service, "add", "-").stderr
    assert ended_of(service, "list", "--state", "gone").returncode == 1
    assert told(service, "submit", "none.wav", code=1) == "The app has no tone 'none.wav'.\n"
    ended = ended_of(service, "remove", TONE)
    assert (ended.returncode, "--yes" in ended.stderr) == (2, True)
    assert told(service, "show", TONE)["state"] == "approved"


@pytest.mark.parametrize(
    "arguments", [[], ["add"], ["list"], ["show"], ["submit"], ["approve"], ["reject"], ["remove"], ["export"]],
    ids=" ".join,
)  # fmt: skip
def test_help_is_there(arguments: list[str]) -> None:
    """The group and every command explain themselves, the group with examples."""
    ended = run("tones", *arguments, "--help")
    assert ended.returncode == 0
    assert ended.stdout.startswith("Usage: ")
    assert arguments or "Examples:" in ended.stdout

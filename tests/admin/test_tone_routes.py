from __future__ import annotations

import io

from tests.admin.test_operator_routes import Operator, operate
from tests.contract.service import Client, eventually
from tests.tones import pcm, tone

__all__ = ["operate"]

_TONES = "apps/demo-axb/tones"


async def test_a_tone_over_http_from_its_file_to_approval(operate: Operator, client: Client) -> None:
    """Uploaded, submitted, approved: the same file comes back, and the emulator beside it knows the name."""
    file = tone()
    made = await operate.ask("PUT", f"{_TONES}/http.wav", data=file)
    assert (made.status, made.body["state"], made.body["duration_ms"]) == (200, "draft", 250)
    assert (await operate.ask("GET", f"{_TONES}/http.wav/content")).raw == file
    (await operate.ask("POST", f"{_TONES}/http.wav:approve")).problem(409, "conflict")
    assert (await operate.ask("POST", f"{_TONES}/http.wav:submit")).body["state"] == "submitted"
    assert (await operate.ask("POST", f"{_TONES}/http.wav:approve")).body["state"] == "approved"
    listed = await operate.ask("GET", f"{_TONES}?state=approved")
    assert {row["name"] for row in listed.body["items"]} >= {"http.wav", "demo_tone.wav"}
    assert (await operate.ask("GET", f"{_TONES}/http.wav")).body["state"] == "approved"
    app_key = client.service.ready["apps"][0]["app_key"]

    async def known() -> bool:
        return "http.wav" in (await client.emulator("GET", f"apps/{app_key}/tones"))["items"]

    await eventually(known, "the emulator knows the approved tone")
    assert (await operate.ask("DELETE", f"{_TONES}/http.wav")).body == {"name": "http.wav", "removed": True}
    (await operate.ask("GET", f"{_TONES}/http.wav/content")).problem(404, "not_found")


async def test_other_files_are_converted_on_request(operate: Operator) -> None:
    """A stereo PCM file is refused with what is wrong about it, and taken with ?convert=true; a bad one never is."""
    music = pcm([500, -500] * 4_000, channels=2, rate=16_000)
    refused = await operate.ask("PUT", f"{_TONES}/music.wav", data=music)
    (error,) = refused.problem(422, "validation_failed")["errors"]
    assert (error["pointer"], "16000 Hz instead of 8000" in error["detail"]) == ("", True)
    taken = await operate.ask("PUT", f"{_TONES}/music.wav?convert=true", data=music)
    assert (taken.status, taken.body["converted"]) == (200, True)
    assert (await operate.ask("POST", f"{_TONES}/music.wav:submit")).body["state"] == "submitted"
    rejected = await operate.ask("POST", f"{_TONES}/music.wav:reject", {"reason": "music without licence"})
    assert (rejected.body["state"], rejected.body["state_reason"]) == ("rejected", "music without licence")
    for content in (b"", b"RIFF", b"{}", b"\xff" * 1_000):
        (await operate.ask("PUT", f"{_TONES}/bad.wav?convert=true", data=content)).problem(422, "validation_failed")


async def test_mistakes_are_named(operate: Operator) -> None:
    """Names, queries, sizes, reasons: 422 with pointers, 413, 404; never a 500."""
    for name in ("a%20b.wav", "a.mp3", "a" * 130 + ".wav", "%C3%A4.wav"):
        assert (await operate.ask("PUT", f"{_TONES}/{name}", data=tone())).pointers() == {"/name"}
    assert (await operate.ask("PUT", f"{_TONES}/a.wav?convert=yes&x=1", data=tone())).pointers() == {"/convert", "/x"}
    too_large = io.BytesIO(bytes(8 * 1024 * 1024 + 1))
    (await operate.ask("PUT", f"{_TONES}/a.wav", data=too_large)).problem(413, "body_too_large")
    (await operate.ask("GET", f"{_TONES}/none.wav")).problem(404, "not_found")
    (await operate.ask("DELETE", f"{_TONES}/none.wav")).problem(404, "not_found")
    (await operate.ask("PUT", "apps/none/tones/a.wav", data=tone())).problem(404, "not_found")
    assert (await operate.ask("POST", f"{_TONES}/demo_tone.wav:reject", {})).pointers() == {"/reason"}
    assert (await operate.ask("GET", f"{_TONES}?state=gone")).pointers() == {"/state"}
    (await operate.ask("GET", f"{_TONES}/%00")).problem(404, "not_found")

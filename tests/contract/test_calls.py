"""``POST /v1/calls/{session_id}:stop`` and the address of a recording, on a platform that has both."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from tests.contract.service import Answer, Client, Service, add_key, phone, rows, settled_config


@pytest.fixture
async def revealing(service: Service, client: Client) -> str:
    """A key of the demonstration app with the scope `reveal`, and no other."""
    (app,) = await rows(service, "SELECT id FROM app WHERE name = 'demo-axb'")
    await rows(service, "DELETE FROM api_key WHERE caller_id IN (SELECT id FROM caller WHERE name = 'listener')")
    key = await add_key(service, app["id"], "listener", ("reveal",))
    await settled_config(service, client, key)
    return key


async def _stop(client: Client, session_id: str, key: str = "") -> Answer:
    return await client.ask("POST", f"/v1/calls/{quote(session_id, safe='')}:stop", key=key)


async def test_a_call_is_stopped_once(client: Client) -> None:
    """200 while it lasts, and the platform hangs up; then 404 call_over."""
    a = phone()
    bound = (await client.bind(a=a)).body
    call = await client.call(a, bound["x"])
    assert call["connected_to"] is not None
    stopped = await _stop(client, call["session_id"])
    assert (stopped.status, stopped.body) == (200, {"stopped": True})
    (await _stop(client, call["session_id"])).problem(404, "call_over")


async def test_another_apps_call_is_over(service: Service, client: Client) -> None:
    """A session of one app cannot be stopped with another app's key, and goes on."""
    other = next(app for app in service.ready["apps"] if app["name"] == "demo-ax")
    a = phone()
    bound = (await client.bind(a=a)).body
    call = await client.call(a, bound["x"])
    (await _stop(client, call["session_id"], key=other["api_key"])).problem(404, "call_over")
    assert (await _stop(client, call["session_id"])).status == 200


async def test_session_ids_are_checked(client: Client) -> None:
    """Both shapes that platforms use reach the platform; what is too long or no text does not."""
    for good in ("1200_1029_4294967295_20190123091514@node246.example.com", "+8613_+8615_4_627e5c1f_963036_669_1_0"):
        (await _stop(client, good)).problem(404, "call_over")
    for bad in ("x" * 257, "a b", "a\u6f22"):
        assert (await _stop(client, bad)).pointers() == {"path:session_id"}


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ({"kind": "drop_answer"}, 503, "unavailable"),
        ({"kind": "code", "code": "1010010"}, 503, "unavailable"),
        ({"kind": "code", "code": "1020166"}, 502, "platform_refused"),
    ],
)
async def test_what_the_platform_says_otherwise(client: Client, fault: dict[str, Any], status: int, code: str) -> None:
    """No answer and too many questions are 503 with Retry-After; what an operator must mend is 502."""
    await client.fault("stop", **fault, count=1)
    answer = await client.ask("POST", "/v1/calls/1200_1@node:stop", headers={"Request-Timeout": "2"})
    answer.problem(status, code)
    assert ("Retry-After" in answer.headers) is (status == 503)


async def test_a_recordings_address(service: Service, client: Client, revealing: str) -> None:
    """The platform's address, asked either way, works; each look is in the audit; nothing is kept for repeats."""
    a = phone()
    bound = (await client.bind(a=a, recording={"enabled": True, "hint_tone": "demo_tone.wav"})).body
    call = await client.call(a, bound["x"])
    await client.emulator("POST", "clock", {"advance_s": 4})  # what is shorter is not kept
    await _stop(client, call["session_id"])
    asked = await _recorded(client, call["session_id"])
    (before,) = await rows(service, "SELECT count(*) AS n FROM audit WHERE what = 'recording'")
    query = f"file_name={quote(asked['file_name'], safe='')}&record_domain={asked['record_domain']}"
    found = await client.ask("GET", f"/v1/recordings?{query}", key=revealing)
    assert found.status == 200, found.raw
    assert {name: found.body[name] for name in asked} == asked
    async with client.http.get(found.body["url"]) as file:
        assert (file.status, (await file.read())[:4]) == (200, b"RIFF")
    keyed = {"Idempotency-Key": "where"}
    for _ in range(2):
        again = await client.ask("POST", "/v1/recordings:locate", asked, key=revealing, headers=keyed)
        assert (again.status, "Idempotency-Replayed" in again.headers) == (200, False)
    (after,) = await rows(service, "SELECT count(*) AS n FROM audit WHERE what = 'recording'")
    assert after["n"] - before["n"] == 3
    assert found.body["url"].encode() not in service.log.read_bytes()


async def test_a_recording_that_is_gone(client: Client, revealing: str) -> None:
    """410 recording_gone for a name that the platform does not know."""
    asked = {"file_name": "never.wav", "record_domain": "nowhere"}
    (await client.ask("POST", "/v1/recordings:locate", asked, key=revealing)).problem(410, "recording_gone")


async def test_recordings_need_the_scope(client: Client, revealing: str) -> None:
    """A key without `reveal` is refused before anything is asked; bad names are named."""
    (await client.ask("GET", "/v1/recordings?file_name=a&record_domain=b")).problem(403, "forbidden")
    wrong = await client.ask("GET", "/v1/recordings?file_name=a%00&record_domain=", key=revealing)
    assert wrong.pointers() == {"/file_name", "/record_domain"}
    assert (await client.ask("GET", "/v1/recordings?file_name=a", key=revealing)).pointers() == {"/record_domain"}
    body = {"file_name": "x" * 129, "record_domain": "b"}
    assert (await client.ask("POST", "/v1/recordings:locate", body, key=revealing)).pointers() == {"/file_name"}


async def _recorded(client: Client, session_id: str) -> dict[str, str]:
    """What the platform calls the recording of a call."""
    found = (await client.emulator("GET", "recordings"))["items"]
    (item,) = [item for item in found if item["session_id"] == session_id]
    return {"file_name": item["record_object_name"], "record_domain": item["record_domain"]}

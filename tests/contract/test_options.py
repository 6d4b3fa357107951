"""Options of a bind, and their change: each one reaches the platform, and is taken away again."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import orjson
import pytest

from broker.cli.demo import TONE
from tests.contract.service import Client, Service, add_app, client_of, eventually, phone, rows, settled_config
from tests.contract.test_bindings import OPTIONS

_numbers = itertools.count(1)


async def _held(client: Client, a: str) -> dict[str, Any]:
    """The terms of the line of ``a``, from the platform's last row about it."""
    rows_of = [row for row in await client.ledger() if row["a"] == a and row["op"] in {"bind", "modify"}]
    return dict(rows_of[-1])


_EACH: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    ({"recording": {"enabled": True}}, {"recordFlag": "true"}, {"recording": {"enabled": True, "hint_tone": None}}),
    (
        {"recording": {"enabled": True, "hint_tone": TONE}},
        {"recordFlag": "true", "recordHintTone": TONE},
        {"recording": {"enabled": True, "hint_tone": TONE}},
    ),
    ({"max_call_minutes": 1440}, {"max_duration": 1440}, {"max_call_minutes": 1440}),
    (
        {"max_call_minutes": 5, "last_minute_tone": TONE},
        {"max_duration": 5, "lastMinVoice": TONE},
        {"max_call_minutes": 5, "last_minute_tone": TONE},
    ),
    ({"sms": True}, {"privateSms": "true"}, {"sms": True}),
    ({"sms": False}, {"privateSms": "false"}, {"sms": False}),
    (
        {"tones": {"caller": TONE}},
        {"preVoice": {"callerHintTone": TONE}},
        {"tones": {"caller": TONE, "callee": None}},
    ),
    (
        {"tones": {"caller": TONE, "callee": TONE}},
        {"preVoice": {"callerHintTone": TONE, "calleeHintTone": TONE}},
        {"tones": {"caller": TONE, "callee": TONE}},
    ),
]


def _terms(row: dict[str, Any], names: dict[str, Any]) -> dict[str, Any]:
    known = {"max_duration": row["max_duration"], **(row["extras"] or {})}
    known["preVoice"] = {place: tone for place, tone in known.get("preVoice", {}).items() if tone}  # "" is none
    return {name: known.get(name) for name in names}


@pytest.mark.parametrize(("asked", "held", "shown"), _EACH)
async def test_an_option_of_a_bind_reaches_the_platform(
    client: Client, asked: dict[str, Any], held: dict[str, Any], shown: dict[str, Any]
) -> None:
    """The platform holds what was asked for, and the binding shows it, at once and later."""
    a = phone()
    answer = await client.bind(a=a, **asked)
    assert answer.status == 201, answer.raw
    assert _terms(await _held(client, a), held) == held
    expected = dict.fromkeys(OPTIONS) | shown
    assert {name: answer.body[name] for name in OPTIONS} == expected
    assert await client.show(answer.body["id"]) == answer.body


@pytest.mark.parametrize(("asked", "held", "shown"), [one for one in _EACH if "recordHintTone" not in one[1]])
async def test_an_option_is_given_and_taken_by_a_change(
    client: Client, asked: dict[str, Any], held: dict[str, Any], shown: dict[str, Any]
) -> None:
    """A patch gives a plain line the option, nulls take it away again: the platform's terms are as before."""
    a = phone()
    path = (await client.bind(a=a)).headers["Location"]
    plain = await _held(client, a)
    given = await client.ask("PATCH", path, asked)
    assert given.status == 200, given.raw
    assert {name: given.body[name] for name in OPTIONS} == dict.fromkeys(OPTIONS) | shown
    assert _terms(await _held(client, a), held) == held
    taken = await client.ask("PATCH", path, dict.fromkeys(asked))
    assert taken.status == 200, taken.raw
    assert {name: taken.body[name] for name in OPTIONS} == dict.fromkeys(OPTIONS)
    neutral = {"recordFlag": "false", "privateSms": "true", "lastMinVoice": "", "max_duration": 0, "preVoice": {}}
    assert plain["max_duration"] == 0
    assert _terms(await _held(client, a), held) == {name: neutral[name] for name in held}


async def test_a_patch_of_a_member_keeps_its_neighbours(client: Client) -> None:
    """Within tones and recording, what is absent stays: RFC 7396 goes down into objects."""
    path = (await client.bind(tones={"caller": TONE, "callee": TONE}, max_call_minutes=9)).headers["Location"]
    answer = await client.ask("PATCH", path, {"tones": {"caller": None}})
    assert answer.body["tones"] == {"caller": None, "callee": TONE}
    answer = await client.ask("PATCH", path, {"recording": {"enabled": True}})
    assert (answer.body["recording"], answer.body["max_call_minutes"]) == ({"enabled": True, "hint_tone": None}, 9)
    answer = await client.ask("PATCH", path, {"recording": {"enabled": None}})
    assert answer.body["recording"] is None


async def test_what_belongs_to_an_option_goes_with_it(client: Client) -> None:
    """Without a limit there is no last minute, without recording no hint: neither must be named to be taken."""
    options: dict[str, Any] = {"max_call_minutes": 5, "last_minute_tone": TONE}
    path = (await client.bind(**options, recording={"enabled": True, "hint_tone": TONE})).headers["Location"]
    for patch in ({"max_call_minutes": None}, {"recording": {"enabled": False}}):
        answer = await client.ask("PATCH", path, patch)
        assert answer.status == 200, answer.raw
    assert {name: answer.body[name] for name in OPTIONS} == dict.fromkeys(OPTIONS)


async def test_a_hint_tone_cannot_be_changed_but_by_another_x(client: Client) -> None:
    """The platform takes a hint tone with the bind only: 409 not_modifiable, or a new line with on_conflict."""
    a = phone()
    created = (await client.bind(a=a, recording={"enabled": True})).body
    path, patch = f"/v1/bindings/{created['id']}", {"recording": {"hint_tone": TONE}}
    (await client.ask("PATCH", path, patch)).problem(409, "not_modifiable")
    assert await client.show(created["id"]) == created
    answer = await client.ask("PATCH", path, {**patch, "on_conflict": "rebind"})
    assert answer.status == 200, answer.raw
    assert answer.body["x"] != created["x"]
    assert answer.body["recording"] == {"enabled": True, "hint_tone": TONE}

    async def only_one() -> bool:
        return [item["x"] for item in await client.platform_of(a)] == [answer.body["x"]]

    await eventually(only_one, "the old line ends")
    assert _terms(await _held(client, a), {"x": 0}) == {"x": None}


@pytest.mark.parametrize(
    ("fields", "pointers"),
    [
        ({"max_call_minutes": 1441}, {"/max_call_minutes"}),
        ({"max_call_minutes": -1}, {"/max_call_minutes"}),
        ({"max_call_minutes": True}, {"/max_call_minutes"}),
        ({"sms": "yes"}, {"/sms"}),
        ({"recording": {}}, {"/recording/enabled"}),
        ({"recording": True}, {"/recording"}),
        ({"recording": {"enabled": True, "hint_tone": "nobody_knows.wav"}}, {"/recording/hint_tone"}),
        ({"recording": {"enabled": False, "hint_tone": TONE}}, {"/recording/hint_tone"}),
        ({"recording": {"enabled": True, "colour": 1}}, {"/recording/colour"}),
        ({"last_minute_tone": TONE}, {"/last_minute_tone"}),
        ({"last_minute_tone": TONE, "max_call_minutes": 0}, {"/last_minute_tone"}),
        ({"tones": {"caller": "nobody_knows.wav", "callee": ""}}, {"/tones/callee"}),
        ({"tones": {"caller": "nobody_knows.wav", "callee": "nor_this.wav"}}, {"/tones/caller", "/tones/callee"}),
        ({"tones": {"other": TONE}}, {"/tones/other"}),
        ({"tones": {"caller": "t" * 129}}, {"/tones/caller"}),
        ({"share": None}, {"/share"}),
        ({"explain": 1}, {"/explain"}),
    ],
)
async def test_wrong_options_are_422(client: Client, fields: dict[str, Any], pointers: set[str]) -> None:
    """Out of range, of the wrong kind, an unknown tone, what goes with what: at the bind and in a patch alike."""
    assert (await client.bind(**fields)).pointers() == pointers
    if "share" in fields or "explain" in fields or fields == {"recording": {}}:
        return
    path = (await client.bind()).headers["Location"]
    before = (await client.ledger())[-1]["seq"]
    assert (await client.ask("PATCH", path, fields)).pointers() == pointers
    assert await client.ledger(before) == []


async def test_a_call_without_limit_is_no_option(client: Client) -> None:
    """max_call_minutes 0 is the platform's default and is shown as none."""
    assert (await client.bind(max_call_minutes=0)).body["max_call_minutes"] is None


async def test_braces_and_chinese_are_kept_by_us(client: Client) -> None:
    """user_data and metadata of any characters come back; the platform hears our own mark instead."""
    a, words = phone(), "{订单} ^1^ 。"
    created = (await client.bind(a=a, user_data=words, metadata={"城": words})).body
    assert (created["user_data"], created["metadata"]) == (words, {"城": words})
    answer = await client.ask("PATCH", f"/v1/bindings/{created['id']}", {"user_data": words * 2})
    assert answer.body["user_data"] == words * 2
    (held,) = await client.platform_of(a)
    assert not set("{}^订单") & set(held["user_data"])


async def test_explain_tells_why_this_x(client: Client) -> None:
    """With explain the answer has the policy, what was left to choose from, and what decided; else it has not."""
    a, b = phone(), phone()
    told = (await client.bind(a=a, b=b, explain=True, policy="sticky", pool="shenzhen")).body["explanation"]
    assert (told["policy"], told["pool"], told["numbers"]) == ("sticky", "shenzhen", 40)
    assert 0 < told["usable"] <= told["open"] == 40
    assert (told["barred_for_a"], told["barred_for_b"]) == (0, 0)
    assert (await client.bind(a=a, b=b, explain=True, pool="shenzhen")).body["explanation"]["why"] == "joined"
    assert "explanation" not in (await client.bind()).body


async def test_what_the_app_may_not_do_is_422(service: Service) -> None:
    """Without recording, SMS or so long a lifetime in the app's profile, a bind and a patch are refused by field."""
    # Nobody listens there: its binding stays pending for as long as the test needs it.
    tenant = await add_app(
        service, "limited", base_url="http://127.0.0.1:9", pools=[("limited", "021", [f"+8617021{next(_numbers):06d}"])]
    )
    await rows(
        service,
        "UPDATE app SET recording = false, sms = false, default_ttl_s = 600, max_ttl_s = 3600 WHERE id = $1",
        tenant.app_id,
    )
    key = tenant.keys["main"]
    async with client_of(service) as client:
        await settled_config(service, client, key)

        async def known() -> bool:
            answers = await asyncio.gather(
                *(
                    client.ask("POST", "/v1/bindings", {"ttl_s": 3601}, key=key, headers={"Connection": "close"})
                    for _ in range(12)
                )
            )
            return all("/ttl_s" in answer.pointers() for answer in answers)

        await eventually(known, "both workers know the profile")
        assert (await client.bind(key=key, recording={"enabled": True})).pointers() == {"/recording"}
        assert (await client.bind(key=key, sms=True)).pointers() == {"/sms"}
        assert (await client.bind(key=key, ttl_s=3601)).pointers() == {"/ttl_s"}
        assert (await client.bind(key=key, ttl_s=0)).pointers() == {"/ttl_s"}
        sent = orjson.dumps({"items": [{"a": phone(), "b": phone(), "ttl_s": 0}, {"a": phone(), "b": phone()}]})
        batch = await client.ask("POST", "/v1/bindings:batch", data=sent, key=key, headers={"Prefer": "respond-async"})
        assert [item["status"] for item in batch.body["items"]] == [422, 202]
        path = f"/v1/bindings/{batch.body['items'][1]['binding']['id']}"
        for patch in ({"ttl_s": 0}, {"ttl_s": 3601}, {"sms": True}, {"recording": {"enabled": True}}):
            (pointer,) = (await client.ask("PATCH", path, patch, key=key)).pointers()
            assert pointer == f"/{next(iter(patch))}"
        last = await client.bind(key=key, ttl_s=3600, recording={"enabled": False}, headers={"Prefer": "respond-async"})
        assert last.status == 202
        for bound in (path, last.headers["Location"]):
            ended = await client.ask("DELETE", bound, key=key, headers={"Prefer": "respond-async"})
            assert ended.status in {200, 202}

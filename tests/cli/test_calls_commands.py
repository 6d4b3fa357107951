"""`broker calls` and its routes on a running `up` with two workers: list, explain, retry, discard, all at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import orjson
import pytest

from tests.cli.test_commands import run
from tests.contract.service import Client, Json, Service, add_key, client_of, eventually, memory, phone, rows, up
from tests.pg import state_folder

APP = "demo-axb"
_RACES = 12

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """One `broker up` whose calls die soon."""
    settings = {"BROKER_DEAD_AFTER_TRIES": "3", "BROKER_DEAD_AFTER_S": "0", "BROKER_AUDIT_INTERVAL_S": "0"}
    with state_folder(memory()) as folder, up(folder, "--workers", "2", settings=settings) as running:
        yield running


@pytest.fixture
async def client(service: Service) -> AsyncIterator[Client]:
    """Requests to it."""
    async with client_of(service) as made:
        yield made


def broker(service: Service, *args: str, code: int = 0) -> Any:
    """Run a command of an operator; its JSON, or what it said on stderr."""
    ended = run("calls", *args, "--app", APP, "--json", "--state-dir", str(service.folder))
    assert ended.returncode == code, ended.stdout + ended.stderr
    return orjson.loads(ended.stdout) if code == 0 else ended.stderr


async def bury(client: Client, service: Service, many: int) -> list[tuple[str, Json]]:
    """Release bindings whose unbinds get no answer until their calls are dead, while others are served."""
    made = [(await client.bind()).body for _ in range(many)]
    await client.fault("unbind", "code", http=500, code="1023002")
    for one in made:
        await client.ask("DELETE", f"/v1/bindings/{one['id']}", headers={"Prefer": "respond-async"})

    async def buried() -> bool:
        await asyncio.gather(*(client.bind() for _ in range(8)))
        dead = await rows(service, "SELECT line_id, no FROM platform_call WHERE state = 'dead'")
        return len(dead) == many

    await eventually(buried, "all of them dead")
    await client.emulator("DELETE", "faults")
    calls = {row["line_id"].hex: f"{row['line_id'].hex}.{row['no']}" for row in
             await rows(service, "SELECT line_id, no FROM platform_call WHERE state = 'dead'")}  # fmt: skip
    return [(calls[one["line"].replace("-", "")], one) for one in made]


async def gauge(client: Client) -> float:
    """What the metric of dead calls says."""
    text = (await client.ask("GET", f"{client.service.ready['admin']}/metrics", key=None)).raw.decode()
    (line,) = [row for row in text.splitlines() if row.startswith(f'broker_calls_dead{{app="{APP}"}}')]
    return float(line.split()[-1])


async def test_from_death_to_retry(client: Client, service: Service) -> None:
    """Listed, explained, counted; tried again it ends as was wanted, and the list and the metric are empty."""
    ((call, binding),) = await bury(client, service, 1)
    (told,) = broker(service, "list")["items"]
    assert (told["id"], told["op"], told["state"], told["x"]) == (call, "unbind", "dead", binding["x"])
    explained = broker(service, "explain", call)
    assert explained["bindings"] == [f"{binding['id']} (releasing)"]
    assert {entry["code"] for entry in explained["tries"]} == {"1023002"}
    assert explained["a"] == binding["a"]

    async def counted() -> bool:
        return await gauge(client) == 1

    await eventually(counted, "the metric")
    assert broker(service, "retry", "--all") == {"items": [{"id": call, "state": "open"}]}
    assert (await client.until(binding["id"], "released"))["reason"] == "released"
    assert broker(service, "list", "--state", "all") == {"items": []}

    async def none() -> bool:
        return await gauge(client) == 0

    await eventually(none, "the metric")
    story = run("bindings", "show", binding["id"], "--json", "--state-dir", str(service.folder))
    events = [event["event"] for event in orjson.loads(story.stdout)["story"]]
    assert "retry_call" in events


async def test_a_discard_wants_a_reason_and_a_yes(client: Client, service: Service) -> None:
    """Without either it is refused; with both the binding has ended here, and lives on at the platform."""
    ((call, binding),) = await bury(client, service, 1)
    assert "--reason" in run("calls", "discard", call, "--yes", "--state-dir", str(service.folder)).stderr
    no = run("calls", "discard", call, "--reason", "seen", "--app", APP, "--state-dir", str(service.folder))
    assert (no.returncode, "--yes" in no.stderr) == (2, True)
    told = broker(service, "discard", call, "--reason", "ended in the console", "--yes")
    assert told == {"items": [{"id": call, "state": "discarded", "op": "unbind"}]}
    assert (await client.show(binding["id"]))["state"] == "released"
    (subscription,) = await rows(service, "SELECT subscription_id FROM line WHERE id = $1::uuid", binding["line"])
    assert subscription[0] in {held["subscription_id"] for held in await client.platform_bindings()}
    story = run("bindings", "show", binding["id"], "--json", "--state-dir", str(service.folder))
    texts = [event["text"] for event in orjson.loads(story.stdout)["story"] if event["event"] == "discard_call"]
    assert [text.endswith("gave up a dead call: ended in the console") for text in texts] == [True]
    assert "There is no call" in broker(service, "retry", call, code=1)
    assert "must be a call's id" in broker(service, "explain", "nonsense", code=1)


async def test_everybody_at_once(client: Client, service: Service) -> None:
    """Retries and discards of the same calls from many sides, beside the workers: each call has one fate.

    Whose discard was taken is left alone by the workers; every other one is unbound once.
    """
    buried = await bury(client, service, _RACES)
    key = await add_key(
        service, (await rows(service, "SELECT id FROM app WHERE name = $1", APP))[0]["id"], "console", ["operate"]
    )
    base = f"{service.ready['admin']}/v1/operator/apps/{APP}/calls"
    ledger = len(await client.ledger())

    async def operate(verb: str, call: str) -> int:
        body = {"calls": [call]} | ({"reason": "race"} if verb == "discard" else {})
        async with aiohttp.ClientSession() as http:
            asked = http.post(f"{base}:{verb}", json=body, headers={"Authorization": f"Bearer {key}"})
            async with asked as answer:
                assert answer.status in {200, 404, 409}, await answer.text()
                return answer.status

    verbs = ("retry", "discard", "retry", "discard")
    answers = await asyncio.gather(*(operate(verb, call) for call, _ in buried for verb in verbs))
    for place, (_, binding) in enumerate(buried):
        won = [verb for verb, status in zip(verbs, answers[4 * place : 4 * place + 4], strict=True) if status == 200]
        assert len(won) == 1, won
        assert (await client.until(binding["id"], "released"))["state"] == "released"
        (line,) = await rows(
            service, "SELECT id, subscription_id, state FROM line WHERE id = $1::uuid", binding["line"]
        )
        held = {one["subscription_id"] for one in await client.platform_bindings()}
        unbinds = [row for row in (await client.ledger())[ledger:]
                   if row["op"] == "unbind" and row["subscription_id"] == line["subscription_id"]]  # fmt: skip
        assert line["state"] == "released"
        assert (line["subscription_id"] in held, len(unbinds)) == ((True, 0) if won == ["discard"] else (False, 1))
    assert await rows(service, "SELECT FROM platform_call WHERE state <> 'settled'") == []


async def test_withdrawn_by_policy_and_told_to_a_repeat(client: Client, service: Service) -> None:
    """A bind that nobody waits for ends as withdrawn; the same key again is told so, and nothing is there."""
    a, b, key = phone(), phone(), {"Idempotency-Key": "gone-client", "Prefer": "respond-async"}
    await client.fault("bind", "drop_answer")
    await client.fault("query", "reset")
    first = await client.bind(a=a, b=b, headers=key)
    assert first.status == 202
    set_it = run("app", "set", APP, "--withdraw-after-s", "60", "--json", "--state-dir", str(service.folder))
    assert orjson.loads(set_it.stdout)["withdraw_after_s"] == 60
    assert (await client.bind(a=a, b=b, headers=key)).body == first.body
    await rows(service, "UPDATE binding SET created_at = created_at - interval '1 hour' WHERE state = 'pending'")

    async def seen() -> bool:
        return str((await client.show(first.body["id"]))["state"]) == "releasing"

    await eventually(seen, "withdrawn")
    await client.emulator("DELETE", "faults")
    shown = await client.until(first.body["id"], "released")
    assert shown["reason"] == "withdrawn"
    repeat = await client.bind(a=a, b=b, headers=key)
    repeat.problem(409, "withdrawn")
    assert repeat.body["binding"] == first.body["id"]
    assert await client.platform_of(a) == []
    assert run("app", "set", APP, "--withdraw-after-s", "none", "--state-dir", str(service.folder)).returncode == 0

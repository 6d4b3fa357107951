"""The whole life of an order, as its system sees it: bound, called, answered, ended, recorded, texted, released.

Nothing is told by the tests: the platform pushes what happens, and we are compared with what it says that it told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import pytest

from tests.contract.service import (
    Answer,
    Client,
    Json,
    Service,
    add_key,
    eventually,
    memory,
    phone,
    rows,
    settled_config,
    up,
)
from tests.pg import state_folder

_RING_S: Final = 6
_TALK_S: Final = 65
#: How much longer a call may last than it was to, on a machine that has other things to do.
_LATE_S: Final = 60
_MODES: Final = ("axb", "ax", "axe", "axyb", "x")
_TEXTED: Final = frozenset({"axb", "ax", "x"})  # the others carry no messages (contract 6.6)
#: What an order system is told of its binding, and what the platform tells us of the X.
_EVENTS: Final[Mapping[str, tuple[str, ...]]] = {
    mode: (
        *("binding.active", "call.started", "call.ringing", "call.answered", "call.ended"),
        *("cdr.created", "recording.ready"),
        *(("sms.forwarded",) if mode in _TEXTED else ()),
        "binding.released",
    )
    for mode in _MODES
}
_STEPS: Final[Mapping[str, tuple[str, ...]]] = {
    mode: (
        "callin",
        *(("collectInfo",) if mode == "axe" else ()),
        "callout",
        "alerting",
        "answer",
        "disconnect",
        "fee",
        *(("Block",) if mode == "x" else ()),
        *(("Notify",) if mode in _TEXTED else ()),
    )
    for mode in _MODES
}


@dataclass
class Order:
    """An order of one mode: a courier A, a customer B, and the binding between them."""

    client: Client
    app: Json
    reveal: str
    a: str = field(default_factory=phone)
    b: str = field(default_factory=phone)
    made: Json = field(default_factory=dict)
    since: int = 0

    @property
    def mode(self) -> str:
        """Of its app."""
        return str(self.app["mode"])

    async def ask(self, method: str, path: str, body: object = None, *, key: str = "") -> Answer:
        """Ask with the app's key."""
        return await self.client.ask(method, path, body, key=key or str(self.app["api_key"]))

    async def bind(self) -> None:
        """Bind, with calls recorded."""
        recording = {"enabled": True, "hint_tone": "demo_tone.wav"}
        wanted: dict[str, Any] = {"a": self.a, "ttl_s": 7200, "recording": recording}
        if self.mode in {"axb", "x"}:
            wanted["b"] = self.b
        answer = await self.ask("POST", "/v1/bindings", wanted)
        assert (answer.status, answer.body["state"]) == (201, "active"), answer.raw
        self.made = dict(answer.body)
        self.since = (await self.client.emulator("GET", "traffic"))["told"]

    async def call(self) -> str:
        """B dials what the order system was told to give B; A's phone rings. Returns the session."""
        placed = {"from": self.b, "to": self.made["x"], "ring_s": _RING_S, "talk_s": _TALK_S, "released_by": "callee"}
        digits = {"digits": self.made["extension"]} if self.made["extension"] else {}
        went = await self.client.emulator("POST", "calls", placed | digits)
        assert (went["connected_to"], went["state_code"]) == (self.a, 0)
        return str(went["session_id"])

    async def wait(self, seconds: float) -> None:
        """Let time pass, here and at the platform."""
        clock = f"{self.client.service.ready['admin']}/test/clock"
        assert (await self.client.ask("POST", clock, {"advance_s": seconds}, key=None)).status == 200

    async def heard(self, kind: str) -> Json:
        """Wait for an event of this binding in the feed."""

        async def there() -> Json | None:
            path = f"/v1/events?binding_id={self.made['id']}&types={kind}"
            found = (await self.ask("GET", path)).body["items"]
            return found[0] if found else None

        return dict(await eventually(there, f"{kind} in the feed"))

    async def text(self) -> Json:
        """B writes to X."""
        body = {"from": self.b, "to": self.made["x"], "content": "at the door"}
        return dict(await self.client.emulator("POST", "sms", body))

    async def listed(self, what: str) -> Json:
        """Return the one call, record or message of this binding."""
        (found,) = (await self.ask("GET", f"/v1/{what}?binding_id={self.made['id']}")).body["items"]
        return dict(found)

    async def told(self) -> list[Json]:
        """What the platform told of this X since the bind."""
        page = await self.client.emulator("GET", f"told?after={self.since}&limit=10000&app_key={self.app['app_key']}")
        return [row for row in page["items"] if row["x"] == self.made["x"]]

    async def heard_by_us(self) -> list[Json]:
        """Wait until everything told has been heard, and return it."""

        async def delivered() -> list[Json] | None:
            if (await self.client.emulator("GET", "traffic"))["waiting"]:
                return None
            found = await self.told()
            return found if all(row["state"] == "delivered" for row in found) else None

        return list(await eventually(delivered, "everything told has been heard, repetitions and all"))

    async def recording(self, record: Json) -> bytes:
        """Fetch what was recorded, though the clock was moved since the process that is asked has spoken."""
        found = await self.ask("POST", "/v1/recordings:locate", {"cdr_id": record["id"]}, key=self.reveal)
        assert found.status == 200, found.raw
        return (await self.client.ask("GET", str(found.body["url"]), key=None)).raw


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """A broker of these orders alone: pools are small, what was released rests, and the platform makes trouble."""
    with state_folder(memory()) as folder, up(folder, "--test-clock", "--workers", "2") as running:
        yield running


@pytest.fixture
async def order(request: pytest.FixtureRequest, service: Service, client: Client) -> Order:
    """An order of the mode that the test names, whose system has a key that may hear recordings."""
    (app,) = [app for app in service.ready["apps"] if app["mode"] == request.param]
    (known,) = await rows(service, "SELECT id FROM app WHERE name = $1", app["name"])
    await rows(service, "DELETE FROM api_key WHERE caller_id IN (SELECT id FROM caller WHERE name = 'listener')")
    reveal = await add_key(service, known["id"], "listener", ("reveal",))
    await settled_config(service, client, reveal)
    return Order(client, app, reveal)


@pytest.mark.parametrize("order", _MODES, indirect=True)
async def test_the_whole_life_of_an_order(order: Order) -> None:
    """Each step shows in the books and in the feed, once, and the platform's own ledger says the same."""
    await order.bind()
    await order.heard("binding.active")

    session = await order.call()
    assert (await order.heard("call.ringing"))["data"]["session_id"] == session
    await order.wait(_RING_S)
    await order.heard("call.answered")
    await order.wait(_TALK_S)
    await order.heard("call.ended")
    call = await order.listed("calls")
    assert (call["session_id"], call["state"], call["state_code"]) == (session, "ended", 0)

    await order.heard("cdr.created")
    record = await order.listed("cdrs")
    assert (record["call"], record["x"], record["extension"]) == (call["id"], order.made["x"], order.made["extension"])
    assert record["direction"] == (1 if order.mode == "x" else 0)
    assert _TALK_S <= record["talk_s"] <= _TALK_S + _LATE_S
    assert record["reason"] == "hung up after the connection"

    await order.heard("recording.ready")
    assert (await order.recording(record)).startswith(b"RIFF")

    if order.mode in _TEXTED:
        sent = await order.text()
        assert (sent["forwarded_to"], sent["send_result"]) == (order.a, 0)
        await order.heard("sms.forwarded")
        message = await order.listed("sms")
        assert (message["result"], message["x"]) == (0, order.made["x"])

    ended = await order.ask("DELETE", f"/v1/bindings/{order.made['id']}")
    assert (ended.status, ended.body["state"]) == (200, "released")
    await order.heard("binding.released")

    feed = (await order.ask("GET", f"/v1/events?binding_id={order.made['id']}")).body["items"]
    assert sorted(event["type"] for event in feed) == sorted(_EVENTS[order.mode])
    ledger = await order.heard_by_us()
    assert [row["type"] for row in ledger] == list(_STEPS[order.mode])
    assert {row["session_id"] for row in ledger} <= {session, None}


@pytest.mark.parametrize("order", ["axb"], indirect=True)
async def test_trouble_on_the_way_changes_nothing(order: Order) -> None:
    """Repeated, delayed, wrongly signed, cut, packed and late: the books and the feed say what was told, once."""
    await order.bind()
    trouble = {
        "duplicates": 0.5, "delay_s": 1, "wrong_signature": 0.2, "cut": 0.1, "cdr_batch": 4, "cdr_batch_s": 1,
    }  # fmt: skip
    await order.client.emulator("PUT", "trouble", trouble)
    try:
        placed = {"from": order.b, "to": order.made["x"], "talk_s": 0}
        sessions = [(await order.client.emulator("POST", "calls", placed))["session_id"] for _ in range(12)]
        sent = [(await order.text())["sms_identifier"] for _ in range(4)]

        async def tried() -> bool:
            return all(row["pushes"] for row in await order.told())

        await eventually(tried, "everything told has been pushed once")
    finally:
        await order.client.emulator("PUT", "trouble", {})
    # What was not heard is pushed again a minute after the first time.
    await order.wait(90)
    ledger = await order.heard_by_us()
    assert Counter(row["type"] for row in ledger) == {
        **dict.fromkeys(("callin", "callout", "alerting", "answer", "disconnect", "fee"), len(sessions)),
        "Notify": len(sent),
    }
    assert sum(row["pushes"] for row in ledger) > len(ledger)

    async def found(what: str) -> list[Json]:
        return list((await order.ask("GET", f"/v1/{what}?binding_id={order.made['id']}")).body["items"])

    async def told() -> Counter[str] | None:
        path = f"/v1/events?binding_id={order.made['id']}&limit=200"
        kinds = Counter(event["type"] for event in (await order.ask("GET", path)).body["items"])
        return kinds if kinds.total() >= 1 + 5 * len(sessions) + len(sent) else None

    assert await eventually(told, "all of it in the feed") == {
        "binding.active": 1,
        **dict.fromkeys(("call.started", "call.ringing", "call.answered", "call.ended", "cdr.created"), len(sessions)),
        "sms.forwarded": len(sent),
    }
    for what in ("calls", "cdrs"):
        assert sorted(one["session_id"] for one in await found(what)) == sorted(sessions)
    assert len(await found("sms")) == len(sent)


@pytest.mark.parametrize("order", ["axb"], indirect=True)
@pytest.mark.parametrize(
    ("outcome", "state_code", "said", "recorded"),
    [
        ("busy", 8102, "busy", "busy"),
        ("no_answer", 8101, "no answer", "no answer"),
        ("rejected", 7503, "the callee rejected the call", "rejected"),
        ("off", 8104, "the callee's phone is off or without network", "the callee's phone is off or without network"),
        (7002, 7002, "call frequency is limited for the app", None),
    ],
)
async def test_a_call_that_nobody_takes(
    order: Order, outcome: str | int, state_code: int, said: str, recorded: str | None
) -> None:
    """Why is in the call and in its record, which has no second of talk; nothing was answered or recorded."""
    await order.bind()
    placed: dict[str, Any] = {"from": order.b, "to": order.made["x"], "outcome": outcome, "talk_s": _TALK_S}
    went = await order.client.emulator("POST", "calls", placed)
    assert (went["connected_to"], went["state_code"]) == (None, state_code)
    await order.heard("cdr.created")
    await order.heard("call.ended")
    call, record = await order.listed("calls"), await order.listed("cdrs")
    assert (call["state_code"], call["reason"], call["answered_at"]) == (state_code, said, None)
    assert (record["talk_s"], record["answered_at"], record["recording"]) == (0, None, None)
    if recorded is not None:
        assert recorded in record["reason"]
    feed = (await order.ask("GET", f"/v1/events?binding_id={order.made['id']}")).body["items"]
    assert not {"call.answered", "recording.ready"} & {event["type"] for event in feed}

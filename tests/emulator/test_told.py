"""What apps are told of calls, messages and numbers, how often, and how it goes wrong when wanted."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from broker.platform.huawei.push import Doubt, Signer, signed_at
from tests.contract.service import eventually
from tests.emulator.support import KEY, SECRET, X1, X2, A, B, C, Emulated, Json, emulator

_SIGNER = Signer(KEY, (SECRET,), wsse=True)
_KINDS = {"events_url": "events", "cdr_url": "cdr", "sms_url": "sms", "sms_control_url": "sms-control"}


class Receiver:
    """The app's own server: remembers what it was pushed, and answers as it is told."""

    def __init__(self) -> None:
        self.pushed: list[tuple[str, Json]] = []
        self.status = 200
        self.reply: object = None
        self.unsigned = 0
        self.signed: list[datetime] = []
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        """Answer one push; one with a wrong digest is refused."""
        body = await request.json()
        at = signed_at(request.headers, _SIGNER)
        if isinstance(at, Doubt):
            self.unsigned += 1
            return web.Response(status=401)
        self.signed.append(at)
        self.pushed.append((request.match_info["kind"], body))
        return web.json_response(self.reply, status=self.status) if self.reply else web.Response(status=self.status)

    def of(self, kind: str) -> list[Json]:
        """Return the bodies that came to one address."""
        return [body for at, body in self.pushed if at == kind]

    def app(self, **more: Any) -> Json:
        """Return an app's configuration with all its addresses here."""
        return {**{name: f"{self.url}/{kind}" for name, kind in _KINDS.items()}, **more}


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A server on a port of its own."""
    served = Receiver()
    app = web.Application()
    app.add_routes([web.post("/{kind}", served.answer)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    served.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield served
    await runner.cleanup()


@pytest.fixture
async def emu(tmp_path: Path, receiver: Receiver) -> AsyncIterator[Emulated]:
    """An emulator that pushes there."""
    async with emulator(tmp_path / "state", app=receiver.app(), keep_told=10_000) as running:
        yield running


async def told(emu: Emulated, **filters: str) -> list[Json]:
    """Return the ledger of what was told."""
    query = "".join(f"&{name}={value}" for name, value in filters.items())
    return list((await emu.ask("GET", f"told?limit=10000{query}")).body["items"])


async def all_in(emu: Emulated, state: str = "delivered") -> list[Json]:
    """Wait until nothing is under way; everything told is in that state."""

    async def quiet() -> list[Json] | None:
        return None if (await emu.ask("GET", "traffic")).body["waiting"] else await told(emu)

    rows: list[Json] = await eventually(quiet, "all pushes are over")
    assert {row["state"] for row in rows} == {state}
    return rows


async def place(emu: Emulated, caller: str = A, to: str = X1, **plan: Any) -> Json:
    """Place a call that lasts a minute unless told otherwise."""
    return (await emu.ask("POST", "calls", {"from": caller, "to": to, "talk_s": 60, **plan})).body


async def test_an_answered_call_is_told_in_order(emu: Emulated, receiver: Receiver) -> None:
    """callin, callout, alerting, answer, disconnect, each as it happens; the record follows the end (6.4, 6.5)."""
    subscription = await emu.bound(userData="order-1", recordFlag="true", recordHintTone="")
    went = await place(emu, ring_s=6)
    assert (went["connected_to"], went["state_code"]) == (B, 0)
    assert [row["type"] for row in await told(emu)] == ["callin", "callout", "alerting"]
    await emu.advance(6)
    await eventually(lambda: _types(emu, 4), "answered")
    await emu.advance(60)
    await eventually(lambda: _types(emu, 6), "over")
    rows = await all_in(emu)
    assert [row["type"] for row in rows] == ["callin", "callout", "alerting", "answer", "disconnect", "fee"]
    assert {row["session_id"] for row in rows} == {went["session_id"]}
    assert {(row["subscription_id"], row["user_data"], row["pushes"]) for row in rows} == {(subscription, "order-1", 1)}
    events = receiver.of("events")
    assert [event["eventType"] for event in events] == ["callin", "callout", "alerting", "answer", "disconnect"]
    assert events[0]["statusInfo"] | {"timestamp": ""} == {
        "sessionId": went["session_id"], "timestamp": "", "caller": A, "called": X1,
        "subscriptionId": subscription, "userData": "order-1",
    }  # fmt: skip
    assert [event["statusInfo"]["called"] for event in events[1:]] == [B] * 4
    assert events[-1]["statusInfo"]["stateCode"] == 0
    ((record,),) = [body["feeLst"] for body in receiver.of("cdr")]
    (file,) = (await emu.ask("GET", "recordings")).body["items"]
    assert record["recordObjectName"] == file["record_object_name"]
    same = {
        "direction": 1, "appKey": KEY, "bindNum": X1, "callerNum": A, "calleeNum": X1, "fwdDisplayNum": X1,
        "fwdDstNum": B, "fwdUnaswRsn": 0, "ulFailReason": 0, "sipStatusCode": 0, "recordFlag": 1,
        "serviceType": "004", "mptyId": subscription, "subscriptionId": subscription, "userData": "order-1",
        "recordDomain": "storage.emulator",
    }  # fmt: skip
    assert {name: record.get(name) for name in same} == same
    times = [record[name] for name in ("callInTime", "fwdStartTime", "fwdAlertingTime", "fwdAnswerTime", "callEndTime")]
    assert times == sorted(times)
    assert "failTime" not in record


async def _types(emu: Emulated, count: int) -> bool:
    return len(await told(emu)) >= count


async def test_calls_that_nobody_takes(emu: Emulated, receiver: Receiver) -> None:
    """By word or by cause: the disconnect has it, the record says when it failed and why; nobody answered."""
    await emu.bound()
    expected = {"busy": (8102, 17, 486), "no_answer": (8101, 19, 480), "off": (8104, 20, 480), 7004: (7004, 0, 403)}
    for outcome in expected:
        assert (await place(emu, outcome=outcome))["connected_to"] is None
    await all_in(emu)
    ends = [e["statusInfo"]["stateCode"] for e in receiver.of("events") if e["eventType"] == "disconnect"]
    assert sorted(ends) == sorted(code for code, _, _ in expected.values())
    records = [body["feeLst"][0] for body in receiver.of("cdr")]
    assert all("failTime" in one and "fwdAnswerTime" not in one for one in records)
    assert Counter((one["fwdUnaswRsn"], one["sipStatusCode"]) for one in records) == Counter(
        (q850, sip) for _, q850, sip in expected.values()
    )
    assert (await emu.ask("POST", "calls", {"from": A, "to": X1, "outcome": "asleep"})).http == 422
    assert (await emu.ask("POST", "calls", {"from": A, "to": X1, "outcome": 9999})).http == 422


async def test_nobody_behind_x(emu: Emulated, receiver: Receiver) -> None:
    """The callin and a disconnect with 8014, and a record of direction 2 without a binding."""
    await place(emu)
    rows = await all_in(emu)
    assert [row["type"] for row in rows] == ["callin", "disconnect", "fee"]
    (record,) = receiver.of("cdr")[0]["feeLst"]
    assert record["direction"] == 2
    assert not {"subscriptionId", "fwdDstNum", "fwdStartTime"} & record.keys()
    assert receiver.of("events")[1]["statusInfo"]["stateCode"] == 8014


async def test_a_record_can_name_the_file_itself(tmp_path: Path, receiver: Receiver) -> None:
    """With an address of the storage's the record has the link, which leads to the sound (6.5, 9.1)."""
    async with emulator(tmp_path / "state", app=receiver.app(), record_download_base="http://storage") as emu:
        await emu.bound(recordFlag="true", recordHintTone="")
        session = (await place(emu))["session_id"]
        await emu.advance(30)
        assert (await emu.ask("DELETE", f"calls/{session}")).http == 204
        await all_in(emu)
        (record,) = receiver.of("cdr")[0]["feeLst"]
        path = record["recordFileDownloadUrl"].removeprefix("http://storage")
        async with emu.http.get(f"{emu.wire}{path}") as answer:
            assert (answer.status, (await answer.read())[:4]) == (200, b"RIFF")


async def test_a_barred_direction(emu: Emulated, receiver: Receiver) -> None:
    """A call that a binding itself forbids is told with that binding."""
    subscription = await emu.bound(callDirection=1, userData="order-1")
    assert (await place(emu, B))["state_code"] == 8016
    await all_in(emu)
    (record,) = receiver.of("cdr")[0]["feeLst"]
    assert (record["direction"], record["subscriptionId"], record["userData"]) == (0, subscription, "order-1")
    assert (record["ulFailReason"], "fwdDstNum" in record) == (519, False)


async def test_the_longest_duration_is_told(emu: Emulated, receiver: Receiver) -> None:
    """A call that reaches it ends with 8010 without anybody looking."""
    await emu.bound(maxDuration=1)
    await place(emu, talk_s=600)
    await emu.advance(61)
    await eventually(lambda: _types(emu, 6), "over")
    await all_in(emu)
    assert receiver.of("events")[-1]["statusInfo"]["stateCode"] == 8010


async def test_what_is_not_heard_is_pushed_again(tmp_path: Path, receiver: Receiver) -> None:
    """At 1, 4, 9, 106, 203 and 300 minutes after the first push, then never; each try is signed."""
    receiver.status = 503
    async with emulator(tmp_path / "state", app=receiver.app()) as emu:
        await emu.ask("POST", "number-status", {"items": [{"number": X1, "status": "10", "cause": "2"}]})
        for tries, wait_min in enumerate((1, 3, 5, 97, 97, 97), 1):

            async def tried(tries: int = tries) -> bool:
                return len(receiver.pushed) == tries

            await eventually(tried, f"try {tries}")
            await emu.advance(wait_min * 60)
        (row,) = await all_in(emu, "given_up")
        assert (row["pushes"], row["status"]) == (7, 503)
        # Each was signed when it was sent: none came before its time.
        first, *others = receiver.signed
        assert [int((at - first).total_seconds() / 60) for at in others] == [1, 4, 9, 106, 203, 300]


async def test_five_hours_in_a_moment(tmp_path: Path, receiver: Receiver) -> None:
    """The schedule can be compressed; a receiver that comes back gets what it missed."""
    receiver.status = 503
    async with emulator(tmp_path / "state", app=receiver.app(), push_again_factor=0.0001) as emu:
        await emu.bound()
        await place(emu, talk_s=0)

        async def missed() -> bool:
            return len(receiver.pushed) > 12

        await eventually(missed, "each was tried twice or more")
        receiver.status = 200
        rows = await all_in(emu)
        assert len(rows) == 6
        assert (await emu.ask("GET", "traffic")).body["pushes"]["retried"] > 6


async def test_trouble(tmp_path: Path, receiver: Receiver) -> None:
    """Repeated, delayed, wrongly signed, cut and packed: everything arrives, some of it more often."""
    async with emulator(tmp_path / "state", app=receiver.app(), push_again_factor=0.001) as emu:
        await emu.bound()
        trouble = {
            "duplicates": 0.5, "delay_s": 0.2, "wrong_signature": 0.2, "cut": 0.1, "missing_fields": 0.3,
            "cdr_batch": 5, "cdr_batch_s": 0.3,
        }  # fmt: skip
        assert (await emu.ask("PUT", "trouble", trouble)).http == 200
        for _ in range(24):
            await place(emu, talk_s=0)
        rows = await all_in(emu)
        assert len(rows) == 24 * 6
        seen = Counter((e["eventType"], e["statusInfo"]["sessionId"]) for e in receiver.of("events"))
        assert set(seen) == {(row["type"], row["session_id"]) for row in rows if row["kind"] == "events"}
        assert max(seen.values()) > 1
        assert receiver.unsigned > 0
        parcels = [len(body["feeLst"]) for body in receiver.of("cdr")]
        assert max(parcels) == 5
        assert {one["sessionId"] for body in receiver.of("cdr") for one in body["feeLst"]} == {
            row["session_id"] for row in rows
        }
        assert (await emu.ask("PUT", "trouble", {})).body["duplicates"] == 0
        assert (await emu.ask("PUT", "trouble", {"cdr_batch": 51})).http == 422


async def test_messages_of_a_pair(emu: Emulated, receiver: Receiver) -> None:
    """AXB: a party's message goes to the other, a stranger's to nobody; the notice says which (6.6)."""
    subscription = await emu.bound(userData="order-1")
    sent = (await emu.ask("POST", "sms", {"from": B, "to": X1, "content": "hello"})).body
    assert (sent["forwarded_to"], sent["content"], sent["send_result"]) == (A, "hello", 0)
    assert (await emu.ask("POST", "sms", {"from": C, "to": X1})).body["send_result"] == 2
    await all_in(emu)
    first, second = (body["smsEvent"] for body in receiver.of("sms"))
    assert (first["calling"], first["called"], first["virtualNumber"]) == (B, A, X1)
    assert (first["subscriptionId"], first["userData"], first["notificationMode"]) == (
        subscription,
        "order-1",
        "Notify",
    )
    assert {para["key"]: para["value"] for para in first["extInfo"]["extParas"]} == {"splitNum": "1", "direction": "0"}
    assert (second["sendResult"], second.get("called")) == (2, None)
    assert "smsContent" not in first


async def test_messages_of_one(tmp_path: Path, receiver: Receiver) -> None:
    """AX: others reach A with their number behind; A names the receiver behind an @, else the app is asked."""
    async with emulator(tmp_path / "state", app=receiver.app(mode="ax"), sms_has_content=True) as emu:
        body = {"origNum": A, "privateNum": X1, "calleeNumDisplay": "0"}
        bound = await emu.send(body=body, path="/rest/provision/caas/privatenumber/v1.0")
        assert bound.outcome == (200, "0"), bound

        async def send(sender: str, content: str) -> tuple[str | None, str | None, int]:
            sent = (await emu.ask("POST", "sms", {"from": sender, "to": X1, "content": content})).body
            return sent["forwarded_to"], sent["content"], sent["send_result"]

        assert await send(B, "hello") == (A, f"hello[From{B}]", 0)
        assert await send(A, f"hello@{C}") == (C, "hello", 0)
        receiver.reply = {"actions": [{"operation": "vNumberRoute", "message": {"called": C, "calling": A}}]}
        assert await send(A, "to whom") == (C, "to whom", 0)
        receiver.reply = {"actions": {"operation": "DiscardMessage"}}
        assert await send(A, "to whom") == (None, None, 6)
        receiver.reply = {"actions": []}
        assert await send(A, "to whom") == (None, None, 7)
        assert [body["smsEvent"]["notificationMode"] for body in receiver.of("sms-control")] == ["Block"] * 3


async def test_a_suspended_number(emu: Emulated, receiver: Receiver) -> None:
    """It is told where events go; until it is normal again neither calls nor messages pass."""
    await emu.bound()
    status = {"items": [{"number": X1, "status": "9"}, {"number": X2, "status": "11"}]}
    assert (await emu.ask("POST", "number-status", status)).http == 200
    assert (await emu.call(A, X1))[2] == 8055
    assert (await emu.ask("POST", "sms", {"from": A, "to": X1})).body["send_result"] == 3
    await emu.ask("POST", "number-status", {"items": [{"number": X1, "status": "5"}]})
    assert (await emu.call(A, X1))[2] == 0
    await all_in(emu)
    numbers = [one for body in receiver.of("events") if body["eventType"] == "numStatus" for one in body["numInfo"]]
    assert sorted((one["number"], one["status"]) for one in numbers) == [(X1, "5"), (X1, "9"), (X2, "11")]
    assert (await emu.ask("POST", "number-status", {"items": [{"number": C, "status": "9"}]})).http == 422


async def test_the_ledger_is_paged_and_bounded(tmp_path: Path) -> None:
    """Without addresses things are told to nobody, and kept all the same, the newest so many."""
    async with emulator(tmp_path / "state", keep_told=10) as emu:
        for _ in range(5):
            await place(emu)
        rows = await all_in(emu, "unaddressed")
        assert [row["seq"] for row in rows] == list(range(6, 16))
        page = (await emu.ask("GET", "told?after=0&limit=4")).body
        assert ([row["seq"] for row in page["items"]], page["next"]) == ([6, 7, 8, 9], 9)
        page = (await emu.ask("GET", "told?after=13&limit=4")).body
        assert ([row["seq"] for row in page["items"]], page["next"]) == ([14, 15], None)
        assert {row["kind"] for row in await told(emu, kind="cdr")} == {"cdr"}


async def test_the_older_signature(tmp_path: Path, receiver: Receiver) -> None:
    """An app may be pushed to as older platforms do."""
    async with emulator(tmp_path / "state", app=receiver.app(push_wsse=True)) as emu:
        await place(emu)
        await all_in(emu)
        assert receiver.unsigned == 0

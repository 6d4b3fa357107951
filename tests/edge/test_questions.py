"""What the platform hears when it asks."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from aiohttp import web

from broker.domain.notice import read
from broker.domain.options import CallOptions
from broker.flows.notices import Notices, Whose
from broker.store.inbox import Found
from tests.contract.service import eventually
from tests.edge.rig import Edge, event, message, session_id
from tests.store.pairs import VAULT, A, B, C, D


async def _asked(edge: Edge, caller: str = A, **fields: Any) -> dict[str, Any]:
    question = event("callin", session_id(), caller=caller, called=edge.x(), notifyMode="Block", **fields)
    status, body = await edge.push("events", question)
    assert status == 200
    answer: dict[str, Any] = orjson.loads(body)
    return answer


@pytest.fixture
async def exchange(edge: Edge) -> Edge:
    """An app in mode X."""
    await edge.configure("UPDATE app SET mode = 'x'")
    return edge


async def test_connected_with_every_field(exchange: Edge) -> None:
    """Whom, what is shown, how long, recorded how, what is played; our mark makes its events the line's."""
    options = CallOptions(
        recording=True, hint_tone="hint.wav", max_call_minutes=30, last_minute_tone="last.wav", caller_tone="wait.wav"
    )
    claim = exchange.pairs.claim(A, B)._replace(options=options.to_text())
    await exchange.shop.active(claim)
    assert await _asked(exchange) == {
        "operation": "connect",
        "connectInfo": [
            {
                "displayCalleeNum": exchange.x(), "calleeNum": B, "maxDuration": 30, "recordFlag": "true",
                "userData": f"{claim.line_id.hex}.0", "waitVoice": "wait.wav", "recordHintTone": "hint.wav",
                "lastMinVoice": "last.wav",
            }
        ],
    }  # fmt: skip
    (call,) = await eventually(lambda: exchange.rows("call"), "the question has become a call")
    assert (call["line_id"], call["found_by"]) == (claim.line_id, "route")
    assert exchange.counts.questions == {("event", "connect"): 1}


async def test_closed_with_the_apps_prompt(exchange: Edge) -> None:
    """A stranger, and a number of another app, hear the app's prompt if its file is approved."""
    await exchange.pairs.active()
    assert await _asked(exchange, C) == {"operation": "close", "closeInfo": [{}]}
    await exchange.configure("UPDATE app SET close_tone = 'sorry.wav'")
    assert await _asked(exchange, C) == {"operation": "close", "closeInfo": [{}]}
    await exchange.configure(
        "INSERT INTO tone (app_id, name, content, duration_ms, state) VALUES ($1, 'sorry.wav', 'x', 1, 'approved')",
        exchange.shop.app_id,
    )
    for caller in (C, "anonymous"):
        assert await _asked(exchange, caller) == {"operation": "close", "closeInfo": [{"closeHintTone": "sorry.wav"}]}
    question = event("callin", session_id(), caller=A, called="+8617000009999", notifyMode="Block")
    assert b"close" in (await exchange.push("events", question))[1]
    assert exchange.counts.questions["event", "foreign_number"] == 1


async def test_nobody_is_reached_when_there_is_no_answer_in_time(exchange: Edge) -> None:
    """While the books cannot be read, the call is closed within the time set."""
    await exchange.pairs.active()
    runner = web.AppRunner(exchange.receiver(question_s=0.2).application(), access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    exchange.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with exchange.holding("slot"):
        assert await _asked(exchange) == {"operation": "close", "closeInfo": [{}]}
    assert exchange.counts.questions == {("event", "no_answer"): 1}
    await runner.cleanup()


async def test_where_a_short_message_goes(exchange: Edge) -> None:
    """To the counterpart of a binding; a stranger's is discarded, as is one where the binding wants none."""
    claim = await exchange.pairs.active()

    async def asked(sender: str) -> Any:
        status, body = await exchange.push("sms-control", message(exchange.x(), sender, mode="Block"))
        assert status == 200
        return orjson.loads(body)

    discarded = {"actions": [{"operation": "DiscardMessage"}]}
    forwarded = {"actions": [{"operation": "vNumberRoute", "message": {"called": A, "calling": B}}]}
    assert await asked(B) == forwarded
    assert await asked(C) == discarded
    assert await asked("95588") == discarded
    off = CallOptions(sms=False).to_text()
    await exchange.shop.run("UPDATE line SET options = $1 WHERE id = $2", off, claim.line_id)
    assert await asked(B) == discarded
    assert orjson.loads((await exchange.push("sms-control", b"unreadable"))[1]) == discarded
    await exchange.settled()
    assert await exchange.rows("sms") == []


async def test_an_answer_amid_attribution(exchange: Edge) -> None:
    """A question that is answered while others of its batch are looked up mixes nobody's lines up."""
    asked, other = exchange.pairs.claim(A, B), exchange.pairs.claim(C, D)
    await exchange.shop.active(asked)
    await exchange.shop.active(other)
    notices, now, whose = Notices(exchange.shop.db, VAULT, exchange.registry), datetime.now(UTC), Whose()
    question = event("callin", session_id(), caller=A, called=exchange.x(), notifyMode="Block")
    answer = event("answer", session_id(), caller=C, called=D, userData=f"{other.line_id.hex}.1")
    await notices.keep(exchange.shop.app_id, read(orjson.dumps(question), now), now, whose)
    await notices.keep(exchange.shop.app_id, read(orjson.dumps(answer), now), now)
    async with exchange.holding("binding"):
        turn = asyncio.create_task(notices.turn())
        await exchange.kept_from("binding")
        whose.answered, whose.found = True, Found(exchange.shop.pool, asked.line_id, "route")
    await turn
    calls = await exchange.rows("call")
    assert {(row["line_id"], row["found_by"]) for row in calls} == {
        (asked.line_id, "history"), (other.line_id, "token"),
    }  # fmt: skip

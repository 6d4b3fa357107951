"""A worker that dies between its commit and its answer."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from tests.contract.service import Answer, Client, client_of, memory, phone, rows, up
from tests.pg import state_folder

_QUICK = {
    "BROKER_TEST_CRASH_AT": "after_commit:kill:1",
    "BROKER_RESCUE_INTERVAL_S": "0.2",
    "BROKER_LEASE_S": "6",
}


async def test_a_repeat_after_a_crash_finds_the_binding() -> None:
    """The worker is killed after the claim was committed: the repeat with the same key gets that very binding."""
    with state_folder(memory()) as folder, up(folder, "--workers", "1", settings=_QUICK) as service:
        async with client_of(service) as client:
            fields = {"a": phone(), "b": phone(), "order_id": "once"}
            headers = {"Idempotency-Key": "crash", "Request-Timeout": "1"}
            with pytest.raises(aiohttp.ClientError):
                await client.bind(headers=headers, **fields)
            ((binding_id, state),) = await rows(service, "SELECT id, state FROM binding")
            assert state == "pending"
            answer = await _until_answered(client, headers, fields)
            assert answer.status in {201, 202}
            assert "Idempotency-Replayed" not in answer.headers
            found = await client.until(answer.body["id"], "active")
            assert (found["order_id"], found["state"]) == ("once", "active")
            again = await client.bind(headers=headers, **fields)
            assert (again.raw, again.headers["Idempotency-Replayed"]) == (answer.raw, "true")
            assert [row["id"] for row in await rows(service, "SELECT id FROM binding")] == [binding_id]
            (held,) = await client.platform_bindings()
            assert (held["a"], held["x"]) == (fields["a"], found["x"])
            assert [row["op"] for row in await client.ledger() if row["op"] == "bind"] == ["bind"]


async def _until_answered(client: Client, headers: dict[str, str], fields: dict[str, str]) -> Answer:
    """Repeat as a client would: through refused connections, and as long as the first try counts as under way."""
    deadline = asyncio.get_running_loop().time() + 30
    while True:
        assert asyncio.get_running_loop().time() < deadline
        try:
            answer = await client.bind(headers=headers, **fields)
        except aiohttp.ClientError:
            await asyncio.sleep(0.05)
            continue
        if answer.status != 409:
            return answer
        answer.problem(409, "idempotency_in_progress")
        await asyncio.sleep(0.1)

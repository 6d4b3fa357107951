"""SIGTERM in the middle of an order (P10)."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest

from tests.contract.service import client_of, phone, up
from tests.pg import state_folder


@pytest.mark.slow
async def test_a_waiting_order_is_answered_and_finished_by_the_next_start() -> None:
    """SIGTERM answers 202 to who waits for a slow platform, exits within 15 s, and the next start confirms it."""
    with state_folder() as folder:
        with up(folder, "--workers", "1") as service:
            async with client_of(service) as client:
                await client.fault("bind", "delay", ms=20_000, when="after")
                waiting = asyncio.create_task(client.bind(a=phone(), b=phone(), headers={"Request-Timeout": "25"}))
                while not await client.ledger():  # noqa: ASYNC110 - until the platform has the request
                    await asyncio.sleep(0.02)
                began = time.monotonic()
                service.process.send_signal(signal.SIGTERM)
                answer = await waiting
                assert answer.status == 202, answer.raw
                assert answer.body["state"] == "pending"
                code = await asyncio.to_thread(service.process.wait, 20)
                assert code == 0
                assert time.monotonic() - began < 15
        with up(folder, "--workers", "1", settings={"BROKER_RESCUE_INTERVAL_S": "0.2"}) as service:
            async with client_of(service) as client:
                shown = await client.until(answer.body["id"], "active")
                held = await client.platform_bindings()
                assert [item["subscription_id"] for item in held] == [shown["platform_binding_id"]]

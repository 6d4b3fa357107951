"""A worker that froze over a call, and wakes when the call has died and been decided: its outcome has no effect."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import Any

import aiohttp
import orjson
import pytest

from tests.cli.test_commands import run
from tests.contract.service import Client, client_of, eventually, memory, phone, rows, up
from tests.pg import state_folder

_QUICK = {
    "BROKER_RESCUE_INTERVAL_S": "0.2",
    "BROKER_LEASE_S": "6",
    "BROKER_PLATFORM_ABSENCE_S": "1",
    "BROKER_DEAD_AFTER_TRIES": "3",
    "BROKER_DEAD_AFTER_S": "0",
    "BROKER_AUDIT_INTERVAL_S": "0",
}
_APP = "demo-axb"

pytestmark = pytest.mark.timeout(180)


async def _brief(client: Client, **fields: Any) -> None:
    """Bind, without waiting for a worker that never answers."""
    with contextlib.suppress(aiohttp.ClientError, TimeoutError):
        await asyncio.wait_for(client.bind(**fields), 3)


@pytest.mark.parametrize("verb", ["discard", "retry"])
async def test_who_wakes_after_the_decision_settles_nothing(verb: str) -> None:
    """The platform has done the bind, and its worker froze before it said so; the other one's queries are not answered.

    Discarded: the binding has failed, and stays so. Tried again: it is adopted once, by the one that is awake.
    """
    with state_folder(memory()) as folder:
        flag = folder / "frozen"
        crash = {"BROKER_TEST_CRASH_AT": "before_settle:stop:1", "TEST_CRASH_ONCE": str(flag)}
        with up(folder, "--workers", "2", settings=_QUICK | crash) as service:
            async with client_of(service) as client:
                a = phone()
                await client.fault("query", "reset")
                await _brief(client, a=a, b=phone())
                frozen = int(flag.read_text())
                try:

                    async def dead() -> str | None:
                        await asyncio.gather(*(_brief(client) for _ in range(3)))
                        found = await rows(service, "SELECT line_id, no FROM platform_call WHERE state = 'dead'")
                        return f"{found[0]['line_id'].hex}.{found[0]['no']}" if found else None

                    call = await eventually(dead, "the call is dead")
                    await client.emulator("DELETE", "faults")
                    words = ["--reason", "seen", "--yes"] if verb == "discard" else []
                    told = run("calls", verb, call, *words, "--app", _APP, "--json", "--state-dir", str(folder))
                    assert orjson.loads(told.stdout)["items"][0]["id"] == call, told.stderr
                    state = "failed" if verb == "discard" else "active"

                    async def decided() -> bool:
                        line = call.partition(".")[0]
                        found = await rows(service, "SELECT state FROM line WHERE id = $1::text::uuid", line)
                        return [row["state"] for row in found] == [state]

                    await eventually(decided, "the decision")
                    before = await rows(service, _BOOKS, call.partition(".")[0])
                finally:
                    os.kill(frozen, signal.SIGCONT)

                async def awake() -> bool:
                    answer = await client.bind()
                    return answer.status == 201 and _stopped(frozen) is False

                await eventually(awake, "it works again, or another one in its stead")
                for _ in range(40):  # what it had to say has been said by then
                    assert (await client.bind()).status == 201
                assert await rows(service, _BOOKS, call.partition(".")[0]) == before
                assert len(await client.platform_of(a)) == 1
                ours = [row for row in await client.ledger() if row["op"] == "bind" and row["a"] == a]
                assert len(ours) == 1


_BOOKS = (
    "SELECT l.state, l.subscription_id, b.state AS binding, b.reason, c.state AS call, c.outcome, c.token"
    " FROM line AS l JOIN binding AS b ON b.line_id = l.id JOIN platform_call AS c ON c.line_id = l.id"
    " WHERE l.id = $1::text::uuid"
)


def _stopped(pid: int) -> bool:
    """Whether that process is stopped; one that is gone is not."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:  # noqa: PTH123 - a file of the kernel
            return file.read().rpartition(")")[2].split()[0] == "T"
    except OSError:
        return False

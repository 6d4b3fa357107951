"""Ends by events while workers die: noticed by one that is killed then, carried out by another, once and in time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.contract.service import Client, Json, Service, client_of, eventually, memory, phone, rows, up
from tests.pg import state_folder

_QUICK = {"BROKER_RESCUE_INTERVAL_S": "0.2", "BROKER_LEASE_S": "6", "BROKER_TEST_CRASH_AT": "in_sweep:kill:1"}
_ENDED = "SELECT id FROM call WHERE ended_at IS NOT NULL"
_TOLD = """
SELECT e.type, e.at >= b.expires_at AS due FROM event AS e JOIN binding AS b ON b.id = e.binding_id
WHERE e.type IN ('binding.expired', 'binding.released') AND b.line_id = $1::uuid
"""
_END = """
SELECT extract(epoch FROM b.expires_at - c.ended_at)::integer AS after
FROM binding AS b JOIN call AS c ON b.id = ANY (c.bindings) WHERE b.line_id = $1::uuid
"""


async def test_what_a_killed_worker_noticed_ends_once_and_in_time() -> None:
    """A line so long after its last call, one in grace, one renewed by a call: each ends at its time, by one unbind.

    The sweep that ends them has committed when its process is killed, before any unbind was sent; twice.
    """
    with state_folder(memory()) as folder:
        flag = folder / "crashed"
        settings = _QUICK | {"TEST_CRASH_ONCE": str(flag)}
        with up(folder, "--test-clock", "--workers", "2", settings=settings) as service:
            async with client_of(service) as client:
                await _play(service, client, flag)


async def _play(service: Service, client: Client, flag: Path) -> None:
    (ax,) = [app for app in service.ready["apps"] if app["mode"] == "ax"]
    await rows(service, "UPDATE app SET end_after_call_s = 3000 WHERE mode = 'axb'")
    await rows(service, "UPDATE app SET renew_by_call_s = 8000, longest_life_s = 86400 WHERE mode = 'ax'")
    called, graced = [(await client.bind(ttl_s=20_000)).body for _ in range(2)]
    bound = await client.ask("POST", "/v1/bindings", {"a": phone(), "ttl_s": 6000}, key=ax["api_key"])
    renewed = bound.body
    assert {one["state"] for one in (called, graced, renewed)} == {"active"}, bound.raw

    (held,) = [one for one in await client.platform_bindings() if one["subscription_id"] == _subscription(called)]
    for caller, x in ((held["a"], called["x"]), (phone(), renewed["x"])):
        placed = {"from": caller, "to": x, "ring_s": 0, "talk_s": 60}
        assert (await client.emulator("POST", "calls", placed))["state_code"] == 0

    async def up_() -> bool:
        return len(await rows(service, "SELECT id FROM call WHERE answered_at IS NOT NULL")) == 2

    async def over() -> bool:
        return len(await rows(service, _ENDED)) == 2

    await eventually(up_, "both calls are answered")
    await _wait(client, 100)
    await eventually(over, "both calls are over")
    assert [(await rows(service, _END, one["line"]))[0]["after"] for one in (called, renewed)] == [3000, 8000]
    released = await client.ask("DELETE", f"/v1/bindings/{graced['id']}?grace_s=3000")
    assert (released.status, released.body["state"]) == (200, "released")

    await _wait(client, 2400)  # some minutes before the first ends are due
    held_now = {one["subscription_id"] for one in await client.platform_bindings()}
    assert held_now == {_subscription(one) for one in (called, graced, renewed)}
    assert not _killed(flag)

    await _wait(client, 4500)  # after these, and after the end that the third one would have had
    await _gone(client, called, graced)
    assert _killed(flag)
    assert [one["subscription_id"] for one in await client.platform_bindings()] == [_subscription(renewed)]

    _again(flag)
    await _wait(client, 2000)
    await _gone(client, renewed)
    assert _killed(flag)

    async def settled() -> bool:
        return not await rows(service, "SELECT FROM line WHERE state <> 'released'")

    await eventually(settled, "all lines have ended in the books")
    for one, told in ((called, "binding.expired"), (renewed, "binding.expired"), (graced, "binding.released")):
        assert [tuple(row) for row in await rows(service, _TOLD, one["line"])] == [(told, told == "binding.expired")]
    unbinds = [row["subscription_id"] for row in await client.ledger() if row["op"] == "unbind"]
    assert sorted(unbinds) == sorted(_subscription(one) for one in (called, graced, renewed))


def _killed(flag: Path) -> bool:
    return flag.exists()


def _again(flag: Path) -> None:
    """Have the next one to get there killed, too."""
    flag.unlink()


def _subscription(binding: Json) -> str:
    return str(binding["platform_binding_id"])


async def _wait(client: Client, seconds: float) -> None:
    """Let time pass, here and at the platform."""
    clock = f"{client.service.ready['admin']}/test/clock"
    assert (await client.ask("POST", clock, {"advance_s": seconds}, key=None)).status == 200


async def _gone(client: Client, *bindings: Json) -> None:
    """Wait until the platform does not hold them any more."""
    over = {_subscription(one) for one in bindings}

    async def gone() -> Any:
        return not over & {one["subscription_id"] for one in await client.platform_bindings()}

    await eventually(gone, "the platform has ended them")

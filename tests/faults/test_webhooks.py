"""Webhooks of a whole service: a receiver that is killed, slow and wrong in turns, while instances are killed, too."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from broker.cli.demo import identity
from broker.flows.operate import webhooks
from broker.flows.operate.desk import Desk
from broker.flows.operate.webhooks import DeliveryFilter, NewWebhook, Replay, Rotation
from broker.store.crypto import Vault, parse_data_keys, parse_index_key
from broker.store.database import Database
from tests.faults.receiver import Receiver, receiver
from tests.faults.service import Service, descendants, eventually, send, service
from tests.pg import state_folder

_LIMIT_S = 60.0
_APP = "demo-axb"
_SETTINGS = {
    "BROKER_WEBHOOK_ALLOW": "127.0.0.0/8",
    # Quick, and long enough that nothing is given up.
    "BROKER_WEBHOOK_RETRY_S": ",".join(["0.2"] * 40 + ["600"]),
    "BROKER_WEBHOOK_PAUSE_S": "0.5",
    "BROKER_WEBHOOK_LEASE_S": "2",
    "BROKER_WEBHOOK_TIMEOUT_S": "1",
}
_TYPES = ["binding.active", "binding.released"]
_phones = itertools.count(1)


@asynccontextmanager
async def _desk(running: Service) -> AsyncIterator[Desk]:
    who = identity(running.folder)
    db = Database(running.told["database"], connections=2, timeout_s=20)
    await db.open()
    yield Desk(db, Vault(parse_data_keys(who.data_keys), parse_index_key(who.index_key)))
    await db.close()


async def _orders(running: Service, count: int) -> None:
    """Bind and release so many orders."""

    async def order() -> None:
        n = next(_phones)
        body = {"a": f"+86139{n:08d}", "b": f"+86138{n:08d}", "area_code": "0755"}
        async with running.http.post(running.told["api"] + "/v1/bindings", json=body, headers=running.headers) as made:
            binding = (await made.json())["id"]
        path = f"{running.told['api']}/v1/bindings/{binding}"
        async with running.http.delete(path, headers=running.headers) as ended:
            assert ended.status in {200, 202}

    async def insist() -> None:
        for _ in range(20):
            try:
                await order()
            except Exception:  # its worker was killed  # noqa: BLE001
                await asyncio.sleep(0.1)
            else:
                return

    await asyncio.gather(*(insist() for _ in range(count)))


async def _told(running: Service, types: str = "binding.active,binding.released") -> list[dict[str, Any]]:
    """All events of these types so far."""
    found: list[dict[str, Any]] = []
    asked = f"{running.told['api']}/v1/events?limit=200&types={types}"
    url = asked
    while True:
        async with running.http.get(url, headers=running.headers) as answer:
            page = await answer.json()
        found += page["items"]
        if not page["more"]:
            return found
        url = f"{asked}&after={page['next_after']}"


async def _feed(running: Service, types: str = "binding.active,binding.released") -> list[str]:
    """Their ids."""
    return [event["id"] for event in await _told(running, types)]


async def _has_all(running: Service, *receivers: Receiver) -> None:
    """Wait until nothing more is to come, and these have it all."""
    placed = "SELECT (SELECT count(*) FROM event) = (SELECT coalesce(sum(upto), 0) FROM event_feed)"

    async def quiet() -> bool:
        return await running.open_calls() == 0 and bool(await running.ask(placed))

    await eventually(quiet, within_s=_LIMIT_S)

    async def missing() -> list[list[str]]:
        ids = await _feed(running)
        return [one.missing(ids) for one in receivers]

    async def there() -> bool:
        return not any(await missing())

    try:
        await eventually(there, within_s=_LIMIT_S)
    except AssertionError:
        raise AssertionError(f"not delivered: {await missing()}") from None


async def _add(desk: Desk, to: Receiver, name: str, **more: Any) -> None:
    made = await webhooks.add(desk, _APP, NewWebhook(name=name, url=to.url, **more))
    to.secrets.append(made["secret"])


async def _state(desk: Desk, name: str) -> dict[str, Any]:
    return await webhooks.show(desk, _APP, name)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_every_event_once_and_in_order_whatever_dies() -> None:
    """Killed, slow, wrong, redirecting and busy in turns, workers killed meanwhile: at the end each event once by id.

    A binding's are in order, all are verified, and the receiver beside it never waited.
    """
    with state_folder() as folder:
        async with (
            service(Path(folder), database=None, **_SETTINGS) as running,
            _desk(running) as desk,
            receiver() as hard,
            receiver() as easy,
        ):
            await _add(desk, hard, "hard", types=_TYPES)
            await _add(desk, easy, "easy", types=_TYPES)
            for mood in ("good", "dead", "slow", "wrong", "redirect", "busy", "good"):
                hard.mood = mood
                if mood == "dead":
                    await hard.die()
                else:
                    await hard.start()
                await _orders(running, 10)
                # The first worker is killed, whether it delivers or not: over the turns it often does.
                victim = min(pid for pid in descendants(running.process.pid) if _is_worker(pid))
                send(victim, signal.SIGKILL)
                await _orders(running, 10)
                await _has_all(running, easy)
            await _has_all(running, easy, hard)
            for one in (easy, hard):
                assert one.unverified == []
                assert one.disorder() == []
                assert sorted(event["id"] for event in one.once()) == await _feed(running)
            assert max(hard.asked.values()) > 1  # else nothing was tried again


def _is_worker(pid: int) -> bool:
    try:
        return b"broker.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


async def test_one_binding_that_is_refused_holds_up_no_other() -> None:
    """What is refused waits with its binding's later events, others pass; a dead letter is listed and revived."""
    settings = _SETTINGS | {"BROKER_WEBHOOK_RETRY_S": "0.1,0.1"}
    with state_folder() as folder:
        async with (
            service(Path(folder), database=None, **settings) as running,
            _desk(running) as desk,
            receiver() as shop,
        ):
            await _add(desk, shop, "shop", types=_TYPES)
            body = {"a": "+8613711110001", "b": "+8613711110002", "area_code": "0755"}
            url = running.told["api"] + "/v1/bindings"
            async with running.http.post(url, json=body, headers=running.headers) as made:
                bad = (await made.json())["id"]
            await _has_all(running, shop)
            shop.hates.add(bad)
            async with running.http.delete(f"{url}/{bad}", headers=running.headers) as ended:
                assert ended.status in {200, 202}
            await _orders(running, 10)

            async def only_the_bad_one() -> list[Any]:
                found = await webhooks.deliveries(desk, _APP, "shop", DeliveryFilter(state="dead"))
                # Nothing of the others is missing.
                return found if [one["id"] for one in found] == shop.missing(await _feed(running)) else []

            (letter,) = await eventually(only_the_bad_one, within_s=_LIMIT_S)
            assert (letter["binding_id"], letter["type"], letter["attempts"]) == (bad, "binding.released", 3)
            assert letter["error"] == "HTTP 500"
            shop.hates.clear()
            assert (await webhooks.revive(desk, _APP, "shop"))["replayed"] == 1

            async def revived() -> bool:
                await _orders(running, 1)  # also while others keep coming
                return not shop.missing([letter["id"]])

            await eventually(revived, within_s=_LIMIT_S)
            await _has_all(running, shop)
            assert shop.unverified == []
            assert (await _state(desk, "shop"))["dead"] == 0


async def test_gone_rotated_replayed_and_tested() -> None:
    """410 disables and loses nothing; two secrets sign for a while; events are replayed by type, time and id."""
    with state_folder() as folder:
        async with (
            service(Path(folder), database=None, **_SETTINGS) as running,
            _desk(running) as desk,
            receiver() as shop,
        ):
            await _add(desk, shop, "shop")
            shop.mood = "gone"
            await _orders(running, 3)

            async def disabled() -> bool:
                return bool((await _state(desk, "shop"))["state"] == "disabled")

            await eventually(disabled, within_s=_LIMIT_S)
            assert (await _state(desk, "shop"))["state_reason"] == "gone"
            shop.mood = "good"
            await webhooks.enable(desk, _APP, "shop")
            await _has_all(running, shop)

            rotated = await webhooks.rotate(desk, _APP, "shop", Rotation(overlap_s=3600))
            shop.secrets.append(rotated["secret"])
            assert (await webhooks.test(desk, _APP, "shop", wait_s=30))["accepted"]

            async def both_verify() -> bool:
                shop.unverified.clear()
                await webhooks.test(desk, _APP, "shop", wait_s=30)
                return not shop.unverified

            await eventually(both_verify, within_s=_LIMIT_S)
            ids = await _feed(running)
            released = await _feed(running, "binding.released")
            shop.asked.clear()
            told = await webhooks.replay(desk, _APP, "shop", Replay(types=["binding.released"]))
            assert told == {"name": "shop", "replayed": len(released), "after": None}
            await webhooks.replay(desk, _APP, "shop", Replay(ids=[ids[0]]))

            async def again() -> bool:
                return sum(shop.asked.values()) == len(released) + 1

            await eventually(again, within_s=_LIMIT_S)

            async def noted() -> bool:
                return await desk.db.fetchrow("SELECT pos FROM webhook_parked LIMIT 1") is None

            await eventually(noted, within_s=_LIMIT_S)
            times = sorted(datetime.fromisoformat(event["time"]) for event in await _told(running))
            # In the widest pause, because what is shown is rounded.
            pause, at = max((later - one, one) for one, later in pairwise(times))
            cut = (at + pause / 2).isoformat()
            shop.asked.clear()
            types = ["binding.active", "binding.released"]
            before = await webhooks.replay(desk, _APP, "shop", Replay.model_validate({"until": cut, "types": types}))
            after = await webhooks.replay(desk, _APP, "shop", Replay.model_validate({"since": cut, "types": types}))
            expected = sum(one <= at for one in times)
            assert (before["replayed"], after["replayed"]) == (expected, len(times) - expected)

            async def those() -> bool:
                return sum(shop.asked.values()) == len(times)

            await eventually(those, within_s=_LIMIT_S)
            assert shop.unverified == []

"""An app in shadow: it answers as it would, marked, and nothing but questions reaches the platform, whatever dies."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from broker.platform.huawei.access import of_app
from broker.platform.protocol import BindLine, Platform, PlatformLine, Verdict
from broker.store import registry
from broker.store.database import Database
from tests.cli.test_operate_commands import ask
from tests.contract.service import (
    Answer,
    Client,
    Json,
    Service,
    add_key,
    client_of,
    eventually,
    memory,
    phone,
    rows,
    settled_config,
    up,
)
from tests.pg import state_folder

_SETTINGS = {
    "BROKER_AUDIT_INTERVAL_S": "0",
    "BROKER_AUDIT_SHARE": "1",
    "BROKER_AUDIT_RATE": "300",
    "BROKER_LEASE_S": "6",
    "BROKER_RESCUE_INTERVAL_S": "0.2",
}
_MERGE = {"Content-Type": "application/merge-patch+json"}

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """A broker of its own: apps change their kind here."""
    with state_folder(memory()) as folder, up(folder, "--workers", "2", settings=_SETTINGS) as running:
        yield running


@pytest.fixture
async def client(service: Service) -> AsyncIterator[Client]:
    """Requests to it."""
    async with client_of(service) as made:
        yield made


def demo(service: Service, mode: str) -> Json:
    """The app of a mode."""
    return next(app for app in service.ready["apps"] if app["mode"] == mode)


@asynccontextmanager
async def other_system(service: Service, mode: str) -> AsyncIterator[Platform]:
    """The platform as the system in charge uses it."""
    db = Database(service.database, connections=1, timeout_s=10)
    await db.open()
    try:
        known = await registry.load(db, service.vault())
    finally:
        await db.close()
    platform = of_app(next(app for app in known.apps.values() if app.mode == mode))
    try:
        yield platform
    finally:
        await platform.close()


async def theirs(platform: Platform, request: BindLine) -> PlatformLine:
    """Bind as the other system."""
    answer = await platform.bind(request, permit=lambda: True, timeout_s=10)
    assert answer.verdict is Verdict.DONE, answer
    return answer.bindings[0]


async def born_in_shadow(service: Service, client: Client, mode: str) -> Json:
    """Take a mode's app into shadow before it has bound anything; every worker knows when this returns."""
    app = demo(service, mode)
    ((app_id,),) = await rows(
        service, "UPDATE app SET shadow = true, shadow_changed_at = clock_timestamp() WHERE name = $1 RETURNING id",
        app["name"],
    )  # fmt: skip
    await settled_config(service, client, await add_key(service, app_id, f"late-{mode}", ["read"]))
    return app


async def effects(service: Service, client: Client, app: Json, after: int = 0) -> list[Json]:
    """What changed at the platform on the app's behalf, by its own ledger."""
    ((key,),) = await rows(service, "SELECT app_key FROM app WHERE name = $1", app["name"])
    return [row for row in await client.ledger(after) if row["app_key"] == key and row["op"] != "query"]


async def order(client: Client, app: Json, **fields: Any) -> Answer:
    """Bind a pair in the app."""
    asked = {"a": phone(), "b": phone(), "ttl_s": 0} | fields
    return await client.ask("POST", "/v1/bindings", asked, key=app["api_key"])


async def taken(client: Client, app: Json, *, shadow: bool) -> bool:
    """Tell whether an order is accepted; as what it must not be it never is."""
    answer = await order(client, app)
    assert answer.status != 201 or answer.body["shadow"] is shadow, answer.raw
    return answer.status == 201


async def last_row(client: Client) -> int:
    """The ledger's newest row."""
    return max((row["seq"] for row in await client.ledger()), default=0)


@pytest.mark.parametrize("mode", ["ax", "axe"])
async def test_every_effect_of_a_binding_stays_here(service: Service, client: Client, mode: str) -> None:
    """Bind, lifetime, callee, rebind, release: answered, marked as predictions; the platform hears nothing of them."""
    app = await born_in_shadow(service, client, mode)
    key = app["api_key"]
    made = await client.ask("POST", "/v1/bindings", {"a": phone(), "ttl_s": 3600}, key=key)
    assert made.status == 201, made.raw
    assert (made.body["state"], made.body["shadow"], made.body["platform_binding_id"]) == ("active", True, None)
    path = f"/v1/bindings/{made.body['id']}"
    changed = await client.ask("PATCH", path, {"ttl_s": 7200, "a": phone()}, key=key, headers=_MERGE)
    assert (changed.status, changed.body["shadow"]) == (200, True)
    if mode == "ax":
        callee = await client.ask("PUT", f"{path}/callee", {"callee": phone(), "ttl_s": 60}, key=key)
        assert callee.status < 300, callee.raw
    reached = await client.ask("POST", "/v1/reach:query", {"x": changed.body["x"], "caller": phone()}, key=key)
    assert (reached.body["reached"], reached.body["why"]) == (None, "shadow")
    over = await client.ask("POST", "/v1/calls/none-of-ours:stop", {}, key=key)
    over.problem(404, "call_over")
    gone = await client.ask("DELETE", path, key=key)
    assert (gone.status, gone.body["state"], gone.body["shadow"]) == (200, "released", True)
    assert ask(service, "audit", "run", "--app", app["name"])["findings"] == []
    assert await effects(service, client, app) == []
    kept = "SELECT FROM held AS h JOIN app AS a ON a.id = h.app_id WHERE a.name = $1"
    assert await rows(service, kept, app["name"]) == []
    told = ask(service, "shadow", "report", "--app", app["name"])
    assert told["calls"]["bind"] >= 1


async def test_nothing_leaves_under_load_and_kills(service: Service, client: Client) -> None:
    """Workers die in the middle of binds, changes and releases; others finish them, and not one effect is there."""
    app = await born_in_shadow(service, client, "axb")
    done = 0

    async def orders() -> None:
        nonlocal done
        for _ in range(25):
            with suppress(aiohttp.ClientError):
                made = await order(client, app, ttl_s=3600)
                if made.status not in {201, 202}:
                    continue
                assert made.body["shadow"] is True
                path = f"/v1/bindings/{made.body['id']}"
                await client.ask("PATCH", path, {"ttl_s": 7200}, key=app["api_key"], headers=_MERGE)
                await client.ask("DELETE", path, key=app["api_key"])
                done += 1

    async def kills() -> None:
        for nth, pid in enumerate(service.ready["pids"], start=1):

            async def enough(wanted: int = 20 * nth) -> bool:
                return done >= wanted

            await eventually(enough, "orders go on")
            os.kill(pid, signal.SIGKILL)

    await asyncio.gather(kills(), *(orders() for _ in range(8)))

    async def finished() -> bool:
        return await _no_open_calls(service, app)

    await eventually(finished, "what the dead had accepted is finished")
    assert done >= 60
    assert await effects(service, client, app) == []


async def test_predictions_are_compared_and_cut_over(service: Service, client: Client) -> None:
    """What both bound, one only, and clashes are told; then the platform's bindings are ours, predictions end."""
    app = demo(service, "axb")
    ((shadow,),) = await rows(service, "SELECT shadow FROM app WHERE name = $1", app["name"])
    assert shadow, "the test before took it there"
    key = app["api_key"]
    before = ask(service, "shadow", "report", "--app", app["name"])["predicted"]
    a, b, c, d = (phone() for _ in range(4))
    ours = [(await order(client, app, a=a, b=b)).body, (await order(client, app, a=c, b=d)).body]
    async with other_system(service, "axb") as platform:
        # The same order on the same X; and on our second one's X its A with somebody else.
        same = await theirs(platform, BindLine(x=ours[0]["x"], a=b, b=a))
        clash = await theirs(platform, BindLine(x=ours[1]["x"], a=c, b=phone()))
        gone = await theirs(platform, BindLine(x=ours[1]["x"], a=(late := phone()), b=(last := phone())))
        ask(service, "audit", "run", "--app", app["name"])
        await platform.unbind(gone.subscription_id, permit=lambda: True, timeout_s=10)
    ask(service, "audit", "run", "--app", app["name"])
    told = ask(service, "shadow", "report", "--app", app["name"])
    assert (told["both"], told["same_x"], told["only_there"], told["clashes"], told["there"]) == (1, 1, 1, 1, 2)
    assert (told["predicted"], told["only_predicted"]) == (before + 2, before + 1)
    assert told["followed_at"] is not None
    marker = await last_row(client)
    assert "cut it over" in ask(service, "import", "bindings", "--app", app["name"], "--yes", code=1)
    done = await asyncio.to_thread(ask, service, "app", "cutover", app["name"], "--yes")
    assert (done["import"]["new"], done["ended"]) == (2, told["predicted"])
    for one in ours:
        ended = (await client.ask("GET", f"/v1/bindings/{one['id']}", key=key)).body
        assert (ended["state"], ended["reason"], ended["shadow"]) == ("released", "cut_over", True)
    live = (await client.ask("GET", "/v1/bindings?state=active", key=key)).body["items"]
    assert {(one["platform_binding_id"], one["shadow"]) for one in live} == {
        (same.subscription_id, False), (clash.subscription_id, False),
    }  # fmt: skip
    assert await effects(service, client, app, marker) == []
    # A real one from here on; and who was seen to go rests on that X.
    await eventually(lambda: taken(client, app, shadow=False), "orders are taken again")
    assert [row["op"] for row in await effects(service, client, app, marker)] == ["bind"]
    rest = await rows(
        service, "SELECT count(*) FROM slot WHERE party_key = ANY ($1) AND until > now() AND until < 'infinity'",
        [service.vault().party_key(one) for one in (late, last)],
    )  # fmt: skip
    assert rest[0][0] == 2
    assert ask(service, "audit", "run", "--app", app["name"])["findings"] == []


async def test_a_way_back(service: Service, client: Client) -> None:
    """The app's bindings end here and stay there; from then on it predicts again."""
    app = demo(service, "axb")
    key = app["api_key"]
    made_a = phone()
    made = (await order(client, app, a=made_a)).body
    assert made["shadow"] is False
    marker = await last_row(client)
    begun = ask(service, "app", "show", app["name"])
    assert (begun["shadow"], begun["state"]) == (False, "open")
    told: Any = await asyncio.to_thread(ask, service, "app", "shadow", app["name"], "--yes")
    assert told["ended"] >= 1
    ended = (await client.ask("GET", f"/v1/bindings/{made['id']}", key=key)).body
    assert (ended["state"], ended["reason"], ended["shadow"]) == ("released", "handed_back", False)

    await eventually(lambda: taken(client, app, shadow=True), "orders are taken again")
    assert await effects(service, client, app, marker) == []
    assert [one["x"] for one in await client.platform_of(made_a)] == [made["x"]]


def test_an_app_is_made_in_shadow(service: Service, tmp_path: Path) -> None:
    """From its first moment on; not in a mode without predictions."""
    file = tmp_path / "secret.txt"
    file.write_text("a-secret", encoding="utf-8")
    given = ("--app-key", "later", "--base-url", service.ready["emulator"], "--secret-file", str(file), "--shadow")
    made = ask(service, "app", "create", "later", *given)
    assert (made["shadow"], made["shadow_changed_at"] is not None, made["state"]) == (True, True, "open")
    assert "shadow" in ask(service, "app", "create", "never", "--mode", "axyb", *given, code=1)
    told = ask(service, "shadow", "report", "--app", "later")
    assert (told["predicted"], told["there"], told["followed_at"], told["refused"]) == (0, 0, None, {})


def test_what_cannot_be_in_shadow(service: Service) -> None:
    """Where the platform picks the numbers, or holds nothing, there is nothing to predict; nor twice."""
    assert "modes axb, ax and axe" in ask(service, "app", "shadow", demo(service, "axyb")["name"], "--yes", code=1)
    assert "modes axb, ax and axe" in ask(service, "app", "shadow", demo(service, "x")["name"], "--yes", code=1)
    assert "not in shadow" in ask(service, "shadow", "report", "--app", demo(service, "x")["name"], code=1)


async def _no_open_calls(service: Service, app: Json) -> bool:
    found = await rows(
        service, "SELECT count(*) FROM platform_call AS c JOIN app AS a ON a.id = c.app_id"
        " WHERE a.name = $1 AND c.state = 'open'", app["name"],
    )  # fmt: skip
    return bool(found[0][0] == 0)

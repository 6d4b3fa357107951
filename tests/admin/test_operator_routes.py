from __future__ import annotations

import os
import re
import signal
import subprocess
from typing import Any

import orjson
import pytest

from broker.admin.routes import ROUTES
from tests.contract.service import (
    Answer,
    Client,
    Service,
    eventually,
    rows,
    settled_config,
)


class Operator:
    """Requests to the admin listener."""

    def __init__(self, client: Client, key: str) -> None:
        self.client = client
        self.key = key

    async def ask(self, method: str, path: str, body: object = None, **options: Any) -> Answer:
        """Send one request under /v1/operator."""
        url = f"{self.client.service.ready['admin']}/v1/operator/{path}"
        return await self.client.ask(method, url, body, **{"key": self.key, **options})


@pytest.fixture
def operate(client: Client, operator: str) -> Operator:
    """An operator at work."""
    return Operator(client, operator)


async def test_every_route_wants_an_operators_key(operate: Operator) -> None:
    """Without a key, with an unknown one, or with up's own: 401, 401, 403, the same problems as on the API."""
    for route in ROUTES:
        path = re.sub(r"\{[^{}]*\}", "demo-axb", route.path.removeprefix("/v1/operator/"))
        (await operate.ask(route.method, path, key=None)).problem(401, "unauthorized")
        missing = await operate.ask(route.method, path, key="bbk_unknown")
        missing.problem(401, "unauthorized")
        assert missing.headers["WWW-Authenticate"] == "Bearer"
        (await operate.ask(route.method, path, key=operate.client.service.key)).problem(403, "forbidden")
    (await operate.client.ask("GET", "/v1/operator/apps", key=operate.key)).problem(404, "not_found")


@pytest.mark.parametrize(
    ("mode", "theirs", "ok"), [("ax", "ax", True), ("axe", "axe", True), ("ax", "axe", False), ("axb", "ax", False)]
)
async def test_an_app_is_checked_in_its_mode(
    operate: Operator, client: Client, mode: str, theirs: str, *, ok: bool
) -> None:
    """The question is one of the app's own mode; the platform refuses one of another."""
    key = f"{mode}-as-{theirs}"
    await client.emulator("PUT", f"apps/{key}", {"secret": "theirs", "mode": theirs, "rate": 0, "burst": None})
    await make_app(operate, mode, key, client.service.ready["emulator"])
    told = (await operate.ask("POST", f"apps/{key}:check")).body
    assert (told["ok"], told["verdict"]) == (ok, "not_found" if ok else "configuration")


async def test_an_app_of_mode_x_has_nothing_to_check(operate: Operator) -> None:
    """The platform keeps no bindings for it, and is not asked."""
    await make_app(operate, "x", "is-x", "http://127.0.0.1:1")
    (await operate.ask("POST", "apps/is-x:check")).problem(409, "conflict")


async def make_app(operate: Operator, mode: str, name: str, base_url: str) -> None:
    """Create an app of any mode, its name for a key."""
    new = {"name": name, "app_key": name, "secret": "theirs", "base_url": base_url}
    assert (await operate.ask("POST", "apps", new)).status == 201
    await rows(operate.client.service, "UPDATE app SET mode = $1 WHERE name = $2 RETURNING id", mode, name)


async def test_an_app_over_http_from_nothing_to_its_first_binding(operate: Operator, client: Client) -> None:
    """App, caller, key, pool and numbers made over HTTP: the key binds at once, and stops when it is revoked."""
    service = client.service
    await client.emulator("PUT", "apps/http-key", {"secret": "their-secret", "mode": "axb", "rate": 0, "burst": None})
    await client.emulator("PUT", "apps/http-key/numbers", [{"number": "+8617880000001", "area_code": "020"}])
    new = {"name": "web", "app_key": "http-key", "secret": "their-secret", "base_url": service.ready["emulator"]}
    made = await operate.ask("POST", "apps", new)
    assert (made.status, made.headers["Location"]) == (201, "/v1/operator/apps/web")
    assert b"their-secret" not in made.raw
    (await operate.ask("POST", "apps", new)).problem(409, "conflict")
    assert (await operate.ask("POST", "apps/web:check")).body["ok"] is True
    assert (await operate.ask("POST", "apps/web/callers", {"name": "shop"})).status == 201
    assert (await operate.ask("PATCH", "apps/web/callers/shop", {"weight": 9})).body["weight"] == 9
    assert (await operate.ask("POST", "apps/web/pools", {"name": "south", "area_code": "020"})).status == 201
    lines = {"items": [{"number": "+8617880000001", "pool": "south"}]}
    assert (await operate.ask("POST", "apps/web/numbers:import", lines)).body["added"] == 1
    # Last, so that whoever knows the key knows the numbers, too.
    key = (await operate.ask("POST", "apps/web/callers/shop/keys")).body
    await settled_config(service, client, key["key"])
    bound = await client.bind(key=key["key"])
    assert (bound.status, bound.body["x"]) == (201, "+8617880000001")
    only = {"numbers": ["+8617880000001"], "reason": "complaints"}
    (frozen,) = (await operate.ask("POST", "apps/web/numbers:freeze", only)).body["items"]
    assert (frozen["state"], frozen["live_lines"]) == ("frozen", 1)
    (await client.bind(key=key["key"])).problem(409, "pool_exhausted")
    assert (await operate.ask("POST", "apps/web/numbers:open", only)).body["items"][0]["state"] == "open"
    (drained,) = (await operate.ask("POST", "apps/web/numbers:drain", only)).body["items"]
    assert drained["releasable"] is False
    (await operate.ask("POST", "apps/web/numbers:retire", only)).problem(409, "conflict")
    listed = await operate.ask("GET", "apps/web/numbers?state=draining")
    assert [row["number"] for row in listed.body["items"]] == ["+8617880000001"]
    for change, state in (("close", "closed"), ("open", "open")):
        assert (await operate.ask("POST", f"apps/web/pools/south:{change}")).body["state"] == state
    assert (await operate.ask("POST", "apps/web:suspend", {"reason": "arrears"})).body["state_reason"] == "arrears"
    assert (await operate.ask("POST", "apps/web:resume")).body["state"] == "open"
    assert (await operate.ask("DELETE", f"apps/web/callers/shop/keys/{key['hint']}")).status == 200
    await settled_config(service, client, key["key"], known=False)
    (await operate.ask("DELETE", f"apps/web/callers/shop/keys/{key['hint']}")).problem(404, "not_found")


async def test_what_is_kept_for_how_long(operate: Operator) -> None:
    """The same as the command tells."""
    told = (await operate.ask("GET", "retention")).body
    assert set(told) == {"apps", "tables", "walks"}
    assert {app["name"]: app["retention_days"] for app in told["apps"]}["demo-axb"] == 90


async def test_mistakes_are_named(operate: Operator) -> None:
    """Bad fields, bodies, states and names: 422 with pointers, 400, 404, 405; never a 500."""
    bad = {"name": "A", "app_key": "", "secret": 5, "base_url": "x", "nonsense": 1}
    assert (await operate.ask("POST", "apps", bad)).pointers() == {
        "/name", "/app_key", "/secret", "/base_url", "/nonsense",
    }  # fmt: skip
    assert (await operate.ask("PATCH", "apps/demo-axb", {"burst": None, "cap": 9999})).pointers() == {"/burst", "/cap"}
    assert (await operate.ask("POST", "apps", [1])).pointers() == {""}
    (await operate.ask("POST", "apps", data=b"{")).problem(400, "malformed_json")
    (await operate.ask("GET", "apps/none")).problem(404, "not_found")
    (await operate.ask("GET", "apps/none/numbers")).problem(404, "not_found")
    (await operate.ask("PUT", "apps/demo-axb")).problem(405, "method_not_allowed")
    assert (await operate.ask("GET", "apps/demo-axb/numbers?state=gone&x=1")).pointers() == {"/state", "/x"}
    items = {"items": [{"number": "1", "pool": "nowhere"}, 7, {"number": "+8617075500001", "pool": "beijing"}]}
    wrong = await operate.ask("POST", "apps/demo-axb/numbers:import", items)
    assert wrong.pointers() == {"/items/0/number", "/items/1", "/items/2/number"}
    assert (await operate.ask("POST", "apps/demo-axb/numbers:import", {"items": []})).pointers() == {"/items"}
    nul = {"name": "n\x00", "app_key": "k", "secret": "s\x00", "base_url": "http://h\x00"}
    assert (await operate.ask("POST", "apps", nul)).pointers() == {"/name", "/secret", "/base_url"}
    (await operate.ask("GET", "apps/%00")).problem(404, "not_found")


async def test_a_change_that_names_one_field_leaves_the_rest(operate: Operator) -> None:
    """PATCH is a merge: rate null lifts the limit, what is not named stays."""
    before = (await operate.ask("GET", "apps/demo-axb")).body
    limited = (await operate.ask("PATCH", "apps/demo-axb", {"rate": 500})).body
    assert limited == {**before, "rate": 500.0}
    assert (await operate.ask("PATCH", "apps/demo-axb", {"rate": None})).body == before


async def test_with_postgresql_away_it_says_when_to_come_back(operate: Operator, client: Client) -> None:
    """A stopped database: 503 with Retry-After within the deadline, health goes on; afterwards all is as before."""
    assert (await operate.ask("GET", "apps")).status == 200
    backends = _backends(client.service)
    for pid in backends:
        os.kill(pid, signal.SIGSTOP)
    try:
        answer = await operate.ask("GET", "apps")
        answer.problem(503, "database_unavailable")
        assert int(answer.headers["Retry-After"]) >= 1
        assert (await client.ask("GET", client.service.ready["admin"] + "/readyz", key=None)).status == 200
    finally:
        for pid in backends:
            os.kill(pid, signal.SIGCONT)

    async def back() -> bool:
        return (await operate.ask("GET", "apps")).status == 200

    await eventually(back, "the database answers again")


def _backends(service: Service) -> list[int]:
    """The database's processes that serve connections of this broker."""
    server = orjson.loads((service.folder / "server.json").read_bytes())["pid"]
    shown = subprocess.run(
        ["ps", "--ppid", str(server), "-o", "pid=,args="], capture_output=True, text=True, check=True
    )
    return [int(line.split()[0]) for line in shown.stdout.splitlines() if " broker broker " in line]

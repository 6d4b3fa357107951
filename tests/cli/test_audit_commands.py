"""`broker audit` and `broker import` on a running `up`, in every mode that the platform keeps bindings for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from broker.platform.huawei.access import of_app
from broker.platform.protocol import BindLine, Platform, PlatformLine, Verdict
from broker.store import drift, registry
from broker.store.database import Database
from broker.store.registry import App
from tests.cli.test_commands import run
from tests.cli.test_operate_commands import ask
from tests.contract.service import Answer, Client, Json, Service, client_of, eventually, memory, phone, rows, up
from tests.pg import state_folder

MODES = ("axb", "ax", "axe", "axyb")


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """One `broker up` for all tests of the module; nothing is audited but on demand."""
    settings = {"BROKER_AUDIT_INTERVAL_S": "0", "BROKER_AUDIT_SHARE": "1", "BROKER_AUDIT_RATE": "300"}
    with state_folder(memory()) as folder, up(folder, "--workers", "1", settings=settings) as running:
        yield running


@pytest.fixture
async def client(service: Service) -> AsyncIterator[Client]:
    """Requests to it."""
    async with client_of(service) as made:
        yield made


def demo(service: Service, mode: str) -> Json:
    """The app of a mode."""
    return next(app for app in service.ready["apps"] if app["mode"] == mode)


async def platform_of(service: Service, mode: str) -> Platform:
    """The platform as somebody else uses it."""
    db = Database(service.database, connections=1, timeout_s=10)
    await db.open()
    try:
        known = await registry.load(db, service.vault())
    finally:
        await db.close()
    app: App = next(app for app in known.apps.values() if app.mode == mode)
    return of_app(app)


async def bind(client: Client, service: Service, mode: str, **fields: Any) -> Json:
    """Bind in a mode's demonstration app."""
    asked: Json = {"a": phone(), "ttl_s": 3600} | ({"b": phone()} if mode == "axb" else {}) | fields
    made: Answer = await client.ask("POST", "/v1/bindings", asked, key=demo(service, mode)["api_key"])
    assert made.status == 201, made.raw
    return dict(made.body)


def audit(service: Service, mode: str, *, code: int = 0) -> Any:
    """Audit an app to the end; code 1 = something is open."""
    ended = run("audit", "run", "--app", demo(service, mode)["name"], "--json", "--state-dir", str(service.folder))
    assert ended.returncode == code, ended.stdout + ended.stderr
    return orjson.loads(ended.stdout)


async def subscription(service: Service, made: Json) -> str:
    """The platform's id of a binding that was made last on its X."""
    found = await rows(
        service,
        "SELECT l.subscription_id FROM line AS l LEFT JOIN x_number AS x ON x.pool_id = l.pool_id AND x.x_id = l.x_id"
        " WHERE coalesce(x.number, l.picked) = $1 AND l.state = 'active' AND l.extension IS NOT DISTINCT FROM"
        " coalesce($2::smallint, l.extension)",
        made["x"], int(made["extension"]) if made.get("extension") else None,
    )  # fmt: skip
    return str(found[0]["subscription_id"])


@pytest.mark.parametrize("mode", MODES)
async def test_nothing_is_found_falsely(service: Service, client: Client, mode: str) -> None:
    """A lifetime that a mode does not tell, or tells as it once was, or a direction it does not report is no drift."""
    key = demo(service, mode)["api_key"]
    made = await bind(client, service, mode)
    await bind(client, service, mode, ttl_s=7200)
    if mode != "axyb":
        headers = {"Content-Type": "application/merge-patch+json"}
        changed = await client.ask("PATCH", f"/v1/bindings/{made['id']}", {"ttl_s": 10_800}, key=key, headers=headers)
        assert changed.status == 200, changed.raw
    told = audit(service, mode)
    assert told["findings"] == []
    assert told["runs"][0]["compared"] >= 2


@pytest.mark.parametrize("mode", MODES)
async def test_a_line_that_is_gone_there(service: Service, client: Client, mode: str) -> None:
    """It is bound anew where we choose the X, with the same A behind it; else its binding ends."""
    made = await bind(client, service, mode)
    platform = await platform_of(service, mode)
    try:
        gone = await platform.unbind(await subscription(service, made), permit=lambda: True, timeout_s=10)
        assert gone.verdict is Verdict.DONE
    finally:
        await platform.close()
    (found,) = audit(service, mode, code=1)["findings"]
    assert (found["kind"], found["x"], found["action"]) == (
        "absent_there", made["x"], "ending" if mode == "axyb" else "rebinding",
    )  # fmt: skip

    async def clean() -> bool:
        name = demo(service, mode)["name"]
        ended = run("audit", "run", "--app", name, "--json", "--state-dir", str(service.folder))
        return ended.returncode == 0

    await eventually(clean, "nothing differs any more")

    async def settled() -> bool:
        shown = await client.ask("GET", f"/v1/bindings/{made['id']}", key=demo(service, mode)["api_key"])
        return bool(shown.body["state"] == ("released" if mode == "axyb" else "active"))

    await eventually(settled, "the binding goes on, or has ended")


@pytest.mark.parametrize("mode", ["ax", "axe"])
async def test_what_somebody_else_has_bound_is_imported(
    service: Service, client: Client, mode: str, tmp_path: Path
) -> None:
    """A dry run tells the cost and changes nothing; the import makes it a binding, and nothing differs afterwards."""
    app = demo(service, mode)
    free = await rows(
        service,
        "SELECT x.number, p.extension FROM place AS p JOIN x_number AS x USING (pool_id, x_id)"
        " JOIN pool AS q ON q.id = pool_id JOIN app AS a ON a.id = q.app_id"
        " WHERE a.name = $1 AND p.until = '-infinity' ORDER BY p.extension DESC LIMIT 1",
        app["name"],
    )  # fmt: skip
    x, extension = free[0]["number"], free[0]["extension"]
    a = phone()
    digits = str(extension).zfill(4) if extension else ""
    await theirs(service, mode, BindLine(x, a, token="their order", extension=digits))
    file = tmp_path / "places.csv"
    file.write_text(f"x,extension\n{x},{extension}\n", encoding="utf-8")
    where = ("--csv", str(file)) if mode == "axe" else ()
    dry = ask(service, "import", "bindings", "--app", app["name"], "--dry-run", *where)
    assert (dry["new"], dry["dry_run"]) == (1, True)
    done = ask(service, "import", "bindings", "--app", app["name"], "--yes", *where)
    assert (done["new"], done["left_out"]) == (1, 0)
    assert ask(service, "import", "bindings", "--app", app["name"], "--yes", *where)["new"] == 0
    assert audit(service, mode)["findings"] == []
    found = await client.ask("GET", f"/v1/bindings?x={x.replace('+', '%2B')}", key=app["api_key"])
    assert [(one["user_data"], one["state"]) for one in found.body["items"] if one["a"].endswith(a[-4:])] == [
        ("their order", "active")
    ]


async def theirs(service: Service, mode: str, request: BindLine) -> PlatformLine:
    """Bind past the broker."""
    platform = await platform_of(service, mode)
    try:
        answer = await platform.bind(request, permit=lambda: True, timeout_s=10)
        assert answer.verdict is Verdict.DONE, answer
        return answer.bindings[0]
    finally:
        await platform.close()


def test_what_operators_set_and_mistakes(service: Service) -> None:
    """A policy keeps what is not given; a word that is none of it is named."""
    name = demo(service, "axb")["name"]
    told = ask(service, "audit", "policy", "--app", name, "--unknown", "unbind")
    assert (told["unknown"], told["absent"], told["differing"]) == ("unbind", "rebind", "repair")
    told = ask(service, "audit", "policy", "--app", name, "--unknown", "report", "--every-s", "60")
    assert (told["unknown"], told["every_s"]) == ("report", 60)
    ask(service, "audit", "policy", "--app", name, "--every-s", "0")
    assert "mode x" in ask(service, "audit", "run", "--app", demo(service, "x")["name"], code=1)
    assert "unknown" in ask(service, "audit", "policy", "--app", name, "--unknown", "shrug", code=1)
    assert "caller" in ask(service, "import", "bindings", "--app", name, "--caller", "nobody", "--yes", code=1)


async def test_nothing_is_allocated_from_restored_books_before_an_audit(service: Service, client: Client) -> None:
    """503 until the app's audit has come to its end; what a backup has forgotten is found by then."""
    made = await bind(client, service, "axb")
    stays = await bind(client, service, "axb")
    barred = phone()
    while (await bind(client, service, "axb", a=barred))["x"] != stays["x"]:
        pass
    await client.fault("query", "code", code="1010001", http=500)
    db = Database(service.database, connections=1, timeout_s=10)
    await db.open()
    try:
        # The backup is older than the binding.
        await db.fetch(
            "WITH gone AS (UPDATE line SET state = 'released', seat = NULL, sweep_at = NULL WHERE subscription_id = $1"
            " RETURNING id), free AS (DELETE FROM slot USING gone WHERE slot.line_id = gone.id)"
            " DELETE FROM binding USING gone WHERE binding.line_id = gone.id",
            await subscription(service, made),
        )
        await drift.gate(db)
    finally:
        await db.close()
    key = demo(service, "axb")["api_key"]
    order = {"a": phone(), "b": phone(), "ttl_s": 3600}

    async def answered(status: int) -> Answer | None:
        answer = await client.ask("POST", "/v1/bindings", order, key=key)
        return answer if answer.status == status else None

    refused = await eventually(lambda: answered(503), "the gate is shut")
    refused.problem(503, "audit_first")
    batch = await client.ask("POST", "/v1/bindings:batch", {"items": [order, order]}, key=key)
    assert {one["problem"]["code"] for one in batch.body["items"]} == {"audit_first"}
    # A change that only another X could serve.
    moved = await client.ask(
        "PATCH", f"/v1/bindings/{stays['id']}", {"b": barred, "on_conflict": "rebind"}, key=key,
        headers={"Content-Type": "application/merge-patch+json"},
    )  # fmt: skip
    moved.problem(503, "audit_first")
    await client.emulator("DELETE", "faults")
    await eventually(lambda: answered(201), "the gate opens")
    (found,) = ask(service, "audit", "report", "--app", demo(service, "axb")["name"])["findings"]
    assert (found["kind"], found["x"], found["action"], found["ours"]) == ("unknown_here", made["x"], "barred", True)


async def _ax(client: Client, service: Service, peers: int) -> tuple[Json, list[Json]]:
    """An AX with so many peers."""
    key = demo(service, "axyb")["api_key"]
    made = await bind(client, service, "axyb", ttl_s=7200)
    added = [
        await client.ask("POST", f"/v1/bindings/{made['id']}/peers", {"b": phone()}, key=key) for _ in range(peers)
    ]
    assert [one.status for one in added] == [201] * peers, [one.raw for one in added]
    return made, [dict(one.body) for one in added]


async def test_the_peers_of_an_ax_as_far_as_they_are_shown(service: Service, client: Client) -> None:
    """One that is gone there has ended, one that we forgot is told; of a full list the rest is not verifiable."""
    key = demo(service, "axyb")["api_key"]
    made, (lost, forgotten, kept) = await _ax(client, service, 3)
    ax = await subscription(service, made)
    told = audit(service, "axyb")
    judged = told["runs"][0]["peers"]
    assert (judged >= 3, told["runs"][0]["unverifiable"]) == (True, 0)
    platform = await platform_of(service, "axyb")
    try:
        await platform.unbind_peer(ax, y=lost["y"], permit=lambda: True, timeout_s=10)
    finally:
        await platform.close()
    forget = "DELETE FROM peer AS p USING line AS l WHERE l.id = p.line_id AND l.subscription_id = $1 AND p.y = $2"
    assert forgotten["y"] != lost["y"], "each peer of an AX has another Y"
    await rows(service, forget, ax, forgotten["y"])
    found = audit(service, "axyb", code=1)["findings"]
    assert {(one["kind"], one["action"], one["subscription_id"]) for one in found} == {
        ("peer_absent_there", "ending", f"{ax}#{lost['y']}"),
        ("peer_unknown_here", "reported", f"{ax}#{forgotten['y']}"),
    }  # fmt: skip
    states = {
        one["id"]: (one["state"], one["reason"])
        for one in (await client.ask("GET", f"/v1/bindings/{made['id']}/peers", key=key)).body["items"]
    }
    assert states[lost["id"]] == ("released", "platform_lost")
    assert states[kept["id"]] == ("active", None)
    # What the list has shown since is a peer again; a policy that ends strangers takes its Y away.
    await rows(service, forget, ax, forgotten["y"])
    ask(service, "audit", "policy", "--app", demo(service, "axyb")["name"], "--unknown", "unbind")
    assert audit(service, "axyb")["findings"] == []
    ask(service, "audit", "policy", "--app", demo(service, "axyb")["name"], "--unknown", "report")
    assert [one.get("y") for one in await _relations(service, ax)] == [kept["y"]]


async def test_peers_beyond_the_five_that_a_query_shows(service: Service, client: Client) -> None:
    """They are counted, and nothing is said of them."""
    before = audit(service, "axyb")["runs"][0]
    await _ax(client, service, 7)
    told = audit(service, "axyb")
    assert told["findings"] == []
    assert told["runs"][0]["unverifiable"] == before["unverifiable"] + 2
    assert told["runs"][0]["peers"] == before["peers"] + 5


async def _relations(service: Service, ax: str) -> list[Json]:
    """The Y numbers that the platform shows of an AX."""
    platform = await platform_of(service, "axyb")
    try:
        answer = await platform.lookup(ax, permit=lambda: True, timeout_s=10)
    finally:
        await platform.close()
    return [{"y": line.y} for line in answer.bindings if line.y]

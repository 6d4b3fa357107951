"""`broker notifications` on a running `up`."""

from __future__ import annotations

from collections.abc import Iterator

import aiohttp
import orjson
import pytest

from tests.cli.test_commands import run
from tests.contract.service import Service, eventually, memory, rows, up
from tests.edge.rig import fee, fees, headers
from tests.pg import state_folder


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """One `broker up`."""
    with state_folder(memory()) as folder, up(folder, "--workers", "1") as running:
        yield running


async def test_listed_and_replayed(service: Service) -> None:
    """What could not be read is listed without its words and taken up again; what is done is not."""
    app = next(one for one in service.ready["apps"] if one["mode"] == "axb")
    state = ("--state-dir", str(service.folder))
    shown = orjson.loads(run("app", "show", app["name"], "--json", *state).stdout)
    assert shown["push_paths"][1] == f"/n/{app['name']}/cdr"
    async with aiohttp.ClientSession() as http:
        for body in (b"what is this", orjson.dumps(fees(fee("one"), {"no": "session"}))):
            signed = headers(key=app["app_key"], secret=app["app_secret"])
            async with http.post(service.ready["edge"] + shown["push_paths"][1], data=body, headers=signed) as answer:
                assert answer.status == 200

    async def done() -> bool:
        left = await rows(service, "SELECT state, count(*) AS n FROM inbox GROUP BY state ORDER BY state")
        return [(row["state"], row["n"]) for row in left] == [("done", 1), ("unreadable", 2)]

    await eventually(done, "one is done, two are unreadable")
    listed = run("notifications", "list", "--app", app["name"], "--json", *state)
    assert "what is this" not in listed.stdout
    items = orjson.loads(listed.stdout)["items"]
    assert [item["state"] for item in items] == ["unreadable", "unreadable"]
    one = run("notifications", "replay", "--app", app["name"], "--id", items[0]["id"], "--yes", "--json", *state)
    assert orjson.loads(one.stdout) == {"app": app["name"], "replayed": 1}
    await eventually(done, "it could not be read again")
    both = run("notifications", "replay", "--app", app["name"], "--yes", "--json", *state)
    assert orjson.loads(both.stdout)["replayed"] == 2
    await eventually(done, "they could not be read again")
    refused = run("notifications", "list", "--app", app["name"], "--state", "lost", *state)
    assert refused.returncode == 1

"""Evacuating a number by commands and by operators' routes, against a running `up`."""

from __future__ import annotations

import itertools

import orjson

from tests.cli.test_operate_commands import ask, plain, service
from tests.contract.service import Client, Service, Tenant, add_app, client_of, eventually, settled_config

__all__ = ["service"]

_serial = itertools.count(1)


async def furnished(service: Service, client: Client, numbers: int) -> tuple[str, Tenant, list[str]]:
    """An app with so many numbers, at the platform and here."""
    nth = next(_serial)
    name, listed = f"leave-{nth}", [f"+86179{nth:02d}00000{x}" for x in range(numbers)]
    fields = {"secret": "secret", "mode": "axb", "rate": 0, "burst": None}
    await client.emulator("PUT", f"apps/key-of-{name}", fields)
    items = [{"number": number, "area_code": "021"} for number in listed]
    await client.emulator("PUT", f"apps/key-of-{name}/numbers", items)
    tenant = await add_app(service, name, pools=[("east", "021", listed)])
    await settled_config(service, client, tenant.keys["main"])
    return name, tenant, listed


async def test_freeze_with_evacuate_moves_what_is_bound(service: Service) -> None:
    """The bindings have another X and ETag; progress counts them; the number is free of lines after the overlap."""
    async with client_of(service) as client:
        name, tenant, (x, other) = await furnished(service, client, 2)
        key = tenant.keys["main"]
        made = [(await client.bind(key=key)).body for _ in range(3)]
        assert {one["x"] for one in made} == {x}
        old = await client.ask("GET", f"/v1/bindings/{made[0]['id']}", key=key)
        ask(service, "numbers", "freeze", x, "--evacuate", "--reason", "on a spam list", "--app", name)
        (shown,) = ask(service, "numbers", "evacuation", x, "--watch", "--app", name)["items"]
        assert (shown["state"], shown["why"], shown["reason"]) == ("done", "operator", "on a spam list")
        assert (shown["moved"], shown["bindings"], shown["waiting_for"]) == (3, 3, {})
        for one in made:
            answer = await client.ask("GET", f"/v1/bindings/{one['id']}", key=key)
            assert (answer.body["state"], answer.body["x"]) == ("active", other)
        new = await client.ask("GET", f"/v1/bindings/{made[0]['id']}", key=key)
        assert new.headers["ETag"] != old.headers["ETag"]
        listed = {row["number"]: row for row in ask(service, "numbers", "list", "--app", name)["items"]}
        assert (listed[x]["state"], listed[x]["closed_by"], listed[x]["evacuation"]) == ("frozen", "operator", "done")
        assert ask(service, "numbers", "evacuation", "--app", name) == {"items": []}


async def test_what_waits_is_told_with_exit_1(service: Service) -> None:
    """Without another number the lines stay and are counted by their reason; opened again, the evacuation stops."""
    async with client_of(service) as client:
        name, tenant, (x,) = await furnished(service, client, 1)
        made = (await client.bind(key=tenant.keys["main"])).body
        ask(service, "numbers", "drain", x, "--evacuate", "--app", name)

        async def waits() -> bool:
            told = plain(service, "numbers", "evacuation", x, "--app", name)
            return told.returncode == 1 and "pool_exhausted" in told.stdout

        await eventually(waits, "the line waits")
        assert (await client.ask("GET", f"/v1/bindings/{made['id']}", key=tenant.keys["main"])).body["x"] == x
        ask(service, "numbers", "open", x, "--app", name)
        told = plain(service, "numbers", "evacuation", x, "--watch", "--json", "--app", name)
        (shown,) = orjson.loads(told.stdout)["items"]
        assert (told.returncode, shown["state"], shown["waiting"]) == (1, "stopped", 1)


async def test_where_the_platform_picks_nothing_is_changed(service: Service) -> None:
    """In mode axyb it is refused with what to do instead; a number that never was evacuated has nothing to show."""
    (x, *_) = (row["number"] for row in ask(service, "numbers", "list", "--app", "demo-axb")["items"])
    assert "was ever evacuated" in ask(service, "numbers", "evacuation", x, "--app", "demo-axb", code=1)
    refused = ask(service, "numbers", "freeze", "+8617010000001", "--evacuate", "--app", "demo-axyb", code=1)
    assert refused.startswith("Nothing was changed: in mode axyb the platform picks the X")

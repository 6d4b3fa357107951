"""Who dials X to call back reaches whoever has called last."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import orjson
import pytest

from tests.contract.service import Client, Json, Service, eventually, phone, rows
from tests.edge.rig import event, headers, session_id

_WITHIN_S = 600


def _app(service: Service, mode: str) -> Json:
    return next(dict(app) for app in service.ready["apps"] if app["mode"] == mode)


async def _bound(service: Service, client: Client, mode: str, a: str) -> Json:
    await rows(service, "UPDATE app SET call_back_s = $1 WHERE name = $2", _WITHIN_S, f"demo-{mode}")
    pool = {"pool": "one"} if mode == "x" else {}
    made = await client.ask("POST", "/v1/bindings", {"a": a, **pool}, key=_app(service, mode)["api_key"])
    assert made.status == 201, made.raw
    return dict(made.body)


async def _reaches(client: Client, a: str, x: str, wanted: str | None) -> None:
    async def there() -> bool:
        return bool((await client.call(a, x))["connected_to"] == wanted)

    await eventually(there, f"A reaches {'the last caller' if wanted else 'nobody'}")


async def test_a_reaches_whoever_called_last(service: Service, client: Client) -> None:
    """The first caller, then the second; A's own calls change nothing, nor does an earlier call that is told late."""
    a, first, second, late = phone(), phone(), phone(), phone()
    made = await _bound(service, client, "ax", a)
    assert (await client.call(a, made["x"]))["connected_to"] is None
    for caller in (first, second):
        assert (await client.call(caller, made["x"]))["connected_to"] == a
        await _reaches(client, a, made["x"], caller)
    app = _app(service, "ax")
    told = event(
        "callin", session_id(), at=datetime.now(UTC) - timedelta(seconds=_WITHIN_S / 2), caller=late, called=made["x"],
        userData=made["line"].replace("-", ""),
    )  # fmt: skip
    signed = headers(key=app["app_key"], secret=app["app_secret"])
    url = f"{service.ready['edge']}/n/{app['name']}/events"
    async with client.http.post(url, data=orjson.dumps(told), headers=signed) as answer:
        assert answer.status == 200

    async def entered() -> bool:
        kept = await rows(
            service, "SELECT count(*) FROM call WHERE line_id = $1 AND started_at < now() - interval '1 minute'",
            made["line"],
        )  # fmt: skip
        return bool(kept[0]["count"])

    await eventually(entered, "the late call is told")
    assert (await client.call(a, made["x"]))["connected_to"] == second
    of = "SELECT id FROM binding WHERE line_id = $1"
    kept = await rows(service, f"SELECT due_at FROM call_back WHERE binding_id IN ({of})", made["line"])  # noqa: S608
    assert [row["due_at"] for row in kept] == [None]


@pytest.mark.parametrize("mode", ["axb", "axe", "axyb"])
async def test_only_where_a_line_can_have_a_callee(service: Service, mode: str) -> None:
    """Other modes refuse the setting."""
    with pytest.raises(Exception, match="app_call_back_mode"):
        await rows(service, "UPDATE app SET call_back_s = 60 WHERE name = $1", f"demo-{mode}")

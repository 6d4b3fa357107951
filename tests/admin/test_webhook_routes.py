"""Webhooks over HTTP and by command, as operators use them."""

from __future__ import annotations

from standardwebhooks import Webhook

from tests.admin.test_operator_routes import Operator, operate
from tests.cli.test_operate_commands import ask
from tests.contract.service import Client

__all__ = ["operate"]

_WEBHOOKS = "apps/demo-axb/webhooks"
_URL = "https://orders.example.com/events?from=broker"


async def test_a_webhook_from_begin_to_end(operate: Operator, client: Client) -> None:
    """Added with its secret shown once, listed, rotated, disabled, enabled, removed; commands tell the same."""
    made = await operate.ask("POST", _WEBHOOKS, {"name": "orders", "url": _URL, "types": ["call.*", "binding.active"]})
    assert made.status == 201, made.raw
    assert made.body["types"] == ["binding.active", "call.started", "call.ringing", "call.answered", "call.ended"]
    Webhook(made.body["secret"])
    shown = (await operate.ask("GET", f"{_WEBHOOKS}/orders")).body
    assert "secret" not in shown
    assert (shown["state"], shown["waiting"], shown["dead"]) == ("enabled", 0, 0)
    assert ask(client.service, "webhook", "show", "orders", "--app", "demo-axb")["url"] == _URL
    (listed,) = ask(client.service, "webhook", "list", "--app", "demo-axb")["items"]
    assert listed["name"] == "orders"
    rotated = (await operate.ask("POST", f"{_WEBHOOKS}/orders:rotate", {"overlap_s": 60})).body
    assert rotated["secret"] != made.body["secret"]
    assert rotated["old_secret_until"] is not None
    off = (await operate.ask("POST", f"{_WEBHOOKS}/orders:disable")).body
    assert (off["state"], off["state_reason"]) == ("disabled", "operator")
    (await operate.ask("POST", f"{_WEBHOOKS}/orders:test")).problem(409, "conflict")
    assert (await operate.ask("POST", f"{_WEBHOOKS}/orders:enable")).body["state"] == "enabled"
    assert (await operate.ask("GET", f"{_WEBHOOKS}/orders/deliveries?state=dead&limit=5")).body["items"] == []
    assert ask(client.service, "webhook", "replay", "orders", "--dead", "--yes", "--app", "demo-axb")["replayed"] == 0
    assert (await operate.ask("DELETE", f"{_WEBHOOKS}/orders")).status == 200
    (await operate.ask("GET", f"{_WEBHOOKS}/orders")).problem(404, "not_found")


async def test_wrong_webhooks(operate: Operator) -> None:
    """Each mistake is named by its place."""
    for body, pointer in (
        ({"name": "x", "url": "ftp://orders.example.com"}, "/url"),
        ({"name": "x", "url": "https://user:word@orders.example.com/"}, "/url"),
        ({"name": "X!", "url": _URL}, "/name"),
        ({"name": "x", "url": _URL, "types": ["binding.gone"]}, "/types"),
        ({"name": "x", "url": _URL, "secret": "whsec_short"}, "/secret"),
    ):
        assert (await operate.ask("POST", _WEBHOOKS, body)).pointers() == {pointer}
    assert (await operate.ask("POST", _WEBHOOKS, {"name": "twice", "url": _URL})).status == 201
    (await operate.ask("POST", _WEBHOOKS, {"name": "twice", "url": _URL})).problem(409, "conflict")
    replay = f"{_WEBHOOKS}/twice/deliveries:replay"
    assert (await operate.ask("POST", replay, {"ids": ["evt_1"]})).pointers() == {"/ids/0"}
    assert (await operate.ask("POST", replay, {"since": "yesterday"})).pointers() == {"/since"}
    await operate.ask("DELETE", f"{_WEBHOOKS}/twice")

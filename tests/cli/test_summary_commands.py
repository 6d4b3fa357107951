"""What calls add up to, against records that a running service took in."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from tests.cli.test_operate_commands import ask, service
from tests.contract.service import Client, Service, client_of, eventually, phone, rows
from tests.contract.test_told import _push
from tests.edge.rig import fee, fees, message, session_id

__all__ = ["service"]

#: Late on a day in London, and on the next one in Shanghai already.
_AT = datetime(2026, 11, 20, 22, 30, tzinfo=UTC)


async def _told(service: Service, client: Client) -> str:
    made = (await client.bind(a=phone(), b=phone(), area_code="0755")).body
    mark = made["line"].replace("-", "")
    base: dict[str, Any] = {"callerNum": phone(), "bindNum": made["x"], "userData": mark}
    records = [fee(session_id(), at=_AT, talk_s=talk_s, **base) for talk_s in (0, 1, 60, 61)]
    await _push(service, client, "cdr", fees(*records))
    await _push(service, client, "sms", message(made["x"], phone(), at=_AT, userData=mark, called=phone()))

    async def there() -> bool:
        kept = await rows(service, "SELECT (SELECT count(*) FROM cdr) + (SELECT count(*) FROM sms) AS many")
        return bool(kept[0]["many"] == 5)

    await eventually(there, "all is told")
    return str(made["x"])


async def test_days_and_their_costs(service: Service) -> None:
    """Begun minutes by the price nearest to the X and newest; days are the zone's; what has no price is counted."""
    async with client_of(service) as client:
        x = await _told(service, client)
        command = ("summary", "2026-11-20", "2026-11-21", "--app", "demo-axb")
        (day,) = ask(service, *command)["items"]
        assert (day["day"], day["calls"], day["answered"], day["answer_rate"]) == ("2026-11-21", 4, 3, 0.75)
        assert (day["talk_s"], day["minutes"], day["messages"]) == (122, 4, 1)
        assert (day["cost"], day["currency"], day["unpriced"]) == (None, None, 5)
        price = ("price", "set", "--app", "demo-axb", "--currency", "CNY")
        ask(service, *price, "--call-minute", "9", "--sms", "0.05")
        ask(service, *price, "--call-minute", "0.2", "--area-code", "0755")
        ask(service, *price, "--call-minute", "0.3", "--area-code", "0755", "--from", "2026-11-22")
        london = ask(service, *command, "--zone", "Europe/London", "--by", "area", "--by", "x")["items"]
        assert [(one["day"], one["area_code"], one["x"]) for one in london] == [("2026-11-20", "0755", x)]
        assert (london[0]["cost"], london[0]["unpriced"]) == ("0.85", 0)
        ask(service, *price, "--call-minute", "0.0001", "--x", x)
        answer = await client.ask("GET", "/v1/calls:summary?first=2026-11-21&last=2026-11-21&by=pool")
        (told,) = answer.body["items"]
        assert (told["pool"], told["cost"]) == ("shenzhen", "0.0504")
        assert len(ask(service, "price", "list", "--app", "demo-axb")["items"]) == 4
        ask(service, "price", "remove", "--app", "demo-axb", "--x", x)
        assert "no such price" in ask(service, "price", "remove", "--app", "demo-axb", "--x", x, code=1)


@pytest.mark.parametrize(
    ("query", "pointers"),
    [
        ("", {"/first", "/last"}),
        ("?first=2026-11-22&last=2026-11-21", {""}),
        ("?first=2026-01-01&last=2026-11-21", {""}),
        ("?first=yesterday&last=2026-11-21&zone=Nowhere&by=x,x", {"/first", "/zone", "/by"}),
    ],
)
async def test_mistakes(service: Service, query: str, pointers: set[str]) -> None:
    """Each bad parameter has its place."""
    async with client_of(service) as client:
        assert (await client.ask("GET", f"/v1/calls:summary{query}")).pointers() == pointers


def test_a_price_is_a_decimal_number(service: Service) -> None:
    """Nothing else, and of a city or an X, not of both."""
    price = ("price", "set", "--app", "demo-axb", "--currency", "CNY", "--call-minute")
    assert "decimal" in ask(service, *price, "1e9", code=1)
    assert "decimal" in ask(service, *price, "NaN", code=1)
    assert "no city" in ask(service, *price, "1", "--area-code", "0891", code=1)
    assert "city already" in ask(service, *price, "1", "--area-code", "0755", "--x", "+8617010000001", code=1)

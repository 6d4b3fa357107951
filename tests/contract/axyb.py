"""The demonstration's app of mode AXYB, as an order system uses it."""

from __future__ import annotations

from typing import Any

from tests.contract.service import Answer, Client, Json, Service, phone


class Axyb:
    """The demonstration's app of mode AXYB."""

    def __init__(self, service: Service, client: Client) -> None:
        (app,) = (one for one in service.ready["apps"] if one["mode"] == "axyb")
        self.key = str(app["api_key"])
        self.client = client

    async def bind(self, **fields: Any) -> Json:
        """An A behind an X."""
        answer = await self.ask("POST", "/v1/bindings", {"a": phone(), "area_code": "0755", "ttl_s": 3600} | fields)
        assert answer.status == 201, answer.raw
        return dict(answer.body)

    async def ask(self, method: str, path: str, body: object = None, **more: Any) -> Answer:
        """One request of this app's."""
        return await self.client.ask(method, path, body, key=self.key, **more)

    async def add(self, binding: Json, **fields: Any) -> Answer:
        """Ask for a Y."""
        return await self.ask("POST", f"/v1/bindings/{binding['id']}/peers", fields)

    async def release(self, binding: Json) -> Answer:
        """End the binding."""
        return await self.ask("DELETE", f"/v1/bindings/{binding['id']}")

"""What the mixed load believes of a binding whose change was cut off."""

from __future__ import annotations

import random

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from bench import mixed
from bench.mixed import Mixed, _group, _Order
from broker.domain.phone import mask

X = "+8616200000000"


class Broker:
    """Cuts the change off, shows the binding as it was, and does what it was asked a moment later."""

    def __init__(self) -> None:
        self.a = self.b = ""

    def app(self) -> web.Application:
        """Its two routes."""
        app = web.Application()
        app.router.add_patch("/v1/bindings/{id}", self._cut)
        app.router.add_get("/v1/bindings/{id}", self._show)
        return app

    async def _cut(self, request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async def _show(self, _: web.Request) -> web.Response:
        told = {
            "state": "active", "pending_change": None, "a": mask(self.a), "b": mask(self.b), "x": X,
            "line": "l", "expires_at": "2999-01-01T00:00:00Z",
        }  # fmt: skip
        return web.json_response(told)


@pytest.mark.parametrize(("waited_s", "wrong"), [(0.0, 0), (mixed._STILL_S + 1, 1)])
async def test_a_cut_off_change_stays_possible_for_a_while(
    monkeypatch: pytest.MonkeyPatch, waited_s: float, wrong: int
) -> None:
    """The database may still do it when a look shows nothing of it; long after that nobody does."""
    broker, group, chance = Broker(), _group(1), random.Random(1)  # noqa: S311 - load, not secrets
    async with TestServer(broker.app()) as server, aiohttp.ClientSession() as http:
        load = Mixed(str(server.make_url("")).rstrip("/"), "", "", 1, 60.0)
        order = _Order(broker.a, broker.b, 600, "bnd_1")
        order.a, order.b = broker.a, broker.b = group.couriers[0], group.customers[0]
        order.maybe.append(load._possible.add(X, order.a, order.b, mixed.now()))
        await load._replace(http, group, order, chance)
        new = next(one for one in order.maybe if (one.a, one.b) != (broker.a, broker.b))
        clock = mixed.now
        monkeypatch.setattr(mixed, "now", lambda: clock() + waited_s)
        await load._look(http, group, order)
        load._judge(order, order.maybe[0], new.a, {"connected_to": new.b, "state_code": 0}, None, mixed.now())
    assert len(load.wrong) == wrong

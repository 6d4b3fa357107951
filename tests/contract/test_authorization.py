"""Every route against every kind of key: refused alike, and before anything else is looked at."""

from __future__ import annotations

import re

import pytest

from broker.api.auth import new_key
from broker.api.routes import ROUTES, Route
from tests.contract.service import Client, Service, Tenant, add_key, client_of, phone, rows, settled_config

_MALFORMED = [
    "",
    "Bearer",
    "Bearer ",
    "Basic YTpi",
    "Bearer nonsense",
    "bbk_" + "a" * 38,
    "Bearer bbk_" + "a" * 38,
    "Bearer bbk_" + "a" * 400,
    "Bearer bbk_\u00e9",
    "Token {key}",
    "Bearer {key}x",
    "Bearer {key} {key}",
    "Bearer {lower}",
    "Bearer x,Bearer {key}",
]


def _path(route: Route) -> str:
    """The route's path with names of nothing."""
    path = route.path.replace("{id}", "bnd_" + "0" * 32).replace("{peer_id}", "per_" + "0" * 32)
    return re.sub(r"{\w+}", "none", path)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
@pytest.mark.parametrize("presented", [None, *_MALFORMED, "Bearer {unknown}"])
async def test_without_a_known_key_everything_is_401(client: Client, route: Route, presented: str | None) -> None:
    """No key, a malformed one and a well-formed unknown one get the same 401, whatever the body and other headers."""
    key = client.service.key
    headers = {"Idempotency-Key": "not looked at \u00fc", "Request-Timeout": "nor this"}
    if presented is not None:
        headers["Authorization"] = presented.format(key=key, lower=key.lower(), unknown=new_key())
    answer = await client.ask(route.method, _path(route), data=b"{", headers=headers, key=None)
    problem = answer.problem(401, "unauthorized")
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert set(problem) == {"type", "title", "status", "detail", "instance", "code"}
    assert problem["detail"] == "Send a valid API key as 'Authorization: Bearer bbk_...'."


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
async def test_a_key_without_the_scope_is_403(client: Client, other: Tenant, route: Route) -> None:
    """A key may do what its scopes say and nothing else; the refusal names the scope."""
    for caller, scopes in (("binder", {"bind"}), ("reader", {"read"}), ("nothing", set[str]())):
        answer = await client.ask(route.method, _path(route), data=b"{", key=other.keys[caller])
        if route.scope in scopes:
            assert answer.status in {200, 400, 404, 422, 502}  # 502: the platform does not know this app
        else:
            assert f"'{route.scope}'" in answer.problem(403, "forbidden")["detail"]


@pytest.mark.parametrize("spelling", ["bearer {}", "BEARER {}", "Bearer  {}"])
async def test_the_scheme_is_case_insensitive(client: Client, spelling: str) -> None:
    """RFC 9110: the name of the scheme is read in any case."""
    headers = {"Authorization": spelling.format(client.service.key)}
    assert (await client.ask("GET", "/v1/bindings/bnd_none", headers=headers, key=None)).status == 404


async def test_revoked_keys_are_unknown_and_rotation_has_no_gap(service: Service, other: Tenant) -> None:
    """A caller's second key works beside the first; a revoked one is soon refused like any unknown one."""
    second = await add_key(service, other.app_id, "main", ("bind", "read"), place=2)
    async with client_of(service) as client:
        await settled_config(service, client, second)
        await settled_config(service, client, other.keys["main"])
        await rows(service, "UPDATE api_key SET revoked_at = clock_timestamp() WHERE place = 2")
        await settled_config(service, client, second, known=False)
        for route in ROUTES:
            (await client.ask(route.method, _path(route), key=second)).problem(401, "unauthorized")
        assert (await client.ask("GET", "/v1/bindings/bnd_none", key=other.keys["main"])).status == 404


async def test_keys_are_not_stored(service: Service) -> None:
    """The database knows hashes of keys and their last characters."""
    for row in await rows(service, "SELECT api_key::text AS shown FROM api_key"):
        assert service.key[4:20] not in row["shown"]
        assert "bbk_" not in row["shown"]


async def test_nothing_is_done_before_the_key_is_known(client: Client) -> None:
    """An unauthorised bind leaves nothing behind."""
    before = (await rows(client.service, "SELECT count(*) FROM binding"))[0][0]
    (await client.ask("POST", "/v1/bindings", {"a": phone(), "b": phone()}, key=None)).problem(401, "unauthorized")
    assert (await rows(client.service, "SELECT count(*) FROM binding"))[0][0] == before

"""Binds read and checked without a service: apps of any mode, with pools in memory."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from broker.api.context import Services
from broker.api.ordering import order_of
from broker.api.parse import bind_item
from broker.domain.choice import Policy
from broker.errors import Invalid
from broker.flows.order import BindOrder
from broker.store.crypto import DataKey, Vault
from broker.store.registry import App, Key, Pool, Registry

A, B = "+8613900000001", "+8613900000002"
X = "+8617000000101"
_VAULT = Vault((DataKey(1, bytes(32)),), bytes(32))
#: Name, city, routing.
_POOLS = (
    ("shenzhen", "0755", "pair"),
    ("guangzhou", "020", "pair"),
    ("shops", "0755", "one"),
    ("beijing", "010", "pair"),
)


def app_of(mode: str, **changes: Any) -> App:
    """An app of ``mode``."""
    app = App(
        id=1, name="shop", mode=mode, app_key="key", secret="secret", base_url="http://127.0.0.1:9", auth_scheme="aksk",
        rate=None, burst=1, default_ttl_s=3600, quarantine_s=60, cap=500, policy=Policy.PACK, suspended=None,
    )  # fmt: skip
    return replace(app, **changes)


def registry_of(app: App) -> Registry:
    """The app with its pools; the first has an X."""
    pools = tuple(
        Pool(
            id=place, app=app, name=name, area_code=area, open=True, numbers=(X,) if place == 1 else (), open_mask=1,
            routing=routing,
        )
        for place, (name, area, routing) in enumerate(_POOLS, 1)
    )  # fmt: skip
    return Registry(
        version=1,
        apps={1: app},
        keys={},
        pools={pool.id: pool for pool in pools},
        app_pools={1: pools},
        named_pools={(1, pool.name): pool for pool in pools},
        places={X: (1, 0)},
        weights={},
    )


def order(mode: str, body: object, **changes: Any) -> BindOrder:
    """Read a bind for an app of ``mode``.

    Raises:
        Invalid: it is wrong.
    """
    app = app_of(mode, **changes)
    registry = registry_of(app)
    services = cast("Services", SimpleNamespace(registry=lambda: registry, vault=_VAULT))
    return order_of(bind_item(body), services, Key(app, 1, "caller", frozenset({"bind"})))


def mistakes(mode: str, body: object, **changes: Any) -> dict[str, str | None]:
    """Read a bind that is wrong, and return the codes of its mistakes by place."""
    with pytest.raises(Invalid) as refused:
        order(mode, body, **changes)
    found = {error.pointer: error.code for error in refused.value.errors}
    codes = set(found.values())
    assert refused.value.code == ((codes.pop() if len(codes) == 1 else None) or "validation_failed")
    return found


def pools(made: BindOrder) -> list[str]:
    """The names of the pools to try."""
    return [pool.name for pool in made.pools]

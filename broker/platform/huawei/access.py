"""From an app's record to the driver of its mode."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from broker.platform.huawei.app import AppAccess, HuaweiApp
from broker.platform.huawei.ax import HuaweiAx
from broker.platform.huawei.axb import HuaweiAxb
from broker.platform.huawei.axe import HuaweiAxe
from broker.platform.huawei.axyb import HuaweiAxyb
from broker.platform.huawei.http import HttpOptions
from broker.platform.huawei.request import Scheme
from broker.platform.protocol import Platform

#: A driver of each mode that has interfaces to call; X has none (contract 5.1).
_DRIVERS: Final[Mapping[str, type[HuaweiAxb | HuaweiAx | HuaweiAxe | HuaweiAxyb]]] = {
    "axb": HuaweiAxb,
    "ax": HuaweiAx,
    "axe": HuaweiAxe,
    "axyb": HuaweiAxyb,
}


class Access(Protocol):
    """How an app reaches the platform."""

    @property
    def mode(self) -> str: ...  # noqa: D102 - as a key of _DRIVERS
    @property
    def app_key(self) -> str: ...  # noqa: D102 - as AppAccess
    @property
    def secret(self) -> str: ...  # noqa: D102
    @property
    def base_url(self) -> str: ...  # noqa: D102
    @property
    def auth_scheme(self) -> str: ...  # noqa: D102


def driver_of(app: Access, http: HttpOptions | None = None) -> Platform:
    """Return the driver of the app's mode. Raises ``ValueError`` for a mode that has nothing to call."""
    driver = _DRIVERS.get(app.mode)
    if driver is None:
        raise ValueError(f"mode {app.mode} has no platform interfaces")
    return driver(AppAccess(app.app_key, app.secret, app.base_url, Scheme(app.auth_scheme)), http)


def calls_of(app: Access, http: HttpOptions | None = None) -> HuaweiApp:
    """Return the interfaces of calls, which apps of every mode have."""
    return HuaweiApp(AppAccess(app.app_key, app.secret, app.base_url, Scheme(app.auth_scheme)), http)


def of_app(app: Access) -> Platform:
    """Return a driver for one question: a single connection."""
    return driver_of(app, HttpOptions(max_connections=1))

"""The driver of an app that is asked one question: a single connection."""

from __future__ import annotations

from typing import Protocol

from broker.platform.huawei.client import AppAccess, HuaweiAxb
from broker.platform.huawei.http import HttpOptions
from broker.platform.huawei.request import Scheme


class Access(Protocol):
    """How an app reaches the platform."""

    @property
    def app_key(self) -> str: ...  # noqa: D102 - as AppAccess
    @property
    def secret(self) -> str: ...  # noqa: D102
    @property
    def base_url(self) -> str: ...  # noqa: D102
    @property
    def auth_scheme(self) -> str: ...  # noqa: D102


def of_app(access: Access) -> HuaweiAxb:
    """Return a driver for one question."""
    return HuaweiAxb(
        AppAccess(access.app_key, access.secret, access.base_url, Scheme(access.auth_scheme)),
        HttpOptions(max_connections=1),
    )

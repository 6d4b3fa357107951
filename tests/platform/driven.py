"""A driver of any mode against raw sockets, and what it sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import orjson

from broker.platform.huawei.app import AppAccess, HuaweiApp
from broker.platform.huawei.http import HttpOptions
from broker.platform.huawei.request import Scheme
from tests.platform.raw_platform import RawPlatform, Script, answer, steadily

NOW = 1893456000.0  # 2030-01-01T00:00:00Z

Driver = TypeVar("Driver", bound=HuaweiApp)


def yes() -> bool:
    """Permit."""
    return True


def said(fields: object, status: int = 200, headers: str = "") -> bytes:
    """Return an answer with a JSON body."""
    return answer(orjson.dumps(fields), status, headers)


def saying(fields: object, status: int = 200) -> Script:
    """Return a script that answers every request with the same fields, a success unless they say otherwise."""
    assert isinstance(fields, dict)
    return steadily(said({"resultcode": "0", "resultdesc": "Success", **fields}, status))


def head(request: bytes) -> str:
    """Return a request's first line."""
    return request.split(b"\r\n")[0].decode()


def body(request: bytes) -> Any:
    """Return a request's JSON body."""
    return orjson.loads(request.split(b"\r\n\r\n", 1)[1])


@asynccontextmanager
async def driving(
    kind: type[Driver],
    script: Script,
    *,
    prefix: str = "",
    scheme: Scheme = Scheme.AKSK,
    http: HttpOptions | None = None,
) -> AsyncIterator[tuple[RawPlatform, Driver]]:
    """Run a platform and a driver of this kind for it."""
    async with RawPlatform(script) as platform:
        access = AppAccess("ABCD1234", "bb-secret-01", platform.base_url + prefix, scheme)
        driver = kind(access, http, now=lambda: NOW)
        try:
            yield platform, driver
        finally:
            await asyncio.wait_for(driver.close(), 5)

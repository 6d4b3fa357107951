"""A running emulator with one application, and the driver's calls to it with a pair that is always the same."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp

from broker.emulator.server import serve
from broker.emulator.settings import EmulatorSettings
from broker.platform.huawei.app import AppAccess, HuaweiApp
from broker.platform.huawei.axb import HuaweiAxb
from broker.platform.huawei.http import HttpOptions
from broker.platform.huawei.origin import TlsOptions
from broker.platform.huawei.request import Scheme
from broker.platform.protocol import Answer, BindLine, Direction, ModifyLine
from tests.platform.driven import Driver

X, OTHER_X, NOT_OURS = "+8617000000101", "+8617000000102", "+8617000000999"
A, B, C, D = "+8613900000001", "+8613900000002", "+8613900000003", "+8613900000004"
KEY, SECRET = "ABCD1234", "bb-secret-01"


def yes() -> bool:
    """Permit."""
    return True


class Emulator:
    """A running emulator with one application, and its operator's side."""

    def __init__(self, wire: str, admin: str, http: aiohttp.ClientSession) -> None:
        self.wire = wire
        self._admin = admin
        self._http = http
        self._ahead_s = 0

    async def operate(self, method: str, path: str, body: object = None) -> Any:
        """Use the admin port."""
        async with self._http.request(method, f"{self._admin}/emulator/{path}", json=body) as answered:
            assert answered.status < 300, await answered.text()
            return await answered.json() if answered.status != 204 else None

    async def fault(self, **fault: object) -> None:
        """Put one fault in force for one request."""
        await self.operate("POST", "faults", {"count": 1, **fault})

    async def dial(self, caller: str, to: str, digits: str | None = None) -> Any:
        """Place a call and return whom it reached, what they saw, its release cause and its session."""
        return await self.operate("POST", "calls", {"from": caller, "to": to, "digits": digits})

    async def pass_by(self, seconds: int, driver: HuaweiApp) -> None:
        """Let time pass for the platform, and for the clock that the driver signs with."""
        await self.operate("POST", "clock", {"advance_s": seconds})
        self._ahead_s += seconds
        driver.set_clock_offset(self._ahead_s)

    def driver(
        self,
        *,
        secret: str = SECRET,
        key: str = KEY,
        scheme: Scheme = Scheme.AKSK,
        now: Callable[[], float] = time.time,
        http: HttpOptions | None = None,
        tls: TlsOptions | None = None,
    ) -> HuaweiAxb:
        """Return a driver for the application."""
        return HuaweiAxb(AppAccess(key, secret, self.wire, scheme, tls), http, now=now)


@asynccontextmanager
async def emulating(folder: Path, *, mode: str = "axb", **settings: Any) -> AsyncIterator[Emulator]:
    """Run an emulator in this loop with an application of this mode that has two numbers, in one city."""
    started: asyncio.Future[tuple[str, str]] = asyncio.get_running_loop().create_future()
    running = asyncio.create_task(
        serve(
            EmulatorSettings(state_dir=folder / "emulator", default_rate=None, **settings),
            ready=lambda *urls: started.set_result(urls),
            handle_signals=False,
        )
    )
    try:
        running.add_done_callback(lambda _: started.done() or started.cancel())
        await started
        async with aiohttp.ClientSession() as http:
            emulator = Emulator(*started.result(), http)
            await emulator.operate("PUT", f"apps/{KEY}", {"secret": SECRET, "mode": mode})
            numbers = [{"number": number, "area_code": "0755"} for number in (X, OTHER_X)]
            await emulator.operate("PUT", f"apps/{KEY}/numbers", numbers)
            yield emulator
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


@asynccontextmanager
async def closing(driver: Driver) -> AsyncIterator[Driver]:
    """Close the driver, and see that it ends."""
    try:
        yield driver
    finally:
        await asyncio.wait_for(driver.close(), 5)


@asynccontextmanager
async def emulating_to(
    kind: type[Driver], mode: str, folder: Path, **settings: Any
) -> AsyncIterator[tuple[Emulator, Driver]]:
    """Run an emulator with an application of this mode, and a driver for it."""
    async with (
        emulating(folder, mode=mode, **settings) as emulator,
        closing(kind(AppAccess(KEY, SECRET, emulator.wire))) as driver,
    ):
        yield emulator, driver


async def bind(driver: HuaweiAxb, x: str = X, a: str = A, b: str = B, ttl_s: int = 86400) -> Answer:
    """Bind a pair."""
    return await driver.bind(BindLine(x, a, b, Direction.A_TO_B, ttl_s, f"{a[-1]}.1"), permit=yes, timeout_s=5)


async def modify(driver: HuaweiAxb, subscription_id: str, **change: Any) -> Answer:
    """Change one."""
    return await driver.modify(ModifyLine(subscription_id, "1.2", **change), permit=yes, timeout_s=5)


async def unbind(driver: HuaweiAxb, subscription_id: str) -> Answer:
    """Unbind one."""
    return await driver.unbind(subscription_id, permit=yes, timeout_s=5)

"""The customer's side of a call in X mode, asked over HTTP: the ``callin`` push in Block mode (contract 6.1-6.3)."""

from __future__ import annotations

import uuid
from http import HTTPStatus
from typing import Any, Final

import aiohttp
import orjson
import structlog

from broker.emulator.registry import AppConfig
from broker.emulator.times import EmulatorClock, rfc3339
from broker.platform.huawei.sign import aksk_digest

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_REPLY_CAP: Final = 64 * 1024
_AT_ONCE: Final = 100


class Customer:
    """Asks the addresses of apps. Each question is asked once: ``callin`` is never sent again."""

    def __init__(self, clock: EmulatorClock, timeout_s: float) -> None:
        self._clock = clock
        self._http = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=timeout_s), connector=aiohttp.TCPConnector(limit=_AT_ONCE)
        )

    async def close(self) -> None:
        """Give up what is being asked, and close the connections."""
        await self._http.close()

    async def ask(self, app: AppConfig, event: dict[str, Any]) -> object:
        """Return the reply's JSON; ``None`` when there is none in time, or none that is a 200 with JSON."""
        if app.events_url is None:
            return None
        try:
            async with self._http.post(
                app.events_url, data=orjson.dumps(event), headers=self._headers(app), allow_redirects=False
            ) as answer:
                body = await _read(answer) if answer.status == HTTPStatus.OK else b""
                parsed: object = orjson.loads(body)
        except (aiohttp.ClientError, TimeoutError, orjson.JSONDecodeError) as error:
            log.info("customer_reply_missing", app_key=app.app_key, error=type(error).__name__)
            return None
        return parsed

    def _headers(self, app: AppConfig) -> dict[str, str]:
        nonce, created = uuid.uuid4().hex, f"{rfc3339(self._clock.now_ms())[:19]}Z"
        digest = aksk_digest(app.secret, nonce, created)
        return {
            "Content-Type": "application/json;charset=UTF-8",
            "Authorization": 'AKSK realm="SDP",profile="UsernameToken",type="Appkey"',
            "X-AKSK": f'UsernameToken Username="{app.app_key}",PasswordDigest="{digest}",'
            f'Nonce="{nonce}",Created="{created}"',
        }


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    """Return the body; one over the cap is cut off, and is then no JSON."""
    body = bytearray()
    async for chunk in answer.content.iter_chunked(_REPLY_CAP):
        body += chunk
        if len(body) > _REPLY_CAP:
            break
    return bytes(body[:_REPLY_CAP])

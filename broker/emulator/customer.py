"""The customer's side, reached over HTTP: what is asked of it, and what it is told (contract 5.1, 6.1-6.3)."""

from __future__ import annotations

import uuid
from http import HTTPStatus
from typing import Final

import aiohttp
import orjson
import structlog

from broker.emulator.registry import AppConfig
from broker.emulator.times import EmulatorClock, rfc3339
from broker.platform.huawei.sign import aksk_digest, wsse_digest

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_REPLY_CAP: Final = 64 * 1024
_AT_ONCE: Final = 100


class Customer:
    """Sends to the addresses of apps, signed. It sends once; who wants more asks again."""

    def __init__(self, clock: EmulatorClock, timeout_s: float) -> None:
        self._clock = clock
        self._http = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=timeout_s), connector=aiohttp.TCPConnector(limit=_AT_ONCE)
        )

    async def close(self) -> None:
        """Give up what is being asked, and close the connections."""
        await self._http.close()

    async def ask(self, app: AppConfig, url: str, question: bytes) -> tuple[int | None, object]:
        """Return the answer's status and its JSON; ``None`` for what there is not in time, or not as a 200 with JSON.

        A question is asked once: neither ``callin`` nor a message waits for a second try.
        """
        status, body = await self.send(app, url, question)
        try:
            return status, orjson.loads(body) if status == HTTPStatus.OK else None
        except orjson.JSONDecodeError:
            log.info("customer_reply_missing", app_key=app.app_key, error="JSONDecodeError")
            return status, None

    async def send(self, app: AppConfig, url: str, body: bytes, *, secret: str = "") -> tuple[int | None, bytes]:
        """Post a body and return the answer's status, ``None`` without one, and its body up to a cap.

        ``secret`` signs in the place of the app's.
        """
        headers = self._headers(app, secret or app.secret)
        try:
            async with self._http.post(url, data=body, headers=headers, allow_redirects=False) as answer:
                return answer.status, await _read(answer)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            log.info("customer_reply_missing", app_key=app.app_key, error=type(error).__name__)
            return None, b""

    def _headers(self, app: AppConfig, secret: str) -> dict[str, str]:
        nonce, created = uuid.uuid4().hex, f"{rfc3339(self._clock.now_ms())[:19]}Z"
        digest = (wsse_digest if app.push_wsse else aksk_digest)(secret, nonce, created)
        scheme = "WSSE" if app.push_wsse else "AKSK"
        return {
            "Content-Type": "application/json;charset=UTF-8",
            "Authorization": f'{scheme} realm="SDP",profile="UsernameToken",type="Appkey"',
            f"X-{scheme}": f'UsernameToken Username="{app.app_key}",PasswordDigest="{digest}",'
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

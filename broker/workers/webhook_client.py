"""Posting to webhooks: to public addresses only, within a deadline, without following anything."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Final

import aiohttp

from broker import __version__
from broker.domain.webhook import Network, is_allowed, may_reach, signature

_MOST_ANSWER_BYTES: Final = 16 * 1024
_MOST_WAIT_S: Final = 3600.0
_USER_AGENT: Final = f"binding-broker/{__version__}"


class _Forbidden(OSError):
    """The address is none that webhooks may go to."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a receiver said: ``error`` None = accepted. ``wait_s``: it asks to be left alone so long."""

    error: str | None
    gone: bool = False
    wait_s: float | None = None


class WebhookClient:
    """One for a process. Connections are kept; no receiver's can keep another's from being made."""

    def __init__(self, *, timeout_s: float, allowed: Sequence[Network]) -> None:
        """``allowed`` are networks that may be reached beside public addresses, and without TLS."""
        self._allowed = allowed
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._sessions: dict[str, aiohttp.ClientSession] = {}

    async def close(self) -> None:
        """Close all connections."""
        for session in self._sessions.values():
            await session.close()

    async def post(self, url: str, secrets: Sequence[str], message_id: str, body: bytes) -> Answer:
        """Send one message, once."""
        now = int(time.time())
        headers = {
            "Content-Type": "application/cloudevents+json; charset=utf-8",
            "User-Agent": _USER_AGENT,
            "webhook-id": message_id,
            "webhook-timestamp": str(now),
            "webhook-signature": signature(secrets, message_id, now, body),
        }
        try:
            session = self._session(url.partition(":")[0])
            async with session.post(url, data=body, headers=headers, allow_redirects=False) as response:
                # What it says is nobody's business; read so that the connection can be used again.
                rest = await response.content.read(_MOST_ANSWER_BYTES)
                if len(rest) == _MOST_ANSWER_BYTES:
                    response.close()
                return _judged(response.status, response.headers.get("Retry-After"))
        except TimeoutError:
            return Answer("no answer in time")
        except aiohttp.InvalidURL:
            return Answer("the address cannot be read")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Answer(_words(error))

    def _session(self, scheme: str) -> aiohttp.ClientSession:
        if scheme not in self._sessions:
            connector = aiohttp.TCPConnector(
                # Whoever sends has a bound of its own; one by host would have endpoints of one host wait for another.
                limit=0,
                limit_per_host=0,
                ttl_dns_cache=30,
                socket_factory=self._guarded if scheme == "https" else self._guarded_plain,
            )
            self._sessions[scheme] = aiohttp.ClientSession(
                connector=connector, timeout=self._timeout, trust_env=False, cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            )  # fmt: skip
        return self._sessions[scheme]

    def _guarded(self, info: Any) -> socket.socket:
        """Make the socket for an address, the very one that is connected to next."""
        if not may_reach(info[4][0], self._allowed):
            raise _Forbidden("address not allowed")
        return _socket(info)

    def _guarded_plain(self, info: Any) -> socket.socket:
        if not is_allowed(info[4][0], self._allowed):
            raise _Forbidden("address not allowed without TLS")
        return _socket(info)


def _socket(info: Any) -> socket.socket:
    made = socket.socket(info[0], info[1], info[2])
    made.setblocking(False)  # noqa: FBT003 - its own interface
    return made


def _judged(status: int, retry_after: str | None) -> Answer:
    if 200 <= status < 300:  # noqa: PLR2004 - success
        return Answer(None)
    wait_s = _wait(retry_after) if status in {429, 503} else None
    if status == 429 and wait_s is None:  # noqa: PLR2004 - too many requests
        wait_s = 5.0
    return Answer(f"HTTP {status}", gone=status == 410, wait_s=wait_s)  # noqa: PLR2004 - gone


def _wait(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        wait_s = (
            float(text) if text.isascii() and text.isdigit() else parsedate_to_datetime(text).timestamp() - time.time()
        )
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(wait_s, 0.0), _MOST_WAIT_S)


def _words(error: Exception) -> str:
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__ or getattr(causes[-1], "os_error", None)) and len(causes) < 5:  # noqa: PLR2004 - deep enough
        causes.append(cause)
    for one in causes:
        if isinstance(one, _Forbidden):
            return str(one)
        if isinstance(one, ssl.SSLError | aiohttp.ClientSSLError):
            return "TLS failed"
        if isinstance(one, aiohttp.ClientConnectorDNSError):
            return "the host has no address"
        if isinstance(one, ConnectionRefusedError):
            return "connection refused"
        if isinstance(one, asyncio.CancelledError):
            break
    return f"connection failed: {type(error).__name__}"

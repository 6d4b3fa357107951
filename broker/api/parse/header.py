"""Headers, and the body as it arrives."""

from __future__ import annotations

import asyncio
import re

from aiohttp import web

from broker.api.request import Request
from broker.errors import FieldError, Invalid, TooLarge, TooSlow, UnsupportedMedia

#: A body that takes longer than this to arrive is not waited for.
BODY_S = 10.0
_SHORTEST_S = 0.1
_TIMEOUT = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,17})?")
_IDEMPOTENCY_KEY = re.compile(r'"[\x20-\x21\x23-\x5b\x5d-\x7e]{1,255}"|[\x21\x23-\x2b\x2d-\x5b\x5d-\x7e]{1,255}')


def if_match(request: web.Request) -> frozenset[str] | None:
    """Return the entity tags of ``If-Match``; None = no condition."""
    text = ",".join(request.headers.getall("If-Match", []))
    tags = frozenset(tag.strip() for tag in text.split(",") if tag.strip())
    return None if not tags or "*" in tags else tags


async def body_of(request: web.Request, limit: int) -> bytes:
    """Read the body, at most ``limit`` bytes.

    Raises:
        TooLarge, UnsupportedMedia: before anything is read, if the headers tell.
        TooSlow: if it takes longer than ``BODY_S`` seconds.
    """
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in {"", "identity"}:
        raise UnsupportedMedia("Compressed bodies are not accepted.", code="compressed_body")
    if request.content_length is not None and request.content_length > limit:
        raise TooLarge(f"The body may have at most {limit} bytes.")
    if not request.body_exists:
        return b""
    if request.content.is_eof():
        # All of it is here: there is nothing to wait for, and so no timer to set.
        return _checked(request.content.read_nowait(), limit)
    try:
        async with asyncio.timeout(BODY_S):
            return await _read(request, limit)
    except TimeoutError:
        raise TooSlow(f"The body did not arrive within {BODY_S:g} s.") from None


def _checked(body: bytes, limit: int) -> bytes:
    if len(body) > limit:
        raise TooLarge(f"The body may have at most {limit} bytes.")
    return body


async def _read(request: web.Request, limit: int) -> bytes:
    # aiohttp's own limit is one for the whole application, so it is the largest of all routes and this one counts.
    parts: list[bytes] = []
    length = 0
    async for part in request.content.iter_any():
        length += len(part)
        if length > limit:
            raise TooLarge(f"The body may have at most {limit} bytes.")
        parts.append(part)
    return b"".join(parts)


def deadline_s(request: Request, *, default: float, longest: float) -> float:
    """Return how long the answer may take, from ``Request-Timeout`` (seconds).

    Raises:
        Invalid: if the header is no number from 0.1 to ``longest``.
    """
    text = request.headers.get("Request-Timeout")
    if text is None:
        return default
    seconds = seconds_of(text, longest)
    if seconds is None:
        raise Invalid(
            "A header is wrong; see errors.",
            errors=(FieldError("header:Request-Timeout", f"must be seconds from 0.1 to {longest:g}"),),
        )
    return seconds


def seconds_of(text: str, longest: float) -> float | None:
    """Return the seconds that ``Request-Timeout`` names; None = it is no number from 0.1 to ``longest``."""
    if _TIMEOUT.fullmatch(text.strip()) is None:
        return None
    return seconds if _SHORTEST_S <= (seconds := float(text)) <= longest else None


def respond_async(request: Request) -> bool:
    """Tell whether the request has ``Prefer: respond-async``."""
    if "Prefer" not in request.headers:
        return False
    wishes = ",".join(request.headers.getall("Prefer")).split(",")
    return any(wish.split(";")[0].strip().lower() == "respond-async" for wish in wishes)


def idempotency_key(request: Request) -> str | None:
    """Return the key; its quoted and bare forms are the same.

    Raises:
        Invalid: if it is empty, over 255 characters or not printable ASCII.
    """
    text = request.headers.get("Idempotency-Key")
    if text is None:
        return None
    text = text.strip()
    if _IDEMPOTENCY_KEY.fullmatch(text) is None:
        raise Invalid(
            "A header is wrong; see errors.",
            errors=(FieldError("header:Idempotency-Key", "must be 1 to 255 printable ASCII characters"),),
        )
    return text[1:-1] if text.startswith('"') else text

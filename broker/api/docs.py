"""``/docs``: the API as a page, from files of this package; nothing is fetched from anywhere else."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from functools import cache
from pathlib import Path

from aiohttp import web

from broker.errors import NotFound

_STATIC = Path(__file__).parent / "static"
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
#: What the page loads: where it is kept, and what it is.
ASSETS: dict[str, tuple[Path, str]] = {
    "docs.js": (_STATIC / "docs.js", "text/javascript"),
    "swagger-ui-bundle.js": (_STATIC / "swagger-ui" / "swagger-ui-bundle.js", "text/javascript"),
    "swagger-ui.css": (_STATIC / "swagger-ui" / "swagger-ui.css", "text/css"),
}


async def page(request: web.Request) -> web.Response:
    """``GET /docs``."""
    return await _file(request, _STATIC / "docs.html", "text/html")


async def asset(request: web.Request) -> web.Response:
    """``GET /docs/{file}``."""
    found = ASSETS.get(request.match_info["file"])
    if found is None:
        raise NotFound("There is nothing at this path.")
    return await _file(request, *found)


async def _file(request: web.Request, path: Path, content_type: str) -> web.Response:
    plain, packed, etag = await asyncio.to_thread(_read, path)
    return cached(request, plain, packed=packed, etag=etag, content_type=content_type)


def cached(
    request: web.Request,
    plain: bytes,
    *,
    packed: bytes,
    etag: str,
    content_type: str,
    charset: str | None = "utf-8",
) -> web.Response:
    """Return what changes only with the version: 304 for those who have it, packed for those who take that."""
    headers = {
        "ETag": f'W/"{etag}"',
        "Cache-Control": "no-cache",
        "Vary": "Accept-Encoding",
        "Content-Security-Policy": _POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }
    known = request.if_none_match or ()
    if any(one.value in {etag, "*"} for one in known):
        return web.Response(status=304, headers=headers)
    if "gzip" in request.headers.get("Accept-Encoding", ""):
        headers["Content-Encoding"] = "gzip"
        plain = packed
    return web.Response(body=plain, headers=headers, content_type=content_type, charset=charset)


def packed_once(plain: bytes) -> tuple[bytes, str]:
    """Return it compressed, without a time in it, and its tag."""
    return gzip.compress(plain, 6, mtime=0), hashlib.sha256(plain).hexdigest()[:32]


@cache
def _read(path: Path) -> tuple[bytes, bytes, str]:
    plain = path.read_bytes()
    return plain, *packed_once(plain)

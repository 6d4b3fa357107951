"""Who calls: API keys."""

from __future__ import annotations

import secrets
import string
import zlib

from broker.api.request import Request
from broker.errors import Forbidden, Unauthorized
from broker.store.registry import Key, Registry

_ALPHABET = string.ascii_letters + string.digits
_PREFIX = "bbk_"
_SECRET_CHARS = 32
_CHECK_CHARS = 6


def new_key() -> str:
    """Return a new API key: a prefix and a checksum by which scanners know it, 190 random bits between."""
    body = "".join(secrets.choice(_ALPHABET) for _ in range(_SECRET_CHARS))
    return _PREFIX + body + _check(body)


def authorize(request: Request, registry: Registry, scope: str) -> Key:
    """Return whose key the request carries.

    Raises:
        Unauthorized: no key, a malformed one, or one we do not know: all refused alike.
        Forbidden: the key may not do this.
    """
    scheme, _, presented = request.headers.get("Authorization", "").partition(" ")
    key = registry.key(presented.strip()) if scheme.lower() == "bearer" else None
    if key is None:
        raise Unauthorized("Send a valid API key as 'Authorization: Bearer bbk_...'.")
    if scope not in key.scopes:
        raise Forbidden(f"This key lacks the scope '{scope}'.")
    return key


def _check(body: str) -> str:
    number = zlib.crc32(body.encode())
    digits = ""
    for _ in range(_CHECK_CHARS):
        number, digit = divmod(number, len(_ALPHABET))
        digits += _ALPHABET[digit]
    return digits

"""Row ids and their public form.

A row id is a UUID of version 7, made by the process before the insert so that it can be authenticated data of the
row's encryption. A public id is ``bnd_`` and 32 characters that hold the row id and its pool: it sorts by time, and
finds its row without a look-up table.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import time
from uuid import UUID

_PUBLIC = re.compile(r"bnd_[0-9a-v]{32}")


def new_id() -> UUID:
    """Return a new UUID v7: 48 bits of milliseconds, 74 random bits."""
    high = (time.time_ns() // 1_000_000) << 80
    low = int.from_bytes(os.urandom(10), "big")
    return UUID(int=(high | low) & ~(0xF << 76) & ~(0x3 << 62) | (0x7 << 76) | (0x2 << 62))


def public_id(pool_id: int, row_id: UUID) -> str:
    """Return the public form of a binding's key."""
    packed = row_id.bytes + pool_id.to_bytes(4, "big")
    return "bnd_" + base64.b32hexencode(packed).decode("ascii").lower()


def parse_public_id(text: str) -> tuple[int, UUID] | None:
    """Return (pool_id, row id), or ``None`` if ``text`` is no public id."""
    if _PUBLIC.fullmatch(text) is None:
        return None
    try:
        packed = base64.b32hexdecode(text[4:].upper())
    except binascii.Error:  # pragma: no cover - the pattern admits only decodable text
        return None
    pool_id = int.from_bytes(packed[16:], "big")
    return (pool_id, UUID(bytes=packed[:16])) if pool_id < 2**31 else None

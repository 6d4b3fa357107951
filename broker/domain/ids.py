"""Row ids and their public form.

A row id is a UUID of version 7, made by the process before the insert so that it can be authenticated data of the
row's encryption. A public id is ``bnd_`` (of a peer ``per_``) and 32 characters that hold the row id and its pool: it
sorts by time, and finds its row without a look-up table. What the platform tells of has ``cal_``, ``cdr_`` or ``sms_``
and no pool.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import time
from datetime import UTC, datetime, timedelta
from uuid import UUID

_PUBLIC = re.compile(r"(?:bnd|per|cal|cdr|sms)_[0-9a-v]{32}")
_DIGITS = "0123456789abcdefghijklmnopqrstuv"
_PAIRS = [high + low for high in _DIGITS for low in _DIGITS]

_RANDOM_BYTES = 10
_RANDOM_MASK = ~(0xF << 76) & ~(0x3 << 62)
_MARKS = (0x7 << 76) | (0x2 << 62)  # version 7, RFC 9562's variant
_random: list[bytes] = []
os.register_at_fork(after_in_child=_random.clear)


def new_id() -> UUID:
    """Return a new UUID v7: 48 bits of milliseconds, 74 random bits."""
    if not _random:
        # In blocks: a system call for each id would be the larger half of its cost.
        block = os.urandom(_RANDOM_BYTES * 256)
        _random.extend(block[at : at + _RANDOM_BYTES] for at in range(0, len(block), _RANDOM_BYTES))
    high = (time.time_ns() // 1_000_000) << 80
    return UUID(int=(high | int.from_bytes(_random.pop(), "big")) & _RANDOM_MASK | _MARKS)


def dated_id(at: datetime, digest: bytes) -> UUID:
    """Return the id, shaped as a new one, of what happened at that millisecond and has this digest of 10 bytes."""
    high = ((at - datetime.fromtimestamp(0, UTC)) // timedelta(milliseconds=1)) << 80
    return UUID(int=(high | int.from_bytes(digest[:_RANDOM_BYTES], "big")) & _RANDOM_MASK | _MARKS)


def local_subscription(line_id: UUID) -> str:
    """Return what stands for the platform's id of a line that no platform knows (mode X)."""
    return f"local-{line_id.hex}"


def date_of(row_id: UUID) -> datetime:
    """Return the millisecond that an id holds."""
    return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=row_id.int >> 80)


def public_id(pool_id: int, row_id: UUID, prefix: str = "bnd_") -> str:
    """Return the public form of the key of a binding, or of what has another ``prefix``."""
    # Four groups of 40 bits in pairs of digits: a third of what base64.b32hexencode() and lower() take.
    number = row_id.int << 32 | pool_id
    text = prefix
    for shift in (120, 80, 40, 0):
        group = number >> shift & 0xFFFFFFFFFF
        text += _PAIRS[group >> 30] + _PAIRS[group >> 20 & 1023] + _PAIRS[group >> 10 & 1023] + _PAIRS[group & 1023]
    return text


def parse_public_id(text: str, prefix: str = "bnd_") -> tuple[int, UUID] | None:
    """Return (pool_id, row id), or ``None`` if ``text`` is no public id with this prefix."""
    if _PUBLIC.fullmatch(text) is None or not text.startswith(prefix):
        return None
    try:
        packed = base64.b32hexdecode(text[4:].upper())
    except binascii.Error:  # pragma: no cover - the pattern admits only decodable text
        return None
    pool_id = int.from_bytes(packed[16:], "big")
    return (pool_id, UUID(bytes=packed[:16])) if pool_id < 2**31 else None

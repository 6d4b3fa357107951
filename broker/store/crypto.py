"""Encryption and blind indexes of phone numbers and secrets.

Numbers are sealed with AES-256-GCM-SIV; the associated data is table, column, pool and row id, so a sealed value copied
into another row does not open. They are found by a keyed 64-bit hash under another key.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from dataclasses import dataclass
from functools import lru_cache
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV

_KEY_BYTES = 32
_NONCE_BYTES = 12
_nonces: list[bytes] = []
os.register_at_fork(after_in_child=_nonces.clear)


class KeyringError(ValueError):
    """A key setting is malformed; the message never holds key material."""


class SealBroken(Exception):
    """A sealed value does not open: wrong key, or it was moved or changed."""


@dataclass(frozen=True, slots=True)
class DataKey:
    """One encryption key; ``number`` (1-255) is stored in front of what it sealed."""

    number: int
    key: bytes


def parse_data_keys(text: str) -> tuple[DataKey, ...]:
    """Read ``NUMBER:BASE64[,NUMBER:BASE64...]``; the first one seals, all open.

    Raises:
        KeyringError: naming what is wrong with which entry.
    """
    keys: list[DataKey] = []
    for place, entry in enumerate(text.split(","), start=1):
        number, colon, encoded = entry.strip().partition(":")
        if not colon or not (number.isascii() and number.isdigit()) or not 1 <= int(number) <= 255:  # noqa: PLR2004 - one byte
            raise KeyringError(f"entry {place} is not NUMBER:BASE64 with a number from 1 to 255")
        keys.append(DataKey(int(number), _decode_key(encoded, f"entry {place}")))
    if len({key.number for key in keys}) != len(keys):
        raise KeyringError("two entries have the same number")
    return tuple(keys)


def parse_index_key(text: str) -> bytes:
    """Read the base64 key of the blind index.

    Raises:
        KeyringError: if it is not 32 bytes of base64.
    """
    return _decode_key(text.strip(), "the key")


def _decode_key(encoded: str, what: str) -> bytes:
    try:
        key = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        raise KeyringError(f"{what} is not base64") from None
    if len(key) != _KEY_BYTES:
        raise KeyringError(f"{what} has {len(key)} bytes, not {_KEY_BYTES}")
    return key


class Vault:
    """Seals, opens and indexes. Cheap: about 2 µs each."""

    def __init__(self, data_keys: tuple[DataKey, ...], index_key: bytes) -> None:
        """Take the keys; the first data key seals."""
        self._first = data_keys[0].number.to_bytes(1, "big")
        self._ciphers = {key.number: AESGCMSIV(key.key) for key in data_keys}
        self._seal = self._ciphers[data_keys[0].number]
        self._party = hashlib.blake2b(key=index_key, digest_size=8, person=b"party")
        self._request_key = hashlib.blake2b(key=index_key, digest_size=32, person=b"request").digest()

    def seal(self, table: str, column: str, pool_id: int, row_id: UUID | str, plain: str) -> bytes:
        """Return key number, nonce and ciphertext."""
        nonce = _new_nonce()
        return self._first + nonce + self._seal.encrypt(nonce, plain.encode(), _place(table, column, pool_id, row_id))

    def open(self, table: str, column: str, pool_id: int, row_id: UUID | str, sealed: bytes) -> str:
        """Return what was sealed at that place.

        Raises:
            SealBroken: if the key is gone or the value belongs elsewhere.
        """
        cipher = self._ciphers.get(sealed[0]) if sealed else None
        if cipher is None:
            raise SealBroken(f"no data key with the number in {table}.{column}")
        nonce, body = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        try:
            return cipher.decrypt(nonce, body, _place(table, column, pool_id, row_id)).decode()
        except (InvalidTag, ValueError):
            raise SealBroken(f"a sealed value of {table}.{column} does not open") from None

    def party_key(self, e164: str) -> int:
        """Return the signed 64-bit blind index of a number."""
        digest = self._party.copy()
        digest.update(e164.encode())
        return int.from_bytes(digest.digest(), "big", signed=True)

    def request_hash(self, *parts: bytes) -> bytes:
        """Return a keyed hash over ``parts``, each with its length."""
        mac = hmac.new(self._request_key, digestmod="sha256")
        for part in parts:
            mac.update(len(part).to_bytes(8, "big"))
            mac.update(part)
        return mac.digest()


def _new_nonce() -> bytes:
    if not _nonces:
        # In blocks: a system call for each would be a quarter of what sealing costs.
        block = os.urandom(_NONCE_BYTES * 256)
        _nonces.extend(block[at : at + _NONCE_BYTES] for at in range(0, len(block), _NONCE_BYTES))
    return _nonces.pop()


def _place(table: str, column: str, pool_id: int, row_id: UUID | str) -> bytes:
    return _column(table, column, pool_id) + (row_id.bytes if isinstance(row_id, UUID) else row_id.encode())


@lru_cache(maxsize=4096)
def _column(table: str, column: str, pool_id: int) -> bytes:
    return b"%s|%s|%d|" % (table.encode(), column.encode(), pool_id)

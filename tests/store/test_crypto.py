from __future__ import annotations

import base64
import os
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.store.crypto import DataKey, KeyringError, SealBroken, Vault, parse_data_keys, parse_index_key

_OLD, _NEW = DataKey(1, b"\x01" * 32), DataKey(2, b"\x02" * 32)
_INDEX = b"\x09" * 32
_VAULT = Vault((_OLD,), _INDEX)
_ROW, _OTHER_ROW = UUID(int=1), UUID(int=2)
_NUMBER = "+8613900000001"


@given(st.text(max_size=40), st.integers(0, 2**31 - 1), st.uuids())
def test_what_is_sealed_opens_at_its_place(plain: str, pool_id: int, row_id: UUID) -> None:
    """A sealed value opens where it was sealed, and does not show its text."""
    sealed = _VAULT.seal("line", "a", pool_id, row_id, plain)
    assert _VAULT.open("line", "a", pool_id, row_id, sealed) == plain
    assert len(plain) < 4 or plain.encode() not in sealed


@pytest.mark.parametrize(
    "place",
    [
        ("line", "b", 7, _ROW),
        ("binding", "a", 7, _ROW),
        ("line", "a", 8, _ROW),
        ("line", "a", 7, _OTHER_ROW),
        ("line", "a", 7, "text"),
    ],
)
def test_a_moved_ciphertext_does_not_open(place: tuple[str, str, int, UUID | str]) -> None:
    """Copied to another table, column, pool or row, a sealed value does not open."""
    sealed = _VAULT.seal("line", "a", 7, _ROW, _NUMBER)
    with pytest.raises(SealBroken, match="does not open"):
        _VAULT.open(*place, sealed)


@given(st.integers(0, 200), st.integers(1, 255))
def test_a_changed_ciphertext_does_not_open(place: int, change: int) -> None:
    """Any changed byte is noticed; the message has no number in it."""
    sealed = bytearray(_VAULT.seal("line", "a", 7, _ROW, _NUMBER))
    sealed[place % len(sealed)] ^= change
    with pytest.raises(SealBroken) as broken:
        _VAULT.open("line", "a", 7, _ROW, bytes(sealed))
    assert _NUMBER not in str(broken.value)


@pytest.mark.parametrize("length", [0, 1, 12, 13, 20])
def test_a_cut_ciphertext_does_not_open(length: int) -> None:
    """Nothing, a bare key number, or a piece of a sealed value: SealBroken, not an accident."""
    with pytest.raises(SealBroken):
        _VAULT.open("line", "a", 7, _ROW, _VAULT.seal("line", "a", 7, _ROW, _NUMBER)[:length])


def test_keys_rotate() -> None:
    """The first key seals, all open: old values open during a rotation, and not once their key is gone."""
    old = _VAULT.seal("line", "a", 7, _ROW, _NUMBER)
    both = Vault((_NEW, _OLD), _INDEX)
    new = both.seal("line", "a", 7, _ROW, _NUMBER)
    assert (old[0], new[0]) == (1, 2)
    assert both.open("line", "a", 7, _ROW, old) == both.open("line", "a", 7, _ROW, new) == _NUMBER
    with pytest.raises(SealBroken, match=r"no data key with the number in line\.a"):
        _VAULT.open("line", "a", 7, _ROW, new)
    with pytest.raises(SealBroken, match="no data key"):
        Vault((_NEW,), _INDEX).open("line", "a", 7, _ROW, old)
    assert both.party_key(_NUMBER) == _VAULT.party_key(_NUMBER)


def test_sealing_twice_gives_different_ciphertexts() -> None:
    """Equal numbers cannot be told by their sealed values."""
    assert _VAULT.seal("line", "a", 7, _ROW, _NUMBER) != _VAULT.seal("line", "a", 7, _ROW, _NUMBER)


def test_a_party_key_is_a_signed_64_bit_hash_under_its_key() -> None:
    """The blind index repeats itself, fits a bigint, takes both signs, and depends on the number and on the key."""
    keys = [_VAULT.party_key(f"+86139{n:08d}") for n in range(1000)]
    assert keys == [_VAULT.party_key(f"+86139{n:08d}") for n in range(1000)]
    assert len(set(keys)) == len(keys)
    assert all(-(2**63) <= key < 2**63 for key in keys)
    assert min(keys) < 0 < max(keys)
    assert Vault((_OLD,), b"\x08" * 32).party_key(_NUMBER) != _VAULT.party_key(_NUMBER)


def test_a_request_hash_keeps_its_parts_apart() -> None:
    """Parts are hashed with their lengths: moving a border changes the hash."""
    assert _VAULT.request_hash(b"ab", b"c") != _VAULT.request_hash(b"a", b"bc")
    assert _VAULT.request_hash(b"ab", b"c") == _VAULT.request_hash(b"ab", b"c")
    assert _VAULT.request_hash(b"ab") != _VAULT.request_hash(b"ab", b"")


def _encoded(size: int = 32) -> str:
    return base64.b64encode(os.urandom(size)).decode()


def test_a_keyring_is_read_in_order() -> None:
    """Several keys, with blanks around entries; the first is the one that seals."""
    keys = parse_data_keys(f"7:{_encoded()}, 255:{_encoded()}")
    assert [key.number for key in keys] == [7, 255]
    assert Vault(keys, parse_index_key(f" {_encoded()}\n")).seal("t", "c", 1, "r", "x")[0] == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "entry 1 is not NUMBER:BASE64"),
        (_encoded(), "entry 1 is not NUMBER:BASE64"),
        (f"0:{_encoded()}", "a number from 1 to 255"),
        (f"256:{_encoded()}", "a number from 1 to 255"),
        (f"-1:{_encoded()}", "a number from 1 to 255"),
        (f"\u0661:{_encoded()}", "a number from 1 to 255"),
        (f"1:{_encoded()},", "entry 2 is not NUMBER:BASE64"),
        (f"1:{_encoded()},2:???", "entry 2 is not base64"),
        (f"1:{_encoded(16)}", "entry 1 has 16 bytes, not 32"),
        (f"1:{_encoded()},1:{_encoded()}", "two entries have the same number"),
    ],
    ids=[f"case{number}" for number in range(10)],
)
def test_a_bad_keyring_is_named_without_its_keys(text: str, message: str) -> None:
    """The message says which entry is wrong and how, and holds no key material."""
    with pytest.raises(KeyringError) as refused:
        parse_data_keys(text)
    assert message in str(refused.value)
    for entry in text.split(","):
        encoded = entry.partition(":")[2] or entry
        assert not encoded or encoded not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "message"), [("%%%", "the key is not base64"), (_encoded(31), "has 31 bytes")], ids=["no base64", "short"]
)
def test_a_bad_index_key_is_refused(text: str, message: str) -> None:
    """The index key is 32 bytes of base64."""
    with pytest.raises(KeyringError, match=message):
        parse_index_key(text)

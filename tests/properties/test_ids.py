from __future__ import annotations

import time
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.domain.ids import new_id, parse_public_id, public_id

_POOLS = st.integers(0, 2**31 - 1)


@given(_POOLS, st.uuids())
def test_a_public_id_comes_back(pool_id: int, row_id: UUID) -> None:
    """The public form holds pool and row id, in 36 lower-case characters."""
    text = public_id(pool_id, row_id)
    assert len(text) == 36
    assert text == text.lower()
    assert parse_public_id(text) == (pool_id, row_id)


@given(_POOLS, st.uuids(), st.uuids())
def test_public_ids_sort_as_row_ids(pool_id: int, one: UUID, other: UUID) -> None:
    """The text sorts as the row ids do, and those begin with their time."""
    assert (public_id(pool_id, one) < public_id(pool_id, other)) == (one < other)


def test_new_ids_are_version_7_and_carry_the_time() -> None:
    """A new id is a UUID v7 of this millisecond; ids of different milliseconds sort by time; no two are equal."""
    before = time.time_ns() // 1_000_000
    made = [new_id() for _ in range(2000)]
    after = time.time_ns() // 1_000_000
    assert len(set(made)) == len(made)
    for row_id in made:
        assert row_id.version == 7
        assert row_id.variant == "specified in RFC 4122"
        assert before <= row_id.int >> 80 <= after
    times = [row_id.int >> 80 for row_id in made]
    assert times == sorted(times)


@given(st.text(max_size=40))
def test_any_other_text_is_no_public_id(text: str) -> None:
    """Arbitrary text does not parse unless it is the canonical form of what it parses to."""
    parsed = parse_public_id(text)
    assert parsed is None or public_id(*parsed) == text


_GOOD = public_id(7, UUID(int=0x0190_0000_0000_7000_8000_0000_0000_0001))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "bnd_",
        _GOOD[4:],
        _GOOD + "\n",
        " " + _GOOD,
        _GOOD.upper(),
        _GOOD[:-1],
        _GOOD + "0",
        "bnd_" + "z" * 32,
        "lin_" + _GOOD[4:],
        _GOOD[:-1] + "\u0660",
        public_id(2**31, UUID(int=1)),
    ],
)
def test_malformed_public_ids_are_refused(text: str) -> None:
    """Wrong prefix, length, alphabet, case, a trailing newline or an impossible pool: no id."""
    assert parse_public_id(text) is None

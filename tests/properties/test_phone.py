from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.domain.phone import FORM, PhoneNumber, is_e164, mask

_DIGITS = "0123456789"
_NUMBERS = st.builds("+{}{}".format, st.sampled_from(_DIGITS[1:]), st.text(alphabet=_DIGITS, min_size=6, max_size=14))


def _slow(text: str) -> bool:
    return (
        len(text) > 1
        and text[0] == "+"
        and all(sign in _DIGITS for sign in text[1:])
        and text[1] != "0"
        and 7 <= len(text) - 1 <= 15
    )


@given(_NUMBERS)
def test_a_number_keeps_its_digits_and_never_prints_them(number: str) -> None:
    """reveal() gives the number back; str, repr and format show its head and its last four digits only."""
    phone = PhoneNumber(number)
    assert phone.reveal() == number
    for shown in (str(phone), repr(phone), f"{phone}"):
        assert shown == mask(number)
        assert "*" in shown
        assert number not in shown
        assert re.fullmatch(r"[+][0-9]{2}[*]+[0-9]{4}", shown)


@given(st.text(alphabet=[*_DIGITS, "+", " ", "-", "\n", "\u0663", "\uff11", "\u00b2"], max_size=18) | _NUMBERS)
def test_e164_is_judged_sign_by_sign(text: str) -> None:
    """Only '+' and 7 to 15 ASCII digits that do not begin with 0 pass."""
    assert is_e164(text) == _slow(text)


@given(_NUMBERS, _NUMBERS)
def test_numbers_are_equal_by_their_digits(one: str, other: str) -> None:
    """Equality and hash follow the number."""
    assert (PhoneNumber(one) == PhoneNumber(other)) == (one == other)
    assert hash(PhoneNumber(one)) == hash(PhoneNumber(one))
    assert PhoneNumber(one) != one


@pytest.mark.parametrize(
    "text",
    [
        "+8613900000001\n",
        "\n+8613900000001",
        " +8613900000001",
        "+8613900000001 ",
        "+861390000000\u0661",
        "+\uff18\uff16\uff11\uff13\uff19\uff10\uff10\uff10\uff10\uff10\uff10\uff10\uff11",
        "13900000001",
        "013900000001",
        "008613900000001",
        "+0086139000000",
        "+86 139 0000 0001",
        "+86-13900000001",
        "++8613900000001",
        "+861390000000123456",
        "+123456",
        "+",
        "",
        "tel:+8613900000001",
        "+8613900000001\x00",
    ],
)
def test_what_is_not_e164_is_refused_without_being_repeated(text: str) -> None:
    """National, 00-prefixed, spaced, non-ASCII and newline-ended numbers are refused; the message has the form only."""
    with pytest.raises(ValueError, match="must be E") as refused:
        PhoneNumber(text)
    assert str(refused.value) == FORM

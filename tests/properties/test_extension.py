"""Extensions: their writing, and the set in which a slip of the finger reaches nobody."""

from __future__ import annotations

from itertools import pairwise

import pytest

from broker.domain.extension import codes, is_safe, text_of


def _slips(code: str) -> set[str]:
    """Everything that one wrong digit, or two exchanged neighbours, makes of a code."""
    wrong = {code[:at] + digit + code[at + 1 :] for at in range(len(code)) for digit in "0123456789"}
    swapped = {code[:at] + after + before + code[at + 2 :] for at, (before, after) in enumerate(pairwise(code))}
    return (wrong | swapped) - {code}


@pytest.mark.parametrize("digits", [1, 2, 3, 4])
def test_a_slip_in_a_safe_code_reaches_nobody(digits: int) -> None:
    """No wrong digit and no exchange of neighbours makes another safe code of one; and none is all zeros."""
    safe = {text_of(code, digits) for code in codes(digits, 9999, typo_safe=True)}
    assert not [code for code in safe if _slips(code) & safe]
    assert "0" * digits not in safe
    assert all(len(code) == digits for code in safe)


@pytest.mark.parametrize("digits", [1, 2, 3, 4])
def test_no_safe_set_is_larger(digits: int) -> None:
    """It has 10^(n-1) codes: one for each beginning, and two codes with the same beginning differ in one digit."""
    safe = codes(digits, 9999, typo_safe=True)
    assert len(safe) == 10 ** (digits - 1)
    assert len({text_of(code, digits)[:-1] for code in safe}) == len(safe)


@pytest.mark.parametrize("digits", [1, 2, 3, 4])
def test_codes_that_are_given_out(digits: int) -> None:
    """Every code but the zeros, each once, the safe ones first; no more than the limit."""
    every = codes(digits, 9999, typo_safe=False)
    assert sorted(every) == list(range(1, 10**digits))
    safe = codes(digits, 9999, typo_safe=True)
    assert every[: len(safe)] == safe
    assert not any(is_safe(code, digits) for code in every[len(safe) :])
    assert codes(digits, 5, typo_safe=False) == every[:5]
    assert codes(digits, 3, typo_safe=True) == safe[:3]


@pytest.mark.parametrize("digits", [1, 2, 3, 4])
def test_what_is_written_is_read(digits: int) -> None:
    """Every extension is written with the app's number of digits."""
    assert all((len(text_of(code, digits)), int(text_of(code, digits))) == (digits, code) for code in range(10**digits))

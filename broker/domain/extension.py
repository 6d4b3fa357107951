"""Extensions of an X: 1 to 4 digits, never all zero; and those among them that survive a slip of the finger.

A code is *typo-safe* within a set if one wrong digit, or two exchanged neighbours, makes no code of the set. No set of
n digits with the first property has more than 10^(n-1) codes: the first n-1 digits must tell them apart. The set here
reaches that: the codes whose digits, walked through a totally anti-symmetric quasigroup (H. M. Damm, 2004), end at one
fixed value. All zeros end at zero, so any other end leaves them out.
"""

from __future__ import annotations

from functools import cache
from typing import Final

_STEPS: Final = (
    "0317598642", "7092154863", "4206871359", "1750983426", "6123045978",
    "3674209581", "5869720134", "8945362017", "9438617205", "2581436790",
)  # fmt: skip
_END: Final = 1


def text_of(extension: int, digits: int) -> str:
    """Return the extension as callers dial it."""
    return f"{extension:0{digits}d}"


def is_safe(extension: int, digits: int) -> bool:
    """Whether the code belongs to the typo-safe set of codes with so many digits."""
    at = 0
    for digit in text_of(extension, digits):
        at = int(_STEPS[at][int(digit)])
    return at == _END


@cache
def codes(digits: int, limit: int, *, typo_safe: bool) -> tuple[int, ...]:
    """Return the codes of an X that are given out, at most ``limit``: the safe ones first, or only these."""
    every = range(1, 10**digits)
    safe = [code for code in every if is_safe(code, digits)]
    if typo_safe:
        return tuple(safe[:limit])
    known = frozenset(safe)
    return tuple([*safe, *(code for code in every if code not in known)][:limit])

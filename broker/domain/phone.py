"""Phone numbers: checked at the edge, masked wherever they are printed."""

from __future__ import annotations

import re

_E164 = re.compile(r"[+][1-9][0-9]{6,14}")

#: What a refused number is told; shows the right form.
FORM = "must be E.164: '+', country code and number, 7 to 15 ASCII digits and nothing else, as +8613900000001"


class PhoneNumber:
    """A party's real number. ``str()`` and ``repr()`` are masked; only :meth:`reveal` gives the digits."""

    __slots__ = ("_e164",)

    def __init__(self, e164: str) -> None:
        """Take a checked E.164 number.

        Raises:
            ValueError: if it is anything else; the message shows the right form and not the number.
        """
        if not is_e164(e164):
            raise ValueError(FORM)
        self._e164 = e164

    def reveal(self) -> str:
        """Return the number in E.164."""
        return self._e164

    def __str__(self) -> str:
        return mask(self._e164)

    __repr__ = __str__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PhoneNumber) and other._e164 == self._e164

    def __hash__(self) -> int:
        return hash(self._e164)


def is_e164(text: str) -> bool:
    """Tell whether ``text`` is an E.164 number, and nothing around it."""
    return _E164.fullmatch(text) is not None


def mask(e164: str) -> str:
    """Return the number with all but its first three characters and its last four digits hidden."""
    return f"{e164[:3]}{'*' * max(len(e164) - 7, 1)}{e164[-4:]}"

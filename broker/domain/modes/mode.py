"""What a mode is: which fields its requests have, what they are called on the platform's wire, and its limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

#: Longest lifetime of any binding that has one.
LONGEST_TTL_S: Final = 31_536_000


class Allocation(StrEnum):
    """How a line of the mode gets its X."""

    PAIR = "pair"  # we choose an X that neither A nor B is behind or rests on
    PLACE = "place"  # we choose a whole X, or an extension of one, that nobody has
    PLATFORM = "platform"  # the platform picks


@dataclass(frozen=True, slots=True)
class Field:
    """A field of our requests: its names on the wire ("" = it stays with us) and the contract section about them."""

    wire: str = ""
    section: str = ""


#: What every mode's bind knows; none of it is the mode's business.
OURS: Final[dict[str, Field]] = {
    "pool": Field(),
    "area_code": Field(),
    "areas": Field(),
    "area_match": Field(),
    "order_id": Field(),
    "user_data": Field(),
    "metadata": Field(),
    "explain": Field(),
}

#: What stays with us may change in every mode.
OURS_CHANGE: Final[dict[str, Field]] = {"user_data": Field(), "metadata": Field()}


@dataclass(frozen=True, slots=True)
class Mode:
    """One mode's row of the table that validation, documents and allocation go by.

    ``binds`` and ``changes`` are the fields that a bind and a PATCH know; ``needs`` those that a bind must have;
    ``example`` is a bind.
    ``refuses`` says of a field that other modes know why the platform cannot have it here.
    ``longest_ttl_s`` is the longest lifetime that a binding may ask for, ``endless`` whether 0 = none is one, and
    ``platform_ttl(ttl_s)`` the lifetime that the platform is told (0 = never expires); where it is shorter than the
    binding's, the line is renewed, and where it is longer we end it ourselves. ``x_per_party``: most X that one A may
    have at a time. ``hint_tone_fixed``: a bound line's tone for recorded calls cannot be changed. ``rebinds``: changes
    that the platform takes only as an unbind and a bind of the same X. ``keeps``: what can be replaced, but has no
    empty form on the wire that would take it away. ``has_callee``: A who dials X reaches whom the order system has set
    for a while. ``at_once``: the platform keeps no binding, so a claimed pair is bound without asking it.
    """

    name: str
    title: str
    allocation: Allocation
    binds: Mapping[str, Field]
    changes: Mapping[str, Field]
    example: Mapping[str, Any]
    platform_ttl: Callable[[int], int]
    needs: frozenset[str] = frozenset({"a"})
    refuses: Mapping[str, str] = field(default_factory=dict)
    longest_ttl_s: int = LONGEST_TTL_S
    endless: bool = True
    x_per_party: int | None = None
    hint_tone_fixed: bool = False
    rebinds: frozenset[str] = frozenset()
    keeps: frozenset[str] = frozenset()
    has_callee: bool = False
    at_once: bool = False

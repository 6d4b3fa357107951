"""What is to become of a line that lives."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from broker.domain.options import CallOptions
from broker.domain.phone import PhoneNumber

_OTHER_WAY: Final = {"a_to_b": "b_to_a", "b_to_a": "a_to_b"}


def other_way(direction: str) -> str:
    """Return a direction with A and B exchanged."""
    return _OTHER_WAY.get(direction, direction)


@dataclass(frozen=True, slots=True)
class Callee:
    """A temporary callee: whom A reaches who dials X, for ``ttl_s`` seconds from the platform's answer."""

    number: PhoneNumber
    ttl_s: int
    user_data: str | None = None


@dataclass(frozen=True, slots=True)
class LineChange:
    """What a modify makes of a line; None = unchanged. ``ttl_s`` counts from the platform's answer, 0 = no expiry.

    ``callback``: whom A reaches who dials X when nobody has called; ``no_callback`` takes that away. A ``callee`` is
    set by itself, with nothing else. ``anew``: the platform has lost the line, or may have; it is bound again.
    """

    a: PhoneNumber | None = None
    b: PhoneNumber | None = None
    direction: str | None = None
    options: CallOptions | None = None
    ttl_s: int | None = None
    callback: PhoneNumber | None = None
    no_callback: bool = False
    callee: Callee | None = None
    anew: bool = False

    def flipped(self) -> LineChange:
        """Return the same change for a line whose A is B here."""
        return replace(
            self,
            a=self.b,
            b=self.a,
            direction=other_way(self.direction) if self.direction is not None else None,
            options=self.options.flipped() if self.options is not None else None,
        )

    @property
    def renewal(self) -> bool:
        """Whether only a longer life is wanted."""
        return self.ttl_s is not None and self == LineChange(ttl_s=self.ttl_s)

    @property
    def party(self) -> PhoneNumber | None:
        """The party that comes in; at most one does."""
        return self.a or self.b

"""Requests that would wait too long are refused before anything is read or asked for them."""

from __future__ import annotations

from broker.domain.admission import Gate, Refusal
from broker.errors import Unavailable


class Shed(Unavailable):
    """Refused by the gate: counted, but no line in the log, of which there would be thousands a second."""


def admit(gate: Gate, kind: str, within_s: float, *, large: bool) -> None:
    """Let a request go on that has ``within_s`` to be answered.

    Raises:
        Shed: it would wait too long.
    """
    refusal = gate.refuses(kind, within_s, large=large)
    if refusal is not None:
        raise refusal_of(refusal)


def refusal_of(refusal: Refusal) -> Shed:
    """Return what is told about a refusal."""
    return Shed(
        "More is asked for than can be done in time. Nothing was accepted.",
        code="overloaded",
        retry_after_s=refusal.retry_after_s,
    )

"""Who may be behind an X at a moment, by all that clients know. Pure: no I/O, no clock of its own.

A request opens what it may bring about when it is sent; nothing is closed before it certainly is over. So a call that
reaches somebody whom no open possibility explains has reached a wrong person, whatever was killed meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass, field

_NEVER = float("inf")
#: A call is judged within this many seconds after it was placed; what was over before matters no more.
_REMEMBERED_S = 60.0
_MANY = 64


@dataclass(slots=True, eq=False)
class Possibility:
    """``a`` and ``b`` may meet on ``x`` (None: on any) from ``since`` to ``until``.

    ``lingers``: nobody tells when it is over, as when a binding left for another X and the old one is let go later.
    """

    x: str | None
    a: str
    b: str
    since: float
    until: float = _NEVER
    lingers: bool = False

    @property
    def open(self) -> bool:
        """Whether it is not known to be over."""
        return self.until == _NEVER

    def close(self, now: float) -> None:
        """Nobody meets by it from now on."""
        if not self.lingers:
            self.until = min(self.until, now)


@dataclass(slots=True)
class Possibilities:
    """All of them, by pair."""

    _by_pair: dict[frozenset[str], list[Possibility]] = field(default_factory=dict)

    def add(self, x: str | None, a: str, b: str, now: float) -> Possibility:
        """Open one."""
        made = Possibility(x, a, b, now)
        known = self._by_pair.setdefault(frozenset((a, b)), [])
        if len(known) > _MANY:
            known[:] = [one for one in known if one.until > now - _REMEMBERED_S]
        known.append(made)
        return made

    def explain(self, x: str, caller: str, reached: str, since: float, until: float) -> bool:
        """Tell whether a call placed between ``since`` and ``until`` may have connected these two."""
        return any(
            one.x in {None, x} and one.since <= until and one.until >= since
            for one in self._by_pair.get(frozenset((caller, reached)), ())
        )

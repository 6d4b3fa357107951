"""The table of modes as requests meet it: which fields a mode knows, and what the documents say of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from broker.domain.modes import MODES, Field, Mode, modes_with
from broker.errors import Conflict, FieldError


def bind_errors(mode: Mode, given: Iterable[str]) -> list[FieldError]:
    """Return which of the fields given a bind of the mode does not know."""
    return [_unknown(mode, name) for name in sorted(given) if name not in mode.binds]


def change_errors(mode: Mode, given: Iterable[str]) -> list[FieldError]:
    """Return which of the fields given a binding of the mode does not have at all.

    Raises:
        Conflict: it has one of them, and it cannot change.
    """
    strange = [name for name in sorted(given) if name not in mode.changes]
    errors = [_unknown(mode, name) for name in strange if name not in mode.binds]
    if strange and not errors:
        names = " and ".join(strange)
        raise Conflict(f"Of a binding of mode {mode.name} the platform cannot change {names}.", code="not_modifiable")
    return errors


def _unknown(mode: Mode, name: str) -> FieldError:
    if name in mode.refuses:
        detail = f"mode {mode.name} does not know {name}: {mode.refuses[name]}"
        return FieldError(f"/{name}", detail, "not_offered_by_platform")
    detail = f"mode {mode.name} does not know {name}; {_do(modes_with(name))}"
    return FieldError(f"/{name}", detail, "field_unknown_to_mode")


def _do(modes: tuple[str, ...]) -> str:
    *most, last = modes
    return f"{', '.join(most)} and {last} do" if most else f"{last} does"


def told(name: str, *, changes: bool = False) -> str:
    """Return what the documents say of a field: the modes that know it, and what each calls it on the wire."""
    known: Mapping[str, Field] = {
        mode.name: fields[name]
        for mode in MODES.values()
        if name in (fields := mode.changes if changes else mode.binds)
    }
    if not known:
        return "No mode can change it." if modes_with(name) else ""
    modes = "Every mode" if len(known) == len(MODES) else f"Mode {', '.join(known)}"
    wire = [f"{mode} `{field.wire}`" for mode, field in known.items() if field.wire]
    return f"{modes}. On the wire: {', '.join(wire)}." if wire else f"{modes}."

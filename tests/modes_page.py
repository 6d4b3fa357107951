"""Makes docs/modes.md from the table of modes and docs/coverage.toml: ``scripts/modes``."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from broker.domain.modes import MODES, Allocation, Field, Mode

_ROOT: Final = Path(__file__).parents[1]
FILE: Final = _ROOT / "docs" / "modes.md"
_COVERAGE: Final = _ROOT / "docs" / "coverage.toml"

_HEAD: Final = """\
# Modes

Made by `scripts/modes` from the table of modes (`broker/domain/modes/`) and `docs/coverage.toml`: change those instead.

An app has one mode. The table of modes drives what a bind and a `PATCH` accept, the OpenAPI document and this page.
What a mode does not know is a 422 `field_unknown_to_mode` that names the modes that do.

## Fields

What each mode's bind knows, with its name on the platform's wire (● = it stays with us), ↻ where a `PATCH` knows it.
"""
_COVERED: Final = """\
## Coverage

Every interface and field of the contract's sections 2 to 5 and 9: our name for it and the tests that cover it, or why
it is not offered. Tests are under `tests/`.
"""
_ALLOCATIONS: Final = {
    Allocation.PAIR: "we choose an X that neither A nor B is behind or rests on",
    Allocation.PLACE: "we choose a whole X, or an extension of one, that nobody has",
    Allocation.PLATFORM: "the platform picks it",
}


@dataclass(frozen=True, slots=True)
class Interface:
    """One interface, or rule, of the platform's contract, and what covers it."""

    title: str
    wire: str
    api: str
    tests: list[str]
    fields: Mapping[str, str] = field(default_factory=dict)
    not_offered: Mapping[str, str] = field(default_factory=dict)
    tests_of: Mapping[str, list[str]] = field(default_factory=dict)


def coverage() -> dict[str, Interface]:
    """Return docs/coverage.toml, by section of the contract."""
    return {section: Interface(**told) for section, told in tomllib.loads(_COVERAGE.read_text()).items()}


def page() -> str:
    """Return the text of the page."""
    covered = (line for section, told in coverage().items() for line in _interface(section, told))
    return "\n".join([_HEAD, *_matrix(), *map(_mode, MODES.values()), _COVERED, *covered])


def _matrix() -> Iterator[str]:
    yield "| field | " + " | ".join(MODES) + " |"
    yield "|---|" + "---|" * len(MODES)
    for name in dict.fromkeys(name for mode in MODES.values() for name in mode.binds):
        yield f"| `{name}` | " + " | ".join(_cell(mode, name) for mode in MODES.values()) + " |"
    yield ""


def _cell(mode: Mode, name: str) -> str:
    known: Field | None = mode.binds.get(name)
    if known is None:
        return "not offered" if name in mode.refuses else ""
    wire = ", ".join(f"`{one}`" for one in known.wire.split(", ")) if known.wire else "●"
    return f"{wire} ↻" if name in mode.changes else wire


def _mode(mode: Mode) -> str:
    told = [
        f"X: {_ALLOCATIONS[mode.allocation]}.",
        f"`ttl_s`: 60 s to {mode.longest_ttl_s:,} s" + (", or 0: no expiry." if mode.endless else "."),
        f"One A has at most {mode.x_per_party} X at a time (409 `party_limit`)." if mode.x_per_party else "",
        "A may have a temporary callee: `PUT /v1/bindings/{id}/callee`." if mode.has_callee else "",
        *(f"`{name}` is not offered: {why}." for name, why in mode.refuses.items()),
        *(f"`{name}` is changed by binding the same X anew; `gap_ms` tells how long it took." for name in mode.rebinds),
        *(f"`{name}` can be replaced, and not taken away." for name in sorted(mode.keeps)),
    ]
    points = (f"- {line}" for line in told if line)
    example = json.dumps(mode.example)
    return "\n".join([f"## {mode.name}: {mode.title}", "", *points, "", "```json", example, "```", ""])


def _interface(section: str, told: Interface) -> Iterator[str]:
    yield from (f"### {section} {told.title}", "", f"`{told.wire}`: {told.api}", "")
    yield from (f"- {_test(test)}" for test in told.tests)
    yield ""
    if told.fields or told.not_offered:
        yield from ("| on the wire | here | tests beside those |", "|---|---|---|")
        shown = [*told.fields.items(), *((name, f"not offered: {why}") for name, why in told.not_offered.items())]
        for name, here in shown:
            yield f"| `{name}` | {here} | {', '.join(map(_test, told.tests_of.get(name, [])))} |"
        yield ""


def _test(test: str) -> str:
    return f"`{test.removeprefix('tests/')}`"


if __name__ == "__main__":
    FILE.write_text(page(), encoding="utf-8")

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

_HEAD = """\
# Modes

Made by `scripts/modes` from the table of modes (`broker/domain/modes/`) and `docs/coverage.toml`: change those, not this page.

An app has one mode. The table of modes drives what a bind and a `PATCH` accept, the OpenAPI document and this page. What a
mode does not know is a 422 `field_unknown_to_mode` that names the modes that do.
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
    parts = [_HEAD, _matrix(), *map(_mode, MODES.values()), _covered()]
    return "\n".join(parts)


def _matrix() -> str:
    names = list(dict.fromkeys(name for mode in MODES.values() for name in mode.binds))
    rows = [
        "## Fields",
        "",
        "What each mode's bind knows, with its name on the platform's wire (● = it stays with us), and ↻ where a `PATCH` knows it.",
        "",
        "| field | " + " | ".join(MODES) + " |",
        "|---|" + "---|" * len(MODES),
        *(f"| `{name}` | " + " | ".join(_cell(mode, name) for mode in MODES.values()) + " |" for name in names),
    ]
    return "\n".join(rows) + "\n"


def _cell(mode: Mode, name: str) -> str:
    known: Field | None = mode.binds.get(name)
    if known is None:
        return "not offered" if name in mode.refuses else ""
    wire = ", ".join(f"`{one}`" for one in known.wire.split(", ")) if known.wire else "●"
    return f"{wire} ↻" if name in mode.changes else wire


def _mode(mode: Mode) -> str:
    longest = f"{mode.longest_ttl_s:,} s"
    told = [
        f"X: {_ALLOCATIONS[mode.allocation]}.",
        f"`ttl_s`: 60 s to {longest}" + (", or 0: no expiry." if mode.endless else "; there is none without an end."),
        f"One A has at most {mode.x_per_party} X at a time (409 `party_limit`)." if mode.x_per_party else "",
        "A may have a temporary callee: `PUT /v1/bindings/{id}/callee`." if mode.has_callee else "",
        *(f"`{name}` is not offered: {why}." for name, why in mode.refuses.items()),
        *(
            f"`{name}` is changed by binding the same X anew; `gap_ms` tells how long that took."
            for name in mode.rebinds
        ),
        *(f"`{name}` can be replaced, and not taken away, while the binding lives." for name in sorted(mode.keeps)),
    ]
    example = json.dumps(mode.example)
    lines = [
        f"## {mode.name}: {mode.title}",
        "",
        *(f"- {line}" for line in told if line),
        "",
        "```json",
        example,
        "```",
    ]
    return "\n".join(lines) + "\n"


def _covered() -> str:
    return "\n".join(
        [
            "## Coverage",
            "",
            "Every interface and field of the contract's sections 2 to 5 and 9: our name for it and the tests that cover it, or why"
            " it is not offered.",
            "",
            *(line for section, told in coverage().items() for line in _interface(section, told)),
        ]
    )


def _interface(section: str, told: Interface) -> Iterator[str]:
    yield from (f"### {section} {told.title}", "", f"`{told.wire}` — {told.api}", "")
    yield from (f"- {_test(test)}" for test in told.tests)
    yield ""
    if told.fields or told.not_offered:
        yield from ("| on the wire | here | tests beside those |", "|---|---|---|")
        for name, ours in told.fields.items():
            yield f"| `{name}` | {ours} | {', '.join(map(_test, told.tests_of.get(name, [])))} |"
        for name, why in told.not_offered.items():
            yield f"| `{name}` | not offered: {why} | {', '.join(map(_test, told.tests_of.get(name, [])))} |"
        yield ""


def _test(test: str) -> str:
    return f"`{test.removeprefix('tests/')}`"


if __name__ == "__main__":
    FILE.write_text(page(), encoding="utf-8")

"""docs/modes.md: made from the table of modes, and honest about what covers what."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import pytest

from broker.domain.modes import MODES, Field
from tests.modes_page import FILE, Interface, coverage, page

_ROOT = FILE.parents[1]
_COVERAGE = coverage()
#: Sections 2 to 5 and 9 of the contract: their interfaces, and what they say of uniqueness and numbers.
_SECTIONS = [
    *(f"2.{no}" for no in range(1, 7)), *(f"3.{no}" for no in range(1, 7)), *(f"4.{no}" for no in range(1, 6)),
    "5.1", "5.2", *(f"9.{no}" for no in range(1, 5)),
]  # fmt: skip


@functools.cache
def _functions(file: Path) -> frozenset[str]:
    return frozenset(
        node.name
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )


def _tests(interface: Interface) -> set[str]:
    return set(interface.tests).union(*interface.tests_of.values())


def test_the_page_is_what_is_generated() -> None:
    """Nobody edits it: ``scripts/modes`` makes it."""
    assert FILE.read_text() == page()


def test_every_section_is_there() -> None:
    """Each interface of the contract has its entry, and nothing else has."""
    assert list(_COVERAGE) == _SECTIONS


@pytest.mark.parametrize("section", _SECTIONS)
def test_the_tests_named_exist(section: str) -> None:
    """Every entry names tests, those are there, and further ones belong to a field of the entry."""
    told = _COVERAGE[section]
    assert told.tests
    for test in _tests(told):
        file, _, name = test.partition("::")
        assert name in _functions(_ROOT / file), test
    assert set(told.tests_of) <= {*told.fields, *told.not_offered}
    assert not set(told.fields) & set(told.not_offered)


def _wires(field: Field) -> list[str]:
    return [wire.strip() for wire in field.wire.split(",") if wire.strip()]


@pytest.mark.parametrize("mode", MODES)
def test_wire_names_of_the_table_are_covered(mode: str) -> None:
    """What the table of modes says is on the wire is among the fields of that section of the page."""
    for name, field in [*MODES[mode].binds.items(), *MODES[mode].changes.items()]:
        section = field.section.split(",")[0]
        known = {wire.removeprefix("connectInfo.") for wire in _COVERAGE[section].fields} if section else set()
        assert set(_wires(field)) <= known, name
        assert bool(field.section) == bool(field.wire), name

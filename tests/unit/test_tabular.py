"""Lines of exports."""

from __future__ import annotations

import csv
import io

import pytest

from broker.domain.tabular import head, lines


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"), ("=1+1", "'=1+1"), ("@x", "'@x"), ("-1", "'-1"),
        ("\n=1", "'\n=1"),
        ("+8613900000001", "+8613900000001"), ("+86*******0001", "+86*******0001"), ("your order", "your order"),
    ],
)  # fmt: skip
def test_what_a_stranger_wrote_is_no_formula(said: str, written: str) -> None:
    """A phone, masked or not, is none."""
    table = (head("sms", "csv") + lines("sms", "csv", [{"content": said}])).decode()
    assert [row["content"] for row in csv.DictReader(io.StringIO(table, newline=""))] == [written]

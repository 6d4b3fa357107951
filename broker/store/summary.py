"""What calls and messages add up to by day, and what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from broker.store.database import Database
from broker.store.statements import statements

#: Rows of one answer.
MOST_ROWS = 10_000
_LONG_S = 30.0


@dataclass(frozen=True, slots=True)
class Period:
    """Days of a time zone, both included, and by what they are told apart."""

    first: date
    last: date
    zone: str
    by: Sequence[str] = ()


async def summary(db: Database, app_id: int, period: Period) -> list[dict[str, Any]] | None:
    """Return a row for each day and what it is told apart by, a currency each; None: too many.

    Costs are decimal numbers as text.
    """
    rows = await db.fetch(
        statements("summary")["summary"], app_id, period.first, period.last, period.zone, list(period.by),
        MOST_ROWS + 1, timeout_s=_LONG_S,
    )  # fmt: skip
    return [_told(dict(row), period.by) for row in rows] if len(rows) <= MOST_ROWS else None


def _told(row: dict[str, Any], by: Sequence[str]) -> dict[str, Any]:
    apart = {"pool": ("pool",), "area": ("area_code",), "x": ("x",)}
    named = [name for one in by for name in apart[one]]
    share = round(row["answered"] / row["calls"], 4) if row["calls"] else None
    cost = _plain(row["cost"]) if row["cost"] is not None else None
    counted = ("calls", "answered", "talk_s", "minutes", "messages", "segments")
    return {
        "day": row["day"],
        **{name: row[name] for name in named},
        **{name: row[name] for name in counted},
        "answer_rate": share,
        "currency": row["currency"],
        "cost": cost,
        "unpriced": row["unpriced"],
    }


def _plain(number: str) -> str:
    """Return a decimal number without noughts at its end."""
    return number.rstrip("0").rstrip(".") if "." in number else number

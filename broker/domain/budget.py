"""What one X may cost in goodwill: complaints about it, and calls from it that nobody answers."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

#: A share of fewer calls says nothing; of one that is over its budget half as many say that it still is.
ENOUGH: Final = 50.0
#: An X is within its budget again when so many times the floor is answered: at the floor itself it would come and go.
BACK: Final = 1.1


class Over(StrEnum):
    """Which budget an X is over."""

    COMPLAINTS = "complaints"
    ANSWERS = "answers"


@dataclass(frozen=True, slots=True)
class Budget:
    """``complaints`` within ``days`` at most, and the share ``answers`` of calls at least; None = any."""

    complaints: int | None
    days: int
    answers: float | None


@dataclass(frozen=True, slots=True)
class Use:
    """What counts of one X now: complaints, and calls of about a week with those that were answered."""

    complaints: int
    calls: float = 0.0
    answered: float = 0.0


def over(budget: Budget, use: Use, was: Collection[Over] = ()) -> tuple[Over, ...]:
    """Return the budgets that are exceeded; ``was``: those that were when it was judged last."""
    found = []
    if budget.complaints is not None and use.complaints > budget.complaints:
        found.append(Over.COMPLAINTS)
    if budget.answers is not None:
        lasts = Over.ANSWERS in was
        enough = ENOUGH / 2 if lasts else ENOUGH
        floor = min(budget.answers * BACK, 1.0) if lasts else budget.answers
        if use.calls >= enough and use.answered < floor * use.calls:
            found.append(Over.ANSWERS)
    return tuple(found)


def words(budget: Budget, why: Collection[Over]) -> str:
    """Return the reason for people: the same as long as the same budgets are exceeded."""
    said = {
        Over.COMPLAINTS: f"more than {budget.complaints} complaints in {budget.days} days",
        Over.ANSWERS: f"less than {budget.answers or 0:.0%} of its calls are answered",
    }
    return "over its budget: " + "; ".join(said[one] for one in why)

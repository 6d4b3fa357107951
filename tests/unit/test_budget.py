from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.domain.budget import Budget, Over, Use, over, words

_BOTH = (Over.COMPLAINTS, Over.ANSWERS)


@pytest.mark.parametrize(
    ("use", "was", "wanted"),
    [
        (Use(3), (), ()),
        (Use(4), (), (Over.COMPLAINTS,)),
        (Use(3), (Over.COMPLAINTS,), ()),
        (Use(0, 49, 0), (), ()),  # too few calls to say
        (Use(0, 50, 19.9), (), (Over.ANSWERS,)),
        (Use(0, 50, 20), (), ()),
        (Use(0, 50, 21.9), (Over.ANSWERS,), (Over.ANSWERS,)),  # the floor itself is not enough to come back
        (Use(0, 50, 22.1), (Over.ANSWERS,), ()),
        (Use(0, 25, 0), (Over.ANSWERS,), (Over.ANSWERS,)),  # an X that is frozen has fewer and fewer calls
        (Use(0, 24.9, 0), (Over.ANSWERS,), ()),
        (Use(4, 50, 0), (), _BOTH),
    ],
)
def test_over_a_budget(use: Use, was: tuple[Over, ...], wanted: tuple[Over, ...]) -> None:
    """Three complaints, 40 % answered."""
    assert over(Budget(3, 30, 0.4), use, was) == wanted


@given(st.integers(0, 20), st.floats(0, 500), st.floats(0, 1), st.floats(0.01, 1), st.sets(st.sampled_from(Over)))
def test_who_is_judged_again_stands_as_before(
    complaints: int, calls: float, share: float, floor: float, was: set[Over]
) -> None:
    """Nothing comes and goes while nothing changes, and no app that has no budget has an X over one."""
    use = Use(complaints, calls, share * calls)
    now = over(Budget(5, 30, floor), use, was)
    assert over(Budget(5, 30, floor), use, now) == now
    assert over(Budget(None, 30, None), use, was) == ()


def test_the_reason_says_the_budget() -> None:
    """In words, without figures that change with every call."""
    assert words(Budget(3, 30, 0.4), _BOTH) == (
        "over its budget: more than 3 complaints in 30 days; less than 40% of its calls are answered"
    )

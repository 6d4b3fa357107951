from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.domain.number_status import LATEST, Effect, Standing, Status, standing

_T = datetime(2026, 3, 1, 12, tzinfo=UTC)
_OPEN = Standing("open")


def at(hours: float, status: str, cause: str = "") -> Status:
    """A status so many hours after noon."""
    return Status(_T + timedelta(hours=hours), status, cause)


@pytest.mark.parametrize(
    ("status", "cause", "effect", "evacuate"),
    [
        ("5", "", Effect.OPENS, False),
        ("9", "", Effect.SUSPENDS, True),
        ("10", "1", Effect.SUSPENDS, True),
        ("10", "2", Effect.SUSPENDS, True),
        ("10", "3", Effect.SUSPENDS, True),
        ("10", "5", Effect.SUSPENDS, True),
        ("10", "6", Effect.NONE, False),
        ("10", "7", Effect.SUSPENDS, True),
        ("10", "8", Effect.SUSPENDS, True),
        ("10", "", Effect.SUSPENDS, True),
        ("11", "", Effect.FREEZES, False),
        ("12", "", Effect.NONE, False),
    ],
)
def test_each_status_has_its_effect(status: str, cause: str, effect: Effect, evacuate: bool) -> None:  # noqa: FBT001
    """9 and 10 suspend and evacuate, 11 freezes what is new only, 5 opens, what lifts or is not known does nothing."""
    one = at(0, status, cause)
    assert one.effect is effect
    stands = standing([one])
    assert stands.evacuate is evacuate
    assert stands.state == (effect.value if effect in {Effect.SUSPENDS, Effect.FREEZES} else "open")
    assert (stands.reason is None) == (stands.state == "open")


def test_words_name_status_and_cause() -> None:
    """People read what was pushed, and what it means."""
    assert at(0, "10", "2").words == "platform status 10 (unavailable, cause 2: arrears)"
    assert at(0, "10").words == "platform status 10 (unavailable, cause not given: not known)"
    assert at(0, "11").words == "platform status 11 (binding frozen)"


def test_normal_counts_six_hours_after_the_newest_other() -> None:
    """At six hours it opens; a minute sooner it stays closed, and says why."""
    closed = at(0, "10", "5")
    assert standing([closed, at(6, "5")]) == _OPEN
    doubted = standing([closed, at(6 - 1 / 60, "5")])
    assert doubted.state == "suspended"
    assert doubted.reason is not None
    assert "normal 5 h 59 min later" in doubted.reason
    assert "normal 40 min later" in (standing([closed, at(2 / 3, "5")]).reason or "")


def test_a_late_one_closes_what_was_opened_too_soon() -> None:
    """What arrives after the 5 but was created within six hours before it counts; an older one does not."""
    opened = [at(0, "9"), at(7, "5")]
    assert standing(opened) == _OPEN
    assert standing([*opened, at(3, "10", "2")]).state == "suspended"
    assert standing([*opened, at(1, "10", "2")]) == _OPEN
    assert standing([*opened, at(8, "11")]).state == "frozen"


def test_what_an_operator_said_since_counts_more() -> None:
    """Statuses from before the operator opened the number are forgotten."""
    assert standing([at(0, "9")], since=_T + timedelta(seconds=1)) == _OPEN
    assert standing([at(0, "9"), at(1, "11")], since=_T + timedelta(seconds=1)).state == "frozen"


@given(
    st.lists(
        st.builds(
            at,
            st.integers(0, 48).map(lambda half: half / 2),
            st.sampled_from(["5", "9", "10", "11", "12"]),
            st.sampled_from(["", "2", "5", "6"]),
        ),
        max_size=5,
    )
)
def test_the_order_of_arrival_never_matters(statuses: list[Status]) -> None:
    """Every permutation, with any of them twice, comes to the same; open means no other within six hours before a 5."""
    stands = standing(statuses)
    for order in itertools.islice(itertools.permutations(statuses), 24):
        assert standing([*order, *order[:1]]) == stands
    closing = [one.created for one in statuses if one.effect in {Effect.SUSPENDS, Effect.FREEZES}]
    normal = [one.created for one in statuses if one.status == "5"]
    sure = not closing or any(all(one - other >= LATEST for other in closing) for one in normal)
    assert (stands.state == "open") is sure

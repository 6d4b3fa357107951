"""What late calls say of a quarantine."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.domain.cooldown import BINS, Age, Cohort, curve, edge_s, exposure, propose, sample_load
from broker.domain.poisson import at_most, limits

DAY_S = 86_400
#: Garwood's limits as printed in tables of the exact 95 % interval.
_TABLE = {0: (0.0, 3.6889), 1: (0.0253, 5.5716), 5: (1.6235, 11.6683), 10: (4.7954, 18.3904), 100: (81.364, 121.627)}


def _cohort(calls: dict[int, int], *, releases: int = 1000, rest_s: int = 7 * 14_400, passed_s: float = 9e9) -> Cohort:
    return Cohort(rest_s, passed_s, releases, [calls.get(place, 0) for place in range(BINS)])


@pytest.mark.parametrize("seen", _TABLE)
def test_limits_are_those_of_the_tables(seen: int) -> None:
    """The exact interval."""
    assert limits(seen) == pytest.approx(_TABLE[seen], rel=1e-3)


@settings(deadline=None)
@given(st.integers(0, 20_000))
def test_limits_leave_both_tails(seen: int) -> None:
    """At its limits a number as extreme as the one seen has a probability of 2.5 %."""
    low, high = limits(seen)
    assert low <= seen < high
    assert at_most(seen, high) == pytest.approx(0.025, rel=1e-6)
    assert seen == 0 or 1 - at_most(seen - 1, low) == pytest.approx(0.025, rel=1e-6)


def test_the_true_rate_is_within_the_limits_as_often_as_is_said() -> None:
    """Of 400 samples of a known rate at least 92 % have it within their 95 % limits."""
    dice, rate, within = random.Random(8014), 7.5, 0  # noqa: S311 - a sample that can be repeated
    for _ in range(400):
        seen, left = 0, math.exp(-rate)
        chance, total = dice.random(), left
        while chance > total:
            seen += 1
            left *= rate / seen
            total += left
        low, high = limits(seen)
        within += low <= rate <= high
    assert within >= 0.92 * 400


def test_bins_are_those_of_the_database() -> None:
    """The first from 0 s, then from 60 s · 2^(n/2)."""
    assert [edge_s(place) for place in (0, 1, 2, 3, 4, 16)] == [0, 85, 120, 170, 240, 15_360]


def test_an_age_counts_releases_that_have_reached_it() -> None:
    """A day that is younger than an age says nothing of it; nor does a sample that rested less long."""
    old = _cohort({0: 3, 2: 2}, releases=10)
    young = _cohort({0: 7, 2: 9}, releases=30, passed_s=100)
    short = _cohort({0: 1}, releases=5, rest_s=100)
    ages = curve([old, young, short])
    assert ages[0] == Age(0, 85, 11, 45)
    assert ages[2] == Age(120, 170, 2, 10)
    assert ages[2].per_hour == pytest.approx(2 / 10 * 3600 / 50)
    assert ages[-1].to_s <= old.rest_s


def test_exposure_is_what_came_later_than_the_rest() -> None:
    """Calls of whole days only, and of the bin that the rest ends in all."""
    cohorts = [_cohort({3: 50, 15: 2, 16: 1}, releases=2000), _cohort({16: 40}, releases=9, passed_s=DAY_S / 2)]
    left = exposure(cohorts, 14_400)
    assert left is not None
    assert (left.calls, left.releases, left.per_million, left.seen_s) == (3, 2000, 1500, 7 * 14_400)
    assert left.low < left.per_million < left.high
    assert exposure(cohorts, 7 * 14_400) is None


def test_a_proposal_is_the_shortest_rest_within_the_risk() -> None:
    """With enough data: the first rest whose upper limit is under the risk; a lower risk needs a longer one."""
    calls = {place: 4_000 >> place for place in range(BINS)}
    cohorts = [_cohort(calls, releases=1_000_000)]
    bold, careful = propose(cohorts, 300), propose(cohorts, 30)
    assert bold.rest_s is not None
    assert careful.rest_s is not None
    assert bold.rest_s < careful.rest_s
    assert bold.exposure is not None
    assert bold.exposure.high <= 300
    shorter = exposure(cohorts, max(edge_s(n) for n in range(BINS) if edge_s(n) < bold.rest_s))
    assert shorter is not None
    assert shorter.high > 300


def test_too_few_data_are_said_to_be_too_few() -> None:
    """No day complete; a sample that could not show the risk; one in which calls come to the very end."""
    assert "followed to the end" in propose([], 100).why
    few = propose([_cohort({}, releases=100)], 100)
    assert (few.rest_s, few.why.startswith("too few data: 100 releases")) == (None, True)
    assert "36889" in few.why
    late = propose([_cohort(dict.fromkeys(range(BINS), 1000), releases=1_000_000)], 100)
    assert (late.rest_s, "still come later" in late.why) == (None, True)


@settings(deadline=None)  # the machine may be busy
@given(
    st.lists(
        st.builds(
            Cohort,
            st.integers(60, 400_000),
            st.floats(0, 1e7),
            st.integers(0, 100_000),
            st.lists(st.integers(0, 50), min_size=BINS, max_size=BINS),
        ),
        max_size=6,
    ),
    st.floats(0.01, 1e6),
)
def test_no_proposal_is_over_its_risk(cohorts: list[Cohort], risk: float) -> None:
    """Whatever the data: a rest is proposed only if what it leaves is surely within the risk."""
    proposal = propose(cohorts, risk)
    if proposal.rest_s is not None:
        assert proposal.exposure is not None
        assert proposal.exposure.high <= risk
        assert proposal.exposure.seen_s >= 2 * proposal.rest_s


def test_what_the_sample_costs() -> None:
    """One release in a hundred that rests seven times as long is 5.7 % of what rests; very short rests have none."""
    assert sample_load(14_400, 0.01, 7) == pytest.approx(0.0566, abs=1e-4)
    assert sample_load(5, 0.01, 7) == 0

"""The lunch hour as a plan: what may follow what, and that a seed fixes it."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from broker.demo.city import Hour, Kind, lunch_hour
from broker.domain.phone import is_e164

hours = st.builds(
    lunch_hour,
    couriers=st.integers(1, 30),
    minutes=st.integers(5, 120),
    seed=st.integers(),
    run=st.integers(0, 9999),
    least_ttl_s=st.integers(60, 7200),
)


@given(hours)
def test_nothing_happens_to_a_share_before_its_bind_and_nothing_late_before_its_end(hour: Hour) -> None:
    """Bind first; calls in its life, late ones well after it; released once, at its end, or never."""
    bound: set[int] = set()
    ended: Counter[int] = Counter()
    for deed in hour.deeds:
        share = hour.shares[deed.share]
        match deed.kind:
            case Kind.BIND:
                assert deed.share not in bound
                bound.add(deed.share)
                assert deed.at_s == share.begins_s
            case Kind.RELEASE:
                assert deed.at_s == share.ends_s
                ended[deed.share] += 1
            case Kind.CALL:
                assert deed.share in bound
                assert deed.late == (deed.at_s > share.ends_s)
                assert not deed.late or deed.at_s >= share.ends_s + 120
    assert bound == set(range(len(hour.shares)))
    assert set(ended) == {share.no for share in hour.shares if share.released}
    assert set(ended.values()) <= {1}
    assert [deed.at_s for deed in hour.deeds] == sorted(deed.at_s for deed in hour.deeds)


@given(hours)
def test_lifetimes_can_be_asked_for_and_end_what_is_not_released(hour: Hour) -> None:
    """A share lives at most its ttl; one that is not released exactly that."""
    for share in hour.shares:
        life_s = share.ends_s - share.begins_s
        assert share.ttl_s >= 60
        assert life_s > 0
        assert abs(life_s - share.ttl_s) < 1e-6 or (share.released and life_s < share.ttl_s)


@given(hours)
def test_phones_are_real_ones_and_nobody_is_two_people(hour: Hour) -> None:
    """Couriers, customers, shops and strangers have numbers of their own."""
    couriers = {share.a for share in hour.shares}
    others = {share.b for share in hour.shares}
    strangers = {deed.caller for deed in hour.deeds if deed.caller} - couriers - others
    assert all(is_e164(number) for number in couriers | others | strangers)
    assert not couriers & others
    assert len(couriers) <= hour.couriers


def test_a_seed_fixes_the_hour() -> None:
    """The same seed gives the same hour, another one another."""
    one, same, other = (lunch_hour(couriers=5, minutes=30, seed=seed, run=1) for seed in (7, 7, 8))
    assert one == same
    assert one != other


def test_a_courier_has_several_orders_at_once_and_both_ways_to_end_occur() -> None:
    """The default hour is a busy one."""
    hour = lunch_hour(couriers=40, minutes=60, seed=1, run=1)
    most = max(
        sum(share.begins_s <= moment.begins_s < share.ends_s for share in hour.shares if share.a == moment.a)
        for moment in hour.shares
    )
    assert most >= 3
    released = sum(share.released for share in hour.shares)
    assert 0.4 < released / len(hour.shares) < 0.8
    assert any(deed.late for deed in hour.deeds)

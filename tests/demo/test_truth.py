"""Judging calls: a right platform is never accused, a wrong one always."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from broker.demo.city import Deed, Kind, Share, lunch_hour
from broker.demo.truth import Truth, Verdict, judge

X = "+8617000000001"
SHARE = Share(0, "order", "+8613900000001", "+8613900000002", 0.0, 600.0, 600, released=True)
STRANGER = "+8613900000003"


def verdict(truth: Truth, connected: str | None, *, caller: str = SHARE.a, x: str = X, at_s: float = 10.0) -> Verdict:
    """Judge a call that takes no time."""
    reach = truth.reach(caller, x, at_s)
    return judge(x, connected, x if connected else None, reach, reach)


def bound() -> Truth:
    """A share that was bound within the first two seconds."""
    truth = Truth(slack_s=5, sweep_s=60)
    truth.asked(SHARE)
    truth.bound(SHARE, X, 0.0, 2.0)
    return truth


def test_a_live_share_must_reach_its_counterpart_and_nobody_else() -> None:
    """Both sides reach each other; a third person is wrong, and so is nobody."""
    truth = bound()
    assert verdict(truth, SHARE.b) is Verdict.RIGHT
    assert verdict(truth, SHARE.a, caller=SHARE.b) is Verdict.RIGHT
    assert verdict(truth, STRANGER) is Verdict.WRONG
    assert verdict(truth, None) is Verdict.MISSED
    assert verdict(truth, SHARE.b, x="+8617000000002") is Verdict.WRONG
    assert verdict(truth, None, x="+8617000000002") is Verdict.NOBODY


def test_a_stranger_must_reach_nobody() -> None:
    """Who has no share reaches nobody through X."""
    assert verdict(bound(), SHARE.a, caller=STRANGER) is Verdict.WRONG
    assert verdict(bound(), None, caller=STRANGER) is Verdict.NOBODY


def test_a_shown_number_that_is_not_x_is_wrong() -> None:
    """Reaching the right person with the caller's own number on the display is no success."""
    reach = bound().reach(SHARE.a, X, 10.0)
    assert judge(X, SHARE.b, SHARE.a, reach, reach) is Verdict.WRONG


def test_while_a_bind_or_a_release_is_under_way_nobody_is_accused_but_third_persons() -> None:
    """In between the counterpart or nobody may answer; after the end only nobody."""
    truth = Truth(slack_s=5, sweep_s=60)
    truth.asked(SHARE)
    assert verdict(truth, SHARE.b) is Verdict.RIGHT
    assert verdict(truth, None) is Verdict.NOBODY
    truth.bound(SHARE, X, 0.0, 2.0)
    truth.ending(SHARE)
    assert verdict(truth, SHARE.b) is Verdict.RIGHT
    assert verdict(truth, None) is Verdict.NOBODY
    assert verdict(truth, STRANGER) is Verdict.WRONG
    truth.ended(SHARE)
    assert verdict(truth, SHARE.b) is Verdict.WRONG
    assert verdict(truth, None) is Verdict.NOBODY


def test_about_its_expiry_a_share_may_or_may_not_answer() -> None:
    """Certain until the earliest expiry less the slack, impossible from the latest plus the slack on."""
    truth = bound()
    assert verdict(truth, None, at_s=594) is Verdict.MISSED
    assert verdict(truth, None, at_s=600) is Verdict.NOBODY
    assert verdict(truth, SHARE.b, at_s=600) is Verdict.RIGHT
    assert verdict(truth, SHARE.b, at_s=607) is Verdict.WRONG


def test_a_share_on_a_common_line_may_answer_until_the_sweep() -> None:
    """Another share of the pair on the same X: the line may outlive each of them a little, for nobody else."""
    truth = bound()
    other = replace(SHARE, no=1, ttl_s=7200)
    truth.asked(other)
    truth.bound(other, X, 10.0, 11.0)
    truth.ended(other)
    assert verdict(truth, SHARE.b, at_s=650) is Verdict.RIGHT
    assert verdict(truth, None, at_s=650) is Verdict.NOBODY
    assert verdict(truth, STRANGER, at_s=650) is Verdict.WRONG
    assert verdict(truth, SHARE.b, at_s=700) is Verdict.WRONG


@given(st.integers(1, 12), st.integers(), st.data())
def test_a_right_platform_is_never_accused_and_a_wrong_one_always(
    couriers: int, seed: int, data: st.DataObject
) -> None:
    """A whole hour on an ideal platform: every call is right or rightly nobody's; one crossed line is found."""
    hour = lunch_hour(couriers=couriers, minutes=20, seed=seed, run=1)
    crossed = data.draw(st.sampled_from([deed for deed in hour.deeds if deed.kind is Kind.CALL]))
    truth = Truth(slack_s=1, sweep_s=0)
    for deed in hour.deeds:
        share = hour.shares[deed.share]
        x = f"+86170{share.no:08}"
        match deed.kind:
            case Kind.BIND:
                truth.asked(share)
                truth.bound(share, x, deed.at_s, deed.at_s)
            case Kind.RELEASE:
                truth.ended(share)
            case Kind.CALL:
                connected = _ideal(share, deed)
                found = verdict(truth, connected, caller=deed.caller, x=x, at_s=deed.at_s)
                near_its_end = not share.released and share.ends_s - deed.at_s < 1
                allowed = {Verdict.RIGHT if connected else Verdict.NOBODY}
                assert found in allowed or (near_its_end and found is not Verdict.WRONG)
                if deed is crossed:
                    assert verdict(truth, STRANGER, caller=deed.caller, x=x, at_s=deed.at_s) is Verdict.WRONG


def _ideal(share: Share, deed: Deed) -> str | None:
    if deed.late or deed.caller not in {share.a, share.b}:
        return None
    return share.b if deed.caller == share.a else share.a

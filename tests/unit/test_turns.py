"""Who is next: lanes, callers, deadlines."""

from __future__ import annotations

from collections import Counter

import pytest

from broker.domain.turns import KEPT, Kind, Turns


def turns(*gone: str) -> Turns[str]:
    """Nobody waits yet; those named will have left by the time they are looked at."""
    return Turns(lambda item: item in gone)


def drawn(waiting: Turns[str], count: int) -> list[str]:
    """Take that many."""
    return [item for _ in range(count) if (item := waiting.pop()) is not None]


def test_the_earliest_deadline_of_a_caller_goes_first() -> None:
    """Inside a lane a caller's calls are ordered by deadline."""
    waiting = turns()
    for urgency in (3.0, 1.0, 2.0):
        waiting.push(Kind.BIND, str(urgency), caller=1, weight=1, urgency=urgency)
    assert drawn(waiting, 9) == ["1.0", "2.0", "3.0"]


def test_lanes_by_priority_with_a_share_for_the_low_ones() -> None:
    """Binds go before all others, and yet each lane gets its kept share of a long backlog."""
    waiting = turns()
    for kind in Kind:
        for n in range(1000):
            waiting.push(kind, kind.name, caller=1, weight=1, urgency=n)
    got = Counter(drawn(waiting, 1000))
    for kind in list(Kind)[1:]:
        assert got[kind.name] == pytest.approx(1000 * KEPT[kind], abs=2)
    assert got["BIND"] == 1000 - sum(got[kind.name] for kind in list(Kind)[1:])
    assert drawn(waiting, 1)


def test_a_lane_alone_gets_everything() -> None:
    """What nobody of a higher lane wants goes to the next one."""
    waiting = turns()
    for n in range(20):
        waiting.push(Kind.QUERY, "query", caller=1, weight=1, urgency=n)
    waiting.push(Kind.UNBIND, "unbind", caller=1, weight=1, urgency=0)
    assert drawn(waiting, 30) == ["unbind"] + ["query"] * 20


@pytest.mark.parametrize(("weight", "share"), [(1, 1 / 2), (3, 3 / 4)])
def test_callers_share_by_weight(weight: int, share: float) -> None:
    """Two callers with long queues get turns in the proportion of their weights."""
    waiting = turns()
    for n in range(1000):
        waiting.push(Kind.BIND, "one", caller=1, weight=weight, urgency=n)
        waiting.push(Kind.BIND, "other", caller=2, weight=1, urgency=-n)
    assert Counter(drawn(waiting, 400))["one"] == pytest.approx(400 * share, abs=2)


def test_a_caller_within_its_share_is_next_at_once() -> None:
    """However long another caller's queue, one that asks now and then waits for a single turn at most."""
    waiting = turns()
    for n in range(10_000):
        waiting.push(Kind.BIND, "greedy", caller=1, weight=1, urgency=-n)
    drawn(waiting, 500)
    for _ in range(20):
        waiting.push(Kind.BIND, "rare", caller=2, weight=1, urgency=1e9)
        assert "rare" in drawn(waiting, 2)
        drawn(waiting, 50)


def test_being_away_saves_nothing_up() -> None:
    """A caller that was idle for long gets its share from then on, not what it left to others."""
    waiting = turns()
    for n in range(2000):
        waiting.push(Kind.BIND, "steady", caller=1, weight=1, urgency=n)
    drawn(waiting, 1000)
    for n in range(1000):
        waiting.push(Kind.BIND, "back", caller=2, weight=1, urgency=n)
    assert Counter(drawn(waiting, 200))["back"] == pytest.approx(100, abs=1)


def test_who_left_is_passed_over() -> None:
    """Those who do not wait any more cost nobody a turn."""
    waiting = turns("left")
    for n in range(10):
        waiting.push(Kind.BIND, "left", caller=n % 3, weight=1, urgency=n)
    waiting.push(Kind.AUDIT, "there", caller=1, weight=1, urgency=0)
    assert waiting.pop() == "there"
    assert waiting.pop() is None


def test_parts_are_served_apart_and_can_be_merged() -> None:
    """Whoever waits for a limit of its own is taken only when that is asked for."""
    waiting = turns()
    waiting.push(Kind.BIND, "bind", caller=1, weight=1, urgency=0)
    waiting.push(Kind.BIND, "query", caller=1, weight=1, urgency=-1, part="query")
    assert waiting.parts() == ["", "query"]
    assert waiting.pop({""}) == "bind"
    assert waiting.pop({""}) is None
    waiting.merge("query")
    assert waiting.parts() == [""]
    assert waiting.pop({""}) == "query"


def test_a_newcomers_place() -> None:
    """A caller without a queue has about one turn of everybody else's before it, one with a queue its own as well."""
    waiting = turns()
    for n in range(100):
        waiting.push(Kind.BIND, "greedy", caller=1, weight=1, urgency=n)
    assert waiting.ahead(Kind.BIND, 2, 1) == 2
    assert waiting.ahead(Kind.BIND, 1, 1) == 101
    assert len(waiting.clear()) == 100
    assert waiting.ahead(Kind.BIND, 1, 1) == 0


def test_idle_callers_are_forgotten() -> None:
    """Any number of callers can come and go."""
    waiting = turns()
    for caller in range(5000):
        waiting.push(Kind.BIND, "one", caller=caller, weight=1, urgency=0)
        assert waiting.pop() == "one"
    assert sum(len(queue._callers) for queue in waiting._queues.values()) < 2000

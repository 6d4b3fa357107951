"""Limits of requests and of live bindings over four processes on one database: `python -m bench.inbound`, short."""

from __future__ import annotations

import pytest

from bench.inbound import Passed, Requests, lives, most_at_once, quota_of, requests
from bench.scenario import Shape, prepare
from bench.stack import running
from broker.domain.quota import SLICE_S

_CASE = Requests("caller", rate=50.0, instances=4, seconds=3.0)


async def test_four_processes_keep_one_limit() -> None:
    """A caller asks ten times too much: no window holds more than allowed, nearly all is let through; lives, too."""
    quota = quota_of(_CASE)
    async with running(_CASE.instances) as stack:
        scenario = await prepare(stack, Shape(pools=2, numbers=100))
        passed = await requests(stack, scenario, _CASE)
        assert set(passed.statuses) == {404, 429}
        assert passed.surely_over(quota) <= quota.rate * SLICE_S
        # Most of it, even where the load comes to stand still for a while.
        assert passed.use(quota) >= 0.8
        found = await lives(stack, scenario, most=7, clients=32, seconds=3.0)
    assert found.statuses[429] > 0
    assert found.statuses[201] >= 7
    assert max(found.most.values()) <= 7


@pytest.mark.parametrize(("instances", "over"), [(1, False), (4, True)])
def test_the_measure_finds_limits_that_each_process_has_for_itself(instances: int, over: bool) -> None:  # noqa: FBT001
    """Four processes that each let a whole limit through are found, one is none too many."""
    quota = quota_of(_CASE)
    one = [0.0] * quota.burst + [step / quota.rate for step in range(1, 100)]
    answered = sorted(one * instances)
    passed = Passed(sent=[at - 0.001 for at in answered], answered=answered, seconds=2.0)
    assert (passed.over(quota) > quota.rate * SLICE_S) is over
    assert (passed.surely_over(quota) > quota.rate * SLICE_S) is over


def test_the_measure_finds_one_live_binding_too_many() -> None:
    """Spans that touch do not overlap."""
    assert most_at_once([(0.0, 2.0), (1.0, 3.0), (2.0, 4.0)]) == 2
    assert most_at_once([(0.0, 2.1), (1.0, 3.0), (2.0, 4.0)]) == 3

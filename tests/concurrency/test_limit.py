"""The outbound limit over real processes, one killed, one with a wrong clock: `python -m bench.limit`, short."""

from __future__ import annotations

import pytest

from bench.limit import Case, run
from bench.stack import running
from bench.windows import excess


async def test_no_window_is_over_the_limit_with_four_instances() -> None:
    """Four processes with a backlog, one killed, one an hour ahead: never over burst + rate x T at the sockets."""
    case = Case("backlog", rate=100.0, burst=20, instances=4, seconds=4.0, faults=True)
    async with running(1) as stack:
        seen = await run(stack, case)
    assert len(seen.sockets) > 100
    assert excess(seen.sockets, rate=100.0, burst=20) <= 0
    # Each call that left is one request at the platform, and none is there that did not leave; the last ones of the
    # killed process may have died on their way.
    assert len(seen.sockets) - 64 <= len(seen.emulator) <= len(seen.sockets)


@pytest.mark.parametrize(("slack_s", "over"), [(0.0, 1.0), (0.1, 0.0)])
def test_the_measure_finds_one_call_too_many(slack_s: float, over: float) -> None:
    """Six calls at once where five may go are one too many; a tenth of a second at 10/s makes room for it."""
    assert excess([1.0] * 6 + [2.0], rate=10.0, burst=5, slack_s=slack_s) == pytest.approx(over)

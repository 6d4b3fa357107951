"""How work that can wait shares the time."""

from __future__ import annotations

import pytest

from broker.flows.share import Share


def _worked(share: Share, *, came: int, turns: int, waiting: int) -> list[float]:
    """Turns of 100 items in 0.1 s each, with so much new work between them; the pauses."""
    now, pauses = 0.0, []
    for _ in range(turns):
        share.came(came)
        now += 0.1
        pauses.append(share.pause_s(100, 0.1, waiting, now))
        now += pauses[-1]
    return pauses


def test_without_a_crowd_nothing_pauses() -> None:
    """Work that goes faster than new work comes is done at once, however much there is of it."""
    share = Share(200, 0.0)
    assert set(_worked(share, came=50, turns=50, waiting=4000)) == {0.0}
    assert share.size == 200


def test_few_wait_for_company() -> None:
    """The next batch waits as long as the one before makes worth while; not once half a batch waits already."""
    share = Share(200, 0.0)
    assert share.pause_s(1, 0.002, 0, 1.0) == pytest.approx(0.02)
    assert share.pause_s(1, 0.02, 99, 2.0) == pytest.approx(0.1)
    assert share.pause_s(1, 0.02, 100, 3.0) == 0.0


def test_a_crowd_is_let_in_first() -> None:
    """While more comes than can be worked off a tenth of the time is left, in small batches; afterwards all of it."""
    share = Share(200, 0.0)
    assert _worked(share, came=5000, turns=20, waiting=4000)[-1] == 0.5
    assert share.size < 200
    assert _worked(share, came=0, turns=40, waiting=4000)[-1] == 0.0
    assert share.size == 200


def test_a_short_queue_is_no_crowd() -> None:
    """What a moment works off is worked off whatever comes."""
    share = Share(200, 0.0)
    assert set(_worked(share, came=5000, turns=20, waiting=500)) == {0.0}

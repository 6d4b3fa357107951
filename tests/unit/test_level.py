from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.domain.level import Level, Room, level

_SHARES = st.floats(0, 1)
_LOWS = st.integers(1, 90).map(lambda percent: percent / 100)


@pytest.mark.parametrize(
    ("room", "was", "refused", "wanted"),
    [
        (Room(0.5, 0.5), Level.OK, False, Level.OK),
        (Room(0.1, 0.5), Level.OK, False, Level.LOW),
        (Room(0.5, 0.1), Level.OK, False, Level.LOW),
        (Room(0.5, 0.0), Level.OK, False, Level.LOW),  # one party is behind every X: the others are not
        (Room(0.0, 0.5), Level.OK, False, Level.EXHAUSTED),
        (Room(0.15, 1), Level.LOW, False, Level.LOW),  # half as much again is needed to be well
        (Room(0.151, 1), Level.LOW, False, Level.OK),
        (Room(0.05, 1), Level.EXHAUSTED, False, Level.EXHAUSTED),
        (Room(0.06, 1), Level.EXHAUSTED, False, Level.LOW),
        (Room(1, 1), Level.EXHAUSTED, True, Level.EXHAUSTED),
        (Room(1, 1), Level.OK, True, Level.OK),  # what was refused was told when it was
    ],
)
def test_levels(room: Room, was: Level, refused: bool, wanted: Level) -> None:  # noqa: FBT001 - a case
    """At 10 %."""
    assert level(room, 0.1, was, refused=refused) is wanted


@given(_SHARES, _SHARES, _LOWS, st.sampled_from(Level))
def test_a_pool_that_stays_as_it_is_is_told_of_once(places: float, party: float, low: float, was: Level) -> None:
    """Counted again without a change the level stays; and a pool that is all free is well in the end."""
    room = Room(places, party)
    now = level(room, low, was, refused=False)
    assert level(room, low, now, refused=False) is now
    assert level(Room(1, 1), low, now, refused=False) is Level.OK

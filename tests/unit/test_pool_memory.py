"""What a process believes of X numbers that were full, and when an order looks again."""

from __future__ import annotations

import pytest

from broker.flows.pool_memory import FULL_S, PoolMemory


def test_others_keep_off_while_one_looks() -> None:
    """An X found full is kept off; then one order looks, and the others wait for what it finds, or until it is lost."""
    memory = PoolMemory()
    memory.found_full(3, now=10.0)
    memory.found_full(5, now=10.2)
    assert memory.kept_off(10.4) == memory.full == 0b101000
    assert memory.kept_off(10.0 + FULL_S) == 0b100000
    memory.chosen(3, now=10.6)
    assert memory.kept_off(10.6) == 0b101000
    assert memory.kept_off(10.6 + FULL_S) == 0
    assert memory.full == 0b101000


def test_an_x_with_room_is_forgotten() -> None:
    """Once somebody found or freed a seat there, everybody comes again; the next belief is as short as the first."""
    memory = PoolMemory()
    for now in (0.0, 10.0, 20.0):
        memory.found_full(1, now)
    memory.found_room(1)
    memory.found_room(2)
    assert memory.full == memory.kept_off(20.0) == 0
    memory.found_full(1, 30.0)
    assert memory.kept_off(30.0 + FULL_S) == 0


def test_what_proves_true_is_believed_longer() -> None:
    """Twice as long each time, a minute at most."""
    memory, now = PoolMemory(), 0.0
    for span in (0.5, 1, 2, 4, 8, 16, 32, 60, 60):
        memory.found_full(0, now)
        assert memory.kept_off(now + span - 0.01) == 1
        now += span
        assert memory.kept_off(now) == 0


@pytest.mark.parametrize(("looks", "kept_off"), [(False, 0b01), (True, 0b11)])
def test_an_old_belief_refuses_nobody(*, looks: bool, kept_off: int) -> None:
    """It is looked at anew first, unless somebody does already; what was found lately or is of no use is not."""
    memory = PoolMemory()
    for now in (0.0, 10.0, 20.0):
        memory.found_full(1, now)
    memory.found_full(0, 29.9)
    if looks:
        memory.chosen(1, 29.9)
    assert not memory.doubt(0b01, since=29.5)
    assert memory.doubt(0b11, since=29.5)
    assert memory.kept_off(30.0) == kept_off
    memory.found_full(1, 30.1)
    assert not memory.doubt(0b11, since=29.5)
    assert memory.doubt(0b11, since=29.9)

"""Settings that follow the machine."""

from __future__ import annotations

import pytest

from broker.embedded.tuning import shared_buffers


@pytest.mark.parametrize(("gib", "expected"), [(0.5, "128MB"), (4, "512MB"), (24, "2048MB"), (1.001, "128MB")])
def test_buffers_are_an_eighth_of_the_memory(gib: float, expected: str) -> None:
    """Within bounds: a small machine keeps room for all else, a large one does not start with a second of zeroing."""
    assert shared_buffers(int(gib * 2**30)) == expected

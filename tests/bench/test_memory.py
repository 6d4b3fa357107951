"""The pure parts of ``bench.memory``."""

from __future__ import annotations

import os

import pytest

from bench.memory import memory_mib, slope


def test_slope_ignores_warm_up_and_outliers() -> None:
    """A steady rise is found in spite of a steep begin and of single peaks."""
    samples = [(float(s), 10.0 * s if s < 25 else 250.0 + s / 60) for s in range(100)]
    samples[60] = (60.0, 900.0)
    assert slope(samples)["mib_a_minute"] == pytest.approx(1.0, abs=0.01)


def test_slope_of_two_samples_is_not_told() -> None:
    """Too little says nothing."""
    assert slope([(0.0, 1.0), (1.0, 2.0)]) == {}


def test_memory_of_this_process() -> None:
    """Shared pages count in part only."""
    told = memory_mib(os.getpid())
    assert 0 < told["Pss"] <= told["Rss"]

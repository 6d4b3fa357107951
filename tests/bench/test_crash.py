"""Killed or frozen at each place of a call's life, under load and with faults of the platform, nothing is amiss."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.crash.points import POINTS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]


def crash(*options: str) -> dict[str, Any]:
    """Run the bench, small, and return what it tells."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.crash", "--clients", "8", "--json", *options],
        cwd=ROOT, capture_output=True, text=True, timeout=560, check=False, env=os.environ,
    )  # fmt: skip
    assert done.returncode in {0, 1}, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    assert told["violations"] == []
    return told


@pytest.mark.parametrize("point", POINTS)
def test_killed(point: str) -> None:
    """A worker dies there while orders are bound, changed and released; all books agree in the end."""
    told = crash("--points", point, "--kills", "1", "--modes", "axb,axe,axyb")
    assert told["kills"] == 1
    assert told["orders"] > 0


@pytest.mark.parametrize("point", ["before_send", "in_batch"])
def test_frozen(point: str) -> None:
    """A worker freezes there past its leases, its orders end meanwhile; awake, it changes nothing."""
    told = crash("--freeze", "--points", point)
    assert (told["stale_effects"], told["stale_settles"]) == (0, 0)
    # Between the last look at the lease and the write nothing but the fence can stop it.
    assert told["points"][0]["gone_when_woken"] or point != "before_send"

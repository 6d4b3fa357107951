"""The benches of the audit and of imports, in short."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_planted_differences_are_found_and_no_others() -> None:
    """Of every kind, beside orders that come and go, within the share; and after the mending nothing is left."""
    command = [sys.executable, "-m", "bench.audit", "--bindings", "900", "--each", "4"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False, env=os.environ)
    assert done.returncode == 0, done.stderr + done.stdout[-2000:]
    told = json.loads(done.stdout)
    assert {kind: (one["found"], one["falsely"]) for kind, one in told["kinds"].items()} == dict.fromkeys(
        ("unknown_here", "absent_there", "parties_differ", "expiry_differs", "direction_differs"), (4, 0)
    )
    assert told["imported"]["import"]["new"] == 900
    assert told["orders_meanwhile"] > 0


@pytest.mark.parametrize("mode", ["ax", "axe", "axyb"])
def test_planted_differences_of_the_other_modes(mode: str) -> None:
    """What a mode tells is found, on either side, and nothing else, at the pace of the share."""
    command = [sys.executable, "-m", "bench.audit", "--mode", mode, "--bindings", "60", "--each", "3", "--rate", "500"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False, env=os.environ)
    assert done.returncode == 0, done.stderr + done.stdout[-2000:]
    told = json.loads(done.stdout)
    assert {(one["found"], one["falsely"]) for one in told["kinds"].values()} == {(3, 0)}
    assert {"peer_absent_there", "peer_unknown_here"} <= set(told["kinds"]) or mode != "axyb"

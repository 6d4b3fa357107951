"""The benches of the audit and of imports, in short."""

import json
import os
import subprocess
import sys
from pathlib import Path

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

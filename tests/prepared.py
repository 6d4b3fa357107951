"""State folders as a first ``broker up`` leaves them: made once by each test process, then copied.

A cold start is mostly that; those that are tested themselves begin with a folder of their own.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from tests.pg import memory

_CHECKOUT = Path(__file__).parents[1]
_LIMIT_S = 120.0


def prepare(folder: Path) -> None:
    """Fill an empty or missing folder; one that holds something is left as it is."""
    if folder.exists() and any(folder.iterdir()):
        return
    # With its owners: the server refuses a cluster that is not its account's.
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", f"{_first()}/.", str(folder)], check=True, timeout=_LIMIT_S)


@cache
def _first() -> Path:
    """Return the folder that is copied."""
    folder = Path(tempfile.mkdtemp(prefix="broker-test-", dir=memory()))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    folder.chmod(0o711)
    ours = {name: value for name, value in os.environ.items() if not name.startswith("BROKER_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "broker", "up", "--port", "0", "--json", "--workers", "1", "--state-dir", str(folder)],
        stdout=subprocess.PIPE, cwd=_CHECKOUT, env=ours,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        assert process.stdout.readline(), "`broker up` did not start; its message is above"
        process.send_signal(signal.SIGTERM)
        assert process.wait(_LIMIT_S) == 0
    (folder / "broker.log").unlink()
    return folder

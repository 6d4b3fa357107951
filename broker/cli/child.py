"""The emulator as a child that ends with its parent: ``python -m broker.cli.child PARENT_PID [emulator options]``."""

from __future__ import annotations

import sys

from broker.emulator.__main__ import main
from broker.processes import end_with_parent

if __name__ == "__main__":
    end_with_parent(int(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))

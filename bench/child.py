"""``python -m bench.child PARENT ...``: ``broker ...`` that ends when its parent does, however that ended."""

from __future__ import annotations

import sys

from broker.cli.main import main
from broker.processes import end_with_parent

if __name__ == "__main__":
    parent = int(sys.argv.pop(1))
    end_with_parent(parent)
    main()

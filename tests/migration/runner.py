"""One migration run as a process: ``python -m tests.migration.runner URL DIRECTORY`` prints the names it applied."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from broker.store.migrate import migrate

if __name__ == "__main__":
    for name in asyncio.run(migrate(sys.argv[1], directory=Path(sys.argv[2]))):
        print(name)  # noqa: T201

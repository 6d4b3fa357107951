"""A process that starts an embedded server, says so in one line of JSON, and stops it when its input ends.

``python -m tests.embedded.holder '{"state_dir": ..., "port": ..., "settings": ..., "durable": ...}'``
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from broker.embedded import Embedded, EmbeddedError


def main() -> int:
    """Hold one server."""
    options = json.loads(sys.argv[1])
    embedded = Embedded(Path(options.pop("state_dir")), **options)
    began = time.perf_counter()
    try:
        server = embedded.start()
    except EmbeddedError as error:
        print(json.dumps({"error": str(error)}), flush=True)  # noqa: T201
        return 1
    started_s = time.perf_counter() - began
    print(  # noqa: T201
        json.dumps(
            {"pid": server.pid, "dsn": server.dsn, "socket_dsn": server.socket_dsn, "uid": os.geteuid(), "s": started_s}
        ),
        flush=True,
    )
    sys.stdin.read()
    embedded.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())

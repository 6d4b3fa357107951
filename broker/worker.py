"""One worker process: ``python -m broker.worker``, started by the parent with its own listening sockets."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys

import structlog
import uvloop

from broker import log as logging
from broker import metrics
from broker.app import Worker
from broker.errors import Problem
from broker.processes import end_with_parent
from broker.settings import load
from broker.store.crypto import SealBroken

log = structlog.get_logger()


def main() -> int:
    """Run until the parent says so; 3 = could not start."""
    parser = argparse.ArgumentParser(prog="python -m broker.worker")
    for name in ("ready-fd", "parent"):
        parser.add_argument(f"--{name}", type=int, required=True)
    for name in ("api-fd", "edge-fd"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--seat", required=True)
    parser.add_argument("--metrics", required=True)
    given = parser.parse_args()
    end_with_parent(given.parent)
    settings = load()
    logging.configure(settings.log_level)
    # Requests leave few cycles behind; looking for them at every 700th allocation costs more than it frees.
    gc.set_threshold(20_000, 20, 50)
    metrics.keep_in(given.metrics, given.seat)
    return uvloop.run(_run(given.seat, given.api_fd, given.edge_fd, given.ready_fd))


async def _run(seat: str, api_fd: int | None, edge_fd: int | None, ready_fd: int) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    # Only the parent counts signals: a Ctrl-C to the whole group is its business, a repeated SIGTERM is the same one.
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    try:
        worker = Worker(load(), seat)
        api, edge = (socket.socket(fileno=fd) if fd is not None else None for fd in (api_fd, edge_fd))
        await worker.start(api, edge)
    except (Problem, SealBroken) as error:
        log.error("worker_cannot_start", error=str(error))  # noqa: TRY400 - the sentence says it all
        return 3
    except OSError as error:
        log.error("worker_cannot_start", error=f"{error.filename or ''}: {error.strerror}".lstrip(": "))  # noqa: TRY400
        return 3
    gc.freeze()
    with contextlib.suppress(BrokenPipeError):
        os.write(ready_fd, b"ready\n")
    os.close(ready_fd)
    log.info("worker_ready", pid=os.getpid())
    await stop.wait()
    log.info("worker_draining", pid=os.getpid())
    await worker.drain()
    log.info("worker_stopped", pid=os.getpid())
    return 0


if __name__ == "__main__":
    sys.exit(main())

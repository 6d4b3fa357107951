"""A process that is frozen between the look at a lease and the write does not write when it wakes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

AFTER_S = 1.0
LIMIT_S = 30.0

#: Connects, arms, stops itself, writes, or stops itself only in the next turn; then lives on for long.
_PROCESS = f"""
import asyncio, os, signal, sys
import uvloop
from broker.fence import Fence

async def main(port, place):
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_connection(asyncio.Protocol, "127.0.0.1", port)
    Fence({AFTER_S}).arm()
    if place == "after":
        loop.call_soon(os.kill, os.getpid(), signal.SIGSTOP)
    if place == "before":
        os.kill(os.getpid(), signal.SIGSTOP)
    transport.write(b"late")
    await asyncio.sleep(2 * {AFTER_S})
    transport.write(b" lives")
    await asyncio.sleep(0.1)

uvloop.run(main(int(sys.argv[1]), sys.argv[2]))
"""


@contextmanager
def started(place: str) -> Iterator[tuple[subprocess.Popen[bytes], socket.socket]]:
    """The process, and our end of its connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(LIMIT_S)
        command = [sys.executable, "-c", _PROCESS, str(listener.getsockname()[1]), place]
        with subprocess.Popen(command) as process:
            try:
                peer, _ = listener.accept()
                with peer:
                    peer.settimeout(LIMIT_S)
                    yield process, peer
            finally:
                process.kill()


def wait_stopped(process: subprocess.Popen[bytes]) -> None:
    """Return once it has stopped itself."""
    found = os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    assert found is not None


def thaw(process: subprocess.Popen[bytes]) -> None:
    """Wake it when its timer has long run out."""
    wait_stopped(process)
    time.sleep(1.5 * AFTER_S)
    process.send_signal(signal.SIGCONT)


def everything(peer: socket.socket) -> bytes:
    """All that comes until the end."""
    got = b""
    while more := peer.recv(100):
        got += more
    return got


def test_what_was_not_sent_in_time_never_is() -> None:
    """It is ended by the kernel before it runs on."""
    with started("before") as (process, peer):
        thaw(process)
        assert process.wait(LIMIT_S) == -signal.SIGALRM
        assert everything(peer) == b""


def test_what_was_sent_was_sent_before_the_next_turn() -> None:
    """Frozen in the turn after, the bytes have left, and the process may live on."""
    with started("after") as (process, peer):
        wait_stopped(process)
        assert peer.recv(100) == b"late"
        thaw(process)
        assert process.wait(LIMIT_S) == 0
        assert everything(peer) == b" lives"


def test_nothing_happens_to_who_is_not_frozen() -> None:
    """The timer is off again after the turn."""
    with started("never") as (process, peer):
        assert process.wait(LIMIT_S) == 0
        assert everything(peer) == b"late lives"

"""Ports for servers that must know theirs beforehand."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack

#: Below the range from which systems give ports to whoever asks for any: nobody else comes by one of these by chance.
_FIRST, _LAST = 20_000, 32_000


def free_ports(count: int) -> list[int]:
    """Return that many ports in a row that nobody listens on."""
    for _ in range(200):
        first = random.SystemRandom().randrange(_FIRST, _LAST - count)
        with ExitStack() as held:
            try:
                for port in range(first, first + count):
                    held.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return list(range(first, first + count))
    raise AssertionError("no free ports")

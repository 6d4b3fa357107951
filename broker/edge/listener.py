"""How the listener reads requests: more leniently than HTTP has it where the platform does not keep to it."""

from __future__ import annotations

import re
from typing import Final

from broker.api.server import Protocol, Runner

_HEAD_END: Final = b"\r\n\r\n"
_CONTENT_TYPE: Final = re.compile(rb"\r\ncontent-type:[^\r\n]*", re.IGNORECASE)


class EdgeProtocol(Protocol):
    """A connection of the platform's, which says its content type twice at times (contract 6.2).

    The HTTP parser refuses that before anybody is asked. A head comes in one piece, or the request is refused after all
    and pushed again.
    """

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        """Hand on what came, without a repeated content type in a request's head."""
        if data.startswith(b"POST /n/"):
            data = said_once(data)
        super().data_received(data)


class EdgeRunner(Runner):
    """Serves the listener."""

    __slots__ = ()
    protocol = EdgeProtocol


def said_once(data: bytes) -> bytes:
    """Return a request whose head names its content type once, the first time."""
    head, end, rest = data.partition(_HEAD_END)
    said = list(_CONTENT_TYPE.finditer(head))
    for again in reversed(said[1:]):
        head = head[: again.start()] + head[again.end() :]
    return head + end + rest

"""Binds that come in one piece are read here, and their answers written, without the framework's requests.

Through the framework's parser, router, request and response a bind cost a third of its CPU here (decision 0024). Only
what is as plain as can be is read: the one line, every name once, nothing to negotiate. Whatever else comes goes to the
framework and gets its answer, or its refusal, there. Behind both lies the same endpoint.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from aiohttp.helpers import rfc822_formatted_time
from multidict import CIMultiDict

METHOD: Final = "POST"
PATH: Final = "/v1/bindings"
_LINE: Final = f"{METHOD} {PATH} HTTP/1.1\r\n".encode()
#: Fields as everybody writes them: a name, one blank, printable ASCII that neither begins nor ends with a blank.
_FIELDS: Final = re.compile(rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+: [\x21-\x7e][\x20-\x7e]*(?<! )\r\n)+")
_MOST_FIELDS: Final = 100
_LONGEST_HEAD: Final = 8 * 1024
#: What only the framework knows of.
_UNUSUAL: Final = frozenset({"transfer-encoding", "expect", "upgrade", "content-encoding", "proxy-connection"})
_STATUS_LINES: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}


class Whole(dict[str, Any]):
    """A bind with its body. What is noted of it on its way are its items, as the framework has it."""

    __slots__ = ("_task", "body", "headers", "protocol")
    method = METHOD
    raw_path = PATH

    def __init__(self, headers: CIMultiDict[str], body: bytes, protocol: object) -> None:
        """``protocol`` is the connection it came on."""
        super().__init__()
        self.headers = headers
        self.body = body
        self.protocol = protocol
        self._task: object = None  # the framework lets go of a request's task when it is done

    async def read_body(self, _limit: int) -> bytes:
        """Return the body, which is here and within the route's limit."""
        return self.body


def read(data: bytes, protocol: object, *, body_bytes: int) -> Whole | None:
    """Return the bind that the bytes are, its body at most ``body_bytes``; None = they are no plain, whole one."""
    if not data.startswith(_LINE):
        return None
    end = data.find(b"\r\n\r\n", 0, _LONGEST_HEAD)
    if end < 0 or len(data) - end - 4 > body_bytes or _FIELDS.fullmatch(data, len(_LINE), end + 2) is None:
        return None
    lines = data[len(_LINE) : end].decode("ascii").split("\r\n")
    fields = [(name, value) for name, _, value in (line.partition(": ") for line in lines)]
    headers, body = CIMultiDict(fields), data[end + 4 :]
    names = {name.lower() for name, _ in fields}
    if len(names) < len(fields) or len(fields) > _MOST_FIELDS or "host" not in names or names & _UNUSUAL:
        return None
    if "connection" in names and headers["Connection"].lower() != "keep-alive":
        return None
    return Whole(headers, body, protocol) if headers.get("Content-Length") == str(len(body)) else None


def write(status: int, headers: Mapping[str, str], body: bytes) -> bytes:
    """Return the answer; ``headers`` hold nothing that a client chose freely."""
    fields = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    head = f"{_STATUS_LINES[status]}{fields}Content-Length: {len(body)}\r\nDate: {rfc822_formatted_time()}\r\n\r\n"
    return head.encode("latin-1") + body

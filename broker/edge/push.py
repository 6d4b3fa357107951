"""A push as it came in, however its bytes were read; and the one that can be read without a framework."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, Protocol

from aiohttp.helpers import rfc822_formatted_time

from broker.api.door import complete

#: 50 records of a push are about 75 KB, 100 numbers 8.
BODY_BYTES: Final = 1024 * 1024
#: So much is kept together for who has not been judged by a signature; what is longer the framework reads.
_HELD_BYTES: Final = 128 * 1024
_LINE: Final = re.compile(rb"POST /n/([a-z0-9][a-z0-9_-]{0,62})/([a-z][a-z-]{0,30}) HTTP/1\.1\r\n")
#: Every line of a head is a name, a colon and what stands behind it; whatever else there is, the parser judges.
_FIELDS: Final = re.compile(rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\r\n\x00]*\r\n)*")
_SIGNATURE: Final = re.compile(rb"^(x-aksk|x-wsse):[ \t]*([^\r]*?)[ \t]*\r", re.IGNORECASE | re.MULTILINE)
_LENGTH: Final = re.compile(rb"^content-length:[ \t]*([0-9]{1,7})[ \t]*\r", re.IGNORECASE | re.MULTILINE)


class Push(Protocol):
    """A request to ``/n/{app}/{kind}``. ``headers`` hold X-AKSK and X-WSSE, if it has them; ``peer`` is its address."""

    @property
    def app(self) -> str:
        """Whose it is, as its path says."""
        ...

    @property
    def kind(self) -> str:
        """What it tells of, as its path says."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Its signature."""
        ...

    @property
    def peer(self) -> str | None:
        """Where it came from."""
        ...

    async def body(self) -> bytes:
        """Return what it says."""
        ...


@dataclass(frozen=True, slots=True)
class Whole:
    """A push that came in one piece."""

    app: str
    kind: str
    headers: Mapping[str, str] = field(repr=False)
    peer: str | None
    said: bytes = field(repr=False)

    async def body(self) -> bytes:
        """Return what it says."""
        return self.said


@dataclass(frozen=True, slots=True)
class Answer:
    """What is said to a push: never more than this."""

    status: int = 200
    body: bytes = b""
    retry_s: int | None = None

    @property
    def headers(self) -> dict[str, str]:
        """Those that depend on what is said."""
        told = {"Content-Type": "application/json; charset=UTF-8"} if self.body else {}
        return told if self.retry_s is None else {**told, "Retry-After": str(self.retry_s)}

    def __bytes__(self) -> bytes:
        """The whole answer as it goes out."""
        lines = [f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        lines += [f"Content-Length: {len(self.body)}", f"Date: {rfc822_formatted_time()}", "\r\n"]
        return "\r\n".join(lines).encode("ascii") + self.body


def whole(data: bytes, peer: str | None) -> Whole | None:
    """Return the push that these bytes are, if they are one, whole, plain and nothing else."""
    line = _LINE.match(data)
    if line is None or not complete(data):
        return None
    end = data.find(b"\r\n\r\n") + 2
    if _FIELDS.fullmatch(data, line.end(), end) is None:
        return None
    signed: dict[str, str] = {}
    for name, value in _SIGNATURE.findall(data, line.end(), end):
        # Of one that comes twice the first counts.
        signed.setdefault(name.decode("ascii").upper(), value.decode("latin-1"))
    return Whole(line[1].decode("ascii"), line[2].decode("ascii"), signed, peer, data[end + 2 :])


def begun(data: bytes) -> bool:
    """Tell whether a push has come as far as its head, and the rest of a body that is not too long is to follow."""
    end = data.find(b"\r\n\r\n", 0, 8192)
    if end < 0 or _LINE.match(data) is None or b"\r\nexpect:" in data[:end].lower():
        return False
    lengths = _LENGTH.findall(data, 0, end + 2)
    return len(lengths) == 1 and end + 4 + int(lengths[0]) > len(data) and int(lengths[0]) <= _HELD_BYTES

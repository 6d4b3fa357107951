"""One HTTP/1.1 connection on ``httptools``: one request out, one answer in, and whether it may be used again.

Nothing here sends anything twice. Once a byte was handed to the transport the only outcomes are a whole answer or
:class:`CallError` with ``written=True``.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple, cast

import httptools

from broker.alarms import alarm_at
from broker.platform.protocol import Permit

_FIRST_FINAL_STATUS: Final = 200
#: All that can be pending on a connection nobody uses: the server's end of it, or bytes nobody asked for.
_ANY_INPUT: Final = select.POLLIN | select.POLLHUP | select.POLLERR


class CallError(Exception):
    """No whole answer came; ``written`` says whether any byte of the request may have left this process."""

    def __init__(self, reason: str, *, written: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.written = written


class HttpAnswer(NamedTuple):
    """A whole answer. ``date`` and ``location`` are those headers' texts, ``""`` when there were none."""

    status: int
    body: bytes
    date: str
    location: str


@dataclass(frozen=True, slots=True)
class AnswerRules:
    """How many bytes an answer may have, as received (a chunked one pays for its framing too), and what follows it."""

    head_cap_bytes: int
    whole_cap_bytes: int
    keep_alive: bool


class Connection(asyncio.Protocol):
    """The client's side of one connection; ``on_lost`` is called once when it is gone."""

    def __init__(self, rules: AnswerRules, on_lost: Callable[[Connection], None]) -> None:
        self._rules = rules
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._parser = httptools.HttpResponseParser(self)
        self._poll = select.poll()
        self._waiter: asyncio.Future[HttpAnswer] | None = None
        self.reusable = False  # a request may be written: nothing is under way and nothing went wrong
        self.server_closes = False  # a whole answer came and the server said it closes: leave that to it (1.1)
        self.idle_since = 0.0
        self._reset()

    def _reset(self) -> None:
        self._received = 0
        self._head_bytes = 0
        self._head_done = False
        self._framed = False
        self._complete = False
        self._status = 0
        self._keep = False
        self._surplus = False
        self._date = b""
        self._location = b""
        self._body: list[bytes] = []

    async def exchange(self, request: bytes, permit: Permit, deadline: float) -> HttpAnswer | None:
        """Write ``request`` if the permit holds, and return the answer; ``None`` if withheld: nothing was written.

        There is no await between the permit and the write. ``deadline`` is on the loop's clock. Raises ``CallError``,
        always with ``written=True``.
        """
        waiter: asyncio.Future[HttpAnswer] = self._loop.create_future()
        alarm = alarm_at(deadline, self._expire)
        try:
            if not permit():
                return None
            self._waiter = waiter
            self.reusable = False
            self._transport.write(request)
            return await waiter
        finally:
            alarm.cancel()
            self._waiter = None

    def is_open(self) -> bool:
        """Tell whether a request may be written, as far as the loop has read."""
        return self.reusable and not self._transport.is_closing()

    def is_quiet(self) -> bool:
        """Tell whether an idle connection still is one, including what the loop has not read yet.

        The poll (0.5 µs) finds a server that closed a moment ago, which would otherwise cost an unknown outcome.
        """
        return self.is_open() and not self._poll.poll(0)

    def abort(self) -> None:
        """Close at once, dropping what is buffered."""
        self.reusable = False
        self._transport.abort()

    def _expire(self) -> None:
        self._fail("no whole answer in time")

    def _fail(self, reason: str) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(CallError(reason, written=True))

    def _finish(self) -> None:
        date, location = self._date.decode("latin-1"), self._location.decode("latin-1")
        answer = HttpAnswer(self._status, b"".join(self._body), date, location)
        self.server_closes = not self._keep and not self._surplus
        self.reusable = self._keep and not self._surplus
        self._reset()
        if self._waiter is not None:
            self._waiter.set_result(answer)

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; from here on the connection may be used."""
        self._transport = cast("asyncio.Transport", transport)
        self._poll.register(transport.get_extra_info("socket").fileno(), _ANY_INPUT)
        self.reusable = True

    def data_received(self, data: bytes) -> None:
        """Take bytes of the answer; bytes that nobody asked for, or past a cap, end the connection."""
        if self._waiter is None or self._waiter.done():
            self.abort()
            return
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._spoil("the answer switches protocols")
        except httptools.HttpParserError:
            self._surplus = True
            if not self._complete:
                self._spoil("the answer is malformed")
        self._check_caps()
        if self._complete:
            self._finish()

    def _spoil(self, reason: str) -> None:
        self._fail(reason)
        self._complete = False
        self.abort()

    def _check_caps(self) -> None:
        in_head = self._head_bytes if self._head_done else self._received
        if in_head > self._rules.head_cap_bytes:
            self._spoil("the answer's header is too large")
        elif self._received > self._rules.whole_cap_bytes:
            self._spoil("the answer is too large")

    def eof_received(self) -> None:
        """Take the server's end: it ends an answer that has no length of its own."""
        self._end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Report the loss to whoever waits, and to the pool."""
        self.reusable = False
        self._end(exc)
        self._on_lost(self)

    def _end(self, exc: Exception | None) -> None:
        if self._waiter is None or self._waiter.done():
            return
        if exc is None and self._head_done and not self._framed:
            self._status = self._parser.get_status_code()
            self._finish()
        else:
            self._fail("the connection was lost before the whole answer came")

    # What the parser calls. After the answer's end it may go on with bytes that follow: those only count as surplus.

    def on_message_begin(self) -> None:
        """Notice a second message behind the first."""
        self._surplus = self._complete

    def on_header(self, name: bytes, value: bytes | None) -> None:
        """Count the header, trailers included, and keep what matters. The parser gives an empty value as ``None``."""
        if self._complete:
            return
        self._head_bytes += len(name) + len(value or b"") + 4
        lowered = name.lower()
        if lowered == b"date":
            self._date = value or b""
        elif lowered in {b"content-length", b"transfer-encoding"}:
            self._framed = True
        elif lowered == b"location":
            self._location = value or b""

    def on_headers_complete(self) -> None:
        """Learn whether the connection stays open after this answer."""
        if not self._complete:
            self._head_done = True
            self._keep = self._rules.keep_alive and self._parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        """Collect the body."""
        if not self._complete:
            self._body.append(body)

    def on_message_complete(self) -> None:
        """End the answer, or step over an interim one (1xx)."""
        if self._complete:
            return
        self._status = self._parser.get_status_code()
        self._complete = self._status >= _FIRST_FINAL_STATUS
        if not self._complete:
            self._head_done = self._framed = False

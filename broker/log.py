"""JSON lines; whatever looks like a phone number is scrubbed, wherever it came from."""

from __future__ import annotations

import asyncio
import atexit
import json
import logging
import re
import sys
import threading
from collections.abc import MutableMapping
from typing import Any, BinaryIO

import orjson
import structlog

# Letters around it do not make it something else: %2B8613..., tel8613....
_DIGITS = re.compile(r"\+?[0-9]{7,}")
_SHORTEST = 7
_LARGEST = 10**_SHORTEST

#: Fields whose values are ids or times of ours and may hold long runs of digits.
_EXEMPT = frozenset(
    {"timestamp", "level", "event", "request_id", "traceparent", "binding", "line", "pid", "port", "ms", "seconds"}
)


def scrub(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace runs of 7 to 20 digits in every field that is not an id or a time."""
    for name, value in event.items():
        if value is not None and name not in _EXEMPT:
            event[name] = _clean(value)
    return event


def scrubbed(text: str) -> str:
    """Return ``text`` with every run of seven digits or more replaced."""
    return _DIGITS.sub("[number]", text) if len(text) >= _SHORTEST else text


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return scrubbed(value)
    if isinstance(value, bool | None):
        return value
    if isinstance(value, int | float):
        return value if abs(value) < _LARGEST else "[number]"
    if isinstance(value, dict):
        return {_clean(key): _clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(item) for item in value]
    return _clean(str(value))


def configure(level: str, stream: BinaryIO | None = None) -> None:
    """Set logging up for this process: `level` is a name of the logging module, `stream` None is stdout."""
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            scrub,
            structlog.processors.JSONRenderer(serializer=_line),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=_Lines(stream or sys.stdout.buffer),
        cache_logger_on_first_use=True,
    )
    # What libraries say goes the same way, so that nothing of theirs escapes the scrubber.
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[_ToStructlog()], force=True)


class _Lines:
    """Writes lines, those of one turn of the loop at once: a system call for each costs as much as making it.

    From a warning on nothing waits. What a killed process had not written are its last moment's answers.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._waiting: list[bytes] = []
        atexit.register(self._write)

    def __call__(self, *_arguments: Any) -> _Lines:
        return self

    def debug(self, line: bytes) -> None:
        """Write it when the loop has turned; at once where there is none."""
        with self._lock:
            self._waiting.append(line)
            first = len(self._waiting) == 1
        if first:
            try:
                asyncio.get_running_loop().call_soon(self._write)
            except RuntimeError:
                self._write()

    info = debug

    def warning(self, line: bytes) -> None:
        """Write it, and what waits, at once."""
        with self._lock:
            self._waiting.append(line)
        self._write()

    error = critical = warning

    def _write(self) -> None:
        with self._lock:
            lines, self._waiting = self._waiting, []
            if lines:
                self._stream.write(b"\n".join(lines) + b"\n")
                self._stream.flush()


def _line(event: Any, **_: Any) -> bytes:
    try:
        return orjson.dumps(event, default=str)
    except TypeError:
        # Lone surrogates, integers beyond 64 bits: rare, and no reason to lose the line or the request.
        return json.dumps(event, default=str, ensure_ascii=False).encode(errors="replace")


class _ToStructlog(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else None
        structlog.get_logger().warning("library", name=record.name, message=record.getMessage(), error=error)

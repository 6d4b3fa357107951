"""JSON lines on stdout; whatever looks like a phone number is scrubbed, wherever it came from."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import orjson
import structlog

_DIGITS = re.compile(r"(?<![0-9A-Za-z])\+?[0-9]{7,20}(?![0-9A-Za-z])")

#: Fields whose values are ids or times of ours and may hold long runs of digits.
_EXEMPT = frozenset(
    {"timestamp", "level", "event", "request_id", "traceparent", "binding", "line", "pid", "port", "ms", "seconds"}
)


def scrub(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace runs of 7 to 20 digits in every field that is not an id or a time."""
    for name, value in event.items():
        if name not in _EXEMPT:
            event[name] = _clean(value)
    return event


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return _DIGITS.sub("[number]", value) if len(value) >= 7 else value  # noqa: PLR2004 - shortest number
    if isinstance(value, bool | float | None):
        return value
    if isinstance(value, int):
        return value if abs(value) < 10_000_000 else "[number]"  # noqa: PLR2004 - seven digits and more
    if isinstance(value, dict):
        return {_clean(key): _clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(item) for item in value]
    return _clean(str(value))


def configure(level: str) -> None:
    """Set logging up for this process; `level` is a name of the logging module."""
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            scrub,
            structlog.processors.JSONRenderer(serializer=orjson.dumps),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.BytesLoggerFactory(file=sys.stdout.buffer),
        cache_logger_on_first_use=True,
    )
    # What libraries say goes the same way, so that nothing of theirs escapes the scrubber.
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[_ToStructlog()], force=True)


class _ToStructlog(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else None
        structlog.get_logger().warning("library", name=record.name, message=record.getMessage(), error=error)

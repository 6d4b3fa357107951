"""The log shows no phone number, whatever it is wrapped in."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
import structlog

from broker import log
from broker.domain.phone import PhoneNumber

_NUMBER = "8613900000001"


@pytest.mark.parametrize(
    "text",
    [
        f"+{_NUMBER}",
        _NUMBER,
        f"tel:+{_NUMBER}",
        f"tel{_NUMBER}",
        f"%2B{_NUMBER}",
        f"x{_NUMBER}y",
        f"_{_NUMBER}_",
        f"{_NUMBER}{_NUMBER}",
        f"(+{_NUMBER},+{_NUMBER})",
        "13900000001",
        "0755 1234567",
        f"\u6f22{_NUMBER}\u6f22",
    ],
)
def test_runs_of_digits_are_scrubbed_in_every_field(text: str) -> None:
    """Seven digits and more vanish from any value of any shape."""
    for value in (text, [text], (text,), {text}, {"k": {"l": [text]}}, {text: 1}, ValueError(text), text.encode()):
        shown = orjson.dumps(log.scrub(None, "info", {"event": "e", "field": value}))
        assert b"13900000001" not in shown
        assert b"1234567" not in shown
        assert b"[number]" in shown


@pytest.mark.parametrize("value", [8613900000001, -8613900000001, 10**7, 8613900000001.0, 10**40])
def test_numbers_that_are_numbers_are_scrubbed(value: float) -> None:
    """An integer or float of seven digits and more may be a phone as well."""
    assert log.scrub(None, "info", {"field": value}) == {"field": "[number]"}


def test_what_is_short_or_ours_stays() -> None:
    """Small numbers, flags and fields that hold our own ids and times stay as they are."""
    kept: dict[str, Any] = {
        "count": 9_999_999, "flag": True, "nothing": None, "text": "123456", "share": 0.25,
        "binding": "bnd_06h06rnaf1u5f4nm6vh8d9bhc4000001", "request_id": "20260101000000", "ms": 12345678.5,
        "line": "01a2036e-ea78-7b62-a1f1-123456789012", "timestamp": "2026-01-01T00:00:00.1234567Z",
    }  # fmt: skip
    assert log.scrub(None, "info", dict(kept)) == kept


def test_a_phone_prints_masked() -> None:
    """A PhoneNumber shows its last four digits, in text and in containers."""
    number = PhoneNumber(f"+{_NUMBER}")
    for shown in (str(number), repr(number), f"{[number]}"):
        assert "+86*******" in shown or "+86******" in shown
        assert _NUMBER not in shown


@pytest.fixture
def written() -> Iterator[io.BytesIO]:
    """What a configured process writes."""
    stream = io.BytesIO()
    before, level = list(logging.root.handlers), logging.root.level
    log.configure("info", stream)
    yield stream
    structlog.reset_defaults()
    logging.root.handlers[:] = before
    logging.root.setLevel(level)


def _raise(error: Exception) -> None:
    raise error


def test_tracebacks_are_scrubbed(written: io.BytesIO) -> None:
    """A logged exception shows where it was raised, without the number in its message."""
    try:
        _raise(ValueError(f"no such party: +{_NUMBER}"))
    except ValueError:
        structlog.get_logger().exception("went_wrong", line="kept")
    line = orjson.loads(written.getvalue())
    assert "no such party: [number]" in line["exception"]
    assert _NUMBER not in written.getvalue().decode()


def test_libraries_are_scrubbed(written: io.BytesIO) -> None:
    """What libraries log through the standard module goes through the same scrubber, exceptions by type only."""
    try:
        _raise(KeyError(f"+{_NUMBER}"))
    except KeyError:
        logging.getLogger("aiohttp.server").exception("Error handling %s", f"+{_NUMBER}")
    line = orjson.loads(written.getvalue())
    assert line["message"] == "Error handling [number]"
    assert line["error"] == "KeyError"
    assert _NUMBER not in written.getvalue().decode()


def test_text_that_is_no_unicode_can_be_written(written: io.BytesIO) -> None:
    """Lone surrogates, as odd bytes in a header become, never break the line that they are in."""
    structlog.get_logger().info("seen", header="\udcff\udcfe", nested={"k": ["\ud800"]})
    assert orjson.loads(written.getvalue())["event"] == "seen"

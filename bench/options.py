"""Options with bounds: what is out of them is told in one sentence before anything starts; and JSON."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import orjson

from bench.stack import BenchError

_Number = TypeVar("_Number", int, float)


def whole(low: int, high: int) -> Callable[[str], int]:
    """Return the type of an option that is a whole number from ``low`` to ``high``."""
    return lambda text: _within(int(text), low, high)


def number(low: float, high: float) -> Callable[[str], float]:
    """Return the type of an option that is a number from ``low`` to ``high``."""
    return lambda text: _within(float(text), low, high)


def _within(value: _Number, low: float, high: float) -> _Number:
    if not low <= value <= high:
        raise argparse.ArgumentTypeError(f"must be from {low:g} to {high:g}")
    return value


def measured(
    parser: argparse.ArgumentParser, measure: Callable[[argparse.Namespace], Coroutine[Any, Any, dict[str, Any]]]
) -> int:
    """Add ``--json``, measure, and print the result as JSON if asked; 1 = it has ``violations``, 2 = there is none.

    What is printed meanwhile goes to standard error then.
    """
    parser.add_argument("--json", action="store_true", help="print the result as JSON, and the rest on stderr")
    options = parser.parse_args()
    try:
        with contextlib.redirect_stdout(sys.stderr if options.json else sys.stdout):
            told = asyncio.run(measure(options))
    except BenchError as error:
        print(error, file=sys.stderr)
        return 2
    if options.json:
        print(orjson.dumps(told, option=orjson.OPT_INDENT_2).decode())
    return 1 if told["violations"] else 0

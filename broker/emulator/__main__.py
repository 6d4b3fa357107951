"""``python -m broker.emulator``: an emulator as a process of its own."""

from __future__ import annotations

import argparse
import gc
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import orjson
import structlog
import uvloop
from pydantic import ValidationError

from broker.emulator.journal import StateDirBusyError
from broker.emulator.server import serve
from broker.emulator.settings import EmulatorSettings


def main(argv: Sequence[str] | None = None) -> int:
    """Run until SIGTERM; returns 0, or 2 for settings that cannot be served."""
    options = _parser().parse_args(argv)
    as_json = options.json
    given = {name: value for name, value in vars(options).items() if name not in {"json", "setting"}}
    try:
        given.update(_settings(options.setting))
        settings = EmulatorSettings.model_validate(given)
        run(settings, as_json=as_json)
    except (ValidationError, StateDirBusyError, OSError, ValueError) as error:
        print(f"emulator: {error}", file=sys.stderr)  # noqa: T201 - a command line's own words
        return 2
    return 0


def run(settings: EmulatorSettings, *, as_json: bool = False) -> None:
    """Run an emulator in this process on its own event loop; logs go to stderr, the ready line to stdout."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    # Bindings live long and form no cycles: looking at all of them again and again is the largest pause there is.
    gc.set_threshold(50_000, 50, 100)

    def ready(wire_url: str, admin_url: str) -> None:
        gc.freeze()
        line = orjson.dumps({"emulator": wire_url, "emulator_admin": admin_url}).decode()
        print(line if as_json else f"wire  {wire_url}\nadmin {admin_url}", flush=True)  # noqa: T201 - the ready line

    uvloop.run(serve(settings, ready=ready))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m broker.emulator",
        description="PrivateNumber platform emulator.",
        epilog="`broker emulate calls` drives calls and messages at one that runs.",
    )
    add = parser.add_argument
    add("--state-dir", type=Path, required=True, help="folder of the durable state")
    add("--host", default="127.0.0.1", help="address of the wire (default %(default)s)")
    add("--port", type=int, default=0, help="port of the wire, 0 = any (default)")
    add("--admin-port", type=int, default=0, help="loopback port of the admin interface, 0 = any (default)")
    add("--no-keep-alive", dest="keep_alive", action="store_false", help="close after each answer")
    add("--rate", dest="default_rate", type=float, default=50.0, help="requests/s per app put without rate; 0 = off")
    add("--burst", dest="default_burst", type=float, help="bucket size of an app put without burst")
    add("--certfile", type=Path, help="serve the wire over TLS with this certificate")
    add("--keyfile", type=Path, help="key of --certfile if it is not in the same file")
    add("--set", dest="setting", action="append", default=[], metavar="NAME=VALUE", help="any other setting")
    add("--json", action="store_true", help="print one ready line of JSON")
    return parser


def _settings(pairs: Sequence[str]) -> dict[str, str]:
    settings = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"--set {pair}: NAME=VALUE is wanted")
        settings[name] = value
    return settings


if __name__ == "__main__":
    sys.exit(main())

"""``broker demo``: finds the broker to play with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from broker.demo.run import Options
from broker.demo.run import run as play
from broker.demo.target import NoTarget, Target, beside
from broker.embedded import default_state_dir


def run(state_dir: str | None, url: str | None, key: str | None, emulator: str | None, **options: Any) -> int:
    """Play, and return the exit code."""
    try:
        target = _target(state_dir, url, key, emulator)
    except NoTarget as error:
        click.echo(str(error), err=True)
        return 2
    return play(target, Options(**options))


def _target(state_dir: str | None, url: str | None, key: str | None, emulator: str | None) -> Target:
    if url is None and key is None and emulator is None:
        return beside(Path(state_dir) if state_dir else default_state_dir())
    if url is None or key is None or emulator is None:
        raise NoTarget("--url, --key and --emulator belong together.")
    return Target(url.rstrip("/"), emulator.rstrip("/"), None, key)

"""``broker emulate calls``: from options to an exit code."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import click
import orjson

from broker.demo.target import NoTarget, beside, refuse_far
from broker.embedded import default_state_dir
from broker.traffic import view
from broker.traffic.mix import Dice, Mix, MixError, read
from broker.traffic.platform import Platform, PlatformError
from broker.traffic.play import AT_ONCE, Traffic

_REFUSED, _INTERRUPTED = 2, 130


def run(
    mix: str | None, seed: int, state_dir: str | None, emulator: str | None, *,
    anywhere: bool, as_json: bool, **bounds: Any,
) -> int:  # fmt: skip
    """Drive traffic within ``bounds`` and tell what came of it; 2 = it could not be driven."""
    try:
        chosen = Mix() if mix is None else read(Path(mix))
        folder = Path(state_dir) if state_dir else default_state_dir()
        address = emulator if emulator is not None else beside(folder).emulator
        if not anywhere:
            refuse_far([address])
        told = asyncio.run(_drive(address, Dice(chosen, seed), **bounds))
    except KeyboardInterrupt:
        return _INTERRUPTED
    except (MixError, NoTarget, PlatformError, aiohttp.ClientError, TimeoutError, ExceptionGroup) as error:
        click.echo(_words(error), err=True)
        return _REFUSED
    _tell(told, as_json=as_json)
    return 0


async def _drive(address: str, dice: Dice, **bounds: Any) -> dict[str, Any]:
    platform = Platform(address, AT_ONCE)
    traffic = Traffic(platform, dice, **bounds)
    showing = asyncio.create_task(view.show(traffic.tally))
    try:
        await traffic.play()
    finally:
        showing.cancel()
        with suppress(asyncio.CancelledError):
            await showing
        await platform.close()
    return view.report(traffic.tally)


def _words(error: Exception) -> str:
    """Return what went wrong; raises what is no trouble of the network but a mistake of ours."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    if not isinstance(error, (MixError, NoTarget, PlatformError, aiohttp.ClientError, TimeoutError)):
        raise error
    return str(error) or "No answer in time."


def _tell(told: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        sys.stdout.buffer.write(orjson.dumps(told) + b"\n")
        sys.stdout.flush()
        return
    rows = view.lines(told)
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        click.echo(f"{name:<{width}}  {value}" if sys.stdout.isatty() else f"{name}\t{value}")

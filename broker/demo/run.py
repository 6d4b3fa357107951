"""``broker demo``: from options to an exit code."""

from __future__ import annotations

import asyncio
import secrets
import sys
from dataclasses import dataclass
from typing import Any

import aiohttp
import click
import orjson

from broker.demo import feed, view
from broker.demo.city import lunch_hour
from broker.demo.pace import Moved, Wall, has_test_clock
from broker.demo.play import City, ask, ledger, ledger_end
from broker.demo.report import lines, platform_calls, report
from broker.demo.target import NoTarget, Target, refuse_elsewhere

_TIMEOUT_S = 15.0
_OK = 200
_RUNS = 10_000
_REFUSED, _WRONG_PERSON, _INTERRUPTED = 2, 1, 130


@dataclass(frozen=True, slots=True)
class Options:
    """How large the city is and how fast its time passes."""

    couriers: int
    minutes: int
    seconds: int
    seed: int
    anywhere: bool
    as_json: bool


def run(target: Target, options: Options) -> int:
    """Play the hour and tell what came of it; 1 = a wrong person was reached, 2 = it could not be played."""
    try:
        if not options.anywhere:
            refuse_elsewhere(target)
        told = asyncio.run(_play(target, options))
    except KeyboardInterrupt:
        return _INTERRUPTED
    except (NoTarget, aiohttp.ClientError, TimeoutError, ExceptionGroup) as error:
        click.echo(_words(error), err=True)
        return _REFUSED
    _tell(told, as_json=options.as_json)
    return _WRONG_PERSON if told["calls"]["wrong_person"] else 0


def _words(error: Exception) -> str:
    """Return what went wrong; raises what is no trouble of the network but a mistake of ours."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    if not isinstance(error, (NoTarget, aiohttp.ClientError, TimeoutError)):
        raise error
    return str(error) or "No answer in time."


async def _play(target: Target, options: Options) -> dict[str, Any]:
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout) as http:
        pool = await _largest_pool(http, target)
        length_s = options.minutes * 60
        speed = max(length_s / options.seconds, 1.0)
        moved = await has_test_clock(http, target.admin)
        after = await ledger_end(http, target)
        pace = Moved(http, target.admin or "", speed, length_s) if moved else Wall(speed)
        hour = lunch_hour(
            couriers=options.couriers, minutes=options.minutes, seed=options.seed, run=secrets.randbelow(_RUNS),
            least_ttl_s=pace.least_ttl_s,
        )  # fmt: skip
        city = City(hour, http, target, pace, pool)
        heard = city.tally.heard
        beside = [
            asyncio.create_task(view.show(city, length_s)),
            asyncio.create_task(feed.follow(http, target, await feed.newest(http, target), heard)),
        ]
        try:
            await city.play()
            await feed.rest(heard, city.tally.calls.total())
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
        rows: list[dict[str, Any]] = []
        await ledger(http, target, after, rows.append)
        spent = platform_calls(rows, hour, city.tally)
        return report(hour, city.tally, spent, seed=options.seed, clock="test" if moved else "real")


async def _largest_pool(http: aiohttp.ClientSession, target: Target) -> dict[str, Any]:
    status, told = await ask(http, target, "GET", "/v1/pools")
    if status != _OK:
        raise NoTarget(f"The broker answers {status}: {told.get('detail', 'nothing more')}")
    pools = [pool for pool in told["items"] if pool["state"] == "open"]
    if not pools:
        raise NoTarget("The key's app has no open pool.")
    return dict(max(pools, key=lambda pool: int(pool["open"])))


def _tell(told: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        sys.stdout.buffer.write(orjson.dumps(told) + b"\n")
        sys.stdout.flush()
        return
    width = max(len(name) for name, _ in lines(told))
    for name, value in lines(told):
        click.echo(f"{name:<{width}}  {value}" if sys.stdout.isatty() else f"{name}\t{value}")

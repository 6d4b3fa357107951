"""What the broker tells of the hour: its event feed, followed while the city plays."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Final

import aiohttp

from broker.demo.play import ask
from broker.demo.target import NoTarget, Target

_PAGE: Final = 200
_WAIT_S: Final = 2
_PAUSE_S: Final = 0.5
_OK: Final = 200
#: After so many pauses without a word nothing more is told.
_SILENT: Final = 20


async def newest(http: aiohttp.ClientSession, target: Target) -> str:
    """Return where the feed ends now."""
    status, told = await ask(http, target, "GET", "/v1/events?after=latest")
    if status != _OK:
        raise NoTarget(f"The broker answers {status}: {told.get('detail', 'nothing more')}")
    return str(told["next_after"])


async def follow(http: aiohttp.ClientSession, target: Target, after: str, heard: Counter[str]) -> None:
    """Count events by type as they come, until cancelled."""
    while True:
        path = f"/v1/events?after={after}&limit={_PAGE}&wait_s={_WAIT_S}"
        try:
            status, told = await ask(http, target, "GET", path)
        except (aiohttp.ClientError, TimeoutError):
            status, told = 0, {}
        if status != _OK:
            await asyncio.sleep(_PAUSE_S)
            continue
        heard.update(event["type"] for event in told["items"])
        after = told["next_after"]


async def rest(heard: Counter[str], placed: int) -> None:
    """Wait until each call that was placed has its end and its record, as long as anything is told."""
    last, silent = heard.total(), 0
    while min(heard["call.ended"], heard["cdr.created"]) < placed and silent < _SILENT:
        await asyncio.sleep(_PAUSE_S)
        silent = silent + 1 if heard.total() == last else 0
        last = heard.total()

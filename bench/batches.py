"""Batches as an order system sends them: bodies made beforehand, clients that send them one after the other."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import aiohttp
import orjson

from bench.stack import BenchError

#: Statuses that items have; counted in the answer's bytes, because reading it all would be load on the same processors.
_STATUSES = (201, 202, 409, 422, 500, 502, 503)


@dataclass(slots=True)
class Tally:
    """What the items of all batches were answered, and how long each batch took, in seconds."""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)

    def ms(self, share: float) -> float:
        """Return the time that ``share`` of the batches did not exceed, in milliseconds."""
        ordered = sorted(self.seconds)
        return ordered[min(int(len(ordered) * share), len(ordered) - 1)] * 1000 if ordered else 0.0


class Items:
    """Makes items: couriers who have several orders at a time, customers who have about one."""

    def __init__(self, seed: int, pools: Sequence[str], *, zipf: bool = False) -> None:
        """Draw pools evenly; with ``zipf`` the k-th one 1/k as often as the first."""
        self._random = random.Random(seed)
        self._pools = pools
        self._weights = list(accumulate(1 / place if zipf else 1.0 for place in range(1, len(pools) + 1)))

    def good(self) -> dict[str, Any]:
        """Return an item that will be bound."""
        draw = self._random.randrange
        return {
            "a": f"+86{13_800_000_000 + draw(20_000)}",
            "b": f"+86{15_000_000_000 + draw(90_000_000)}",
            "pool": self._random.choices(self._pools, cum_weights=self._weights)[0],
            "order_id": f"o{draw(10**9)}",
        }

    def batch(self, size: int, *, bad: Iterable[object] = ()) -> bytes:
        """Return a body with ``size`` good items and the bad ones among them."""
        items: list[object] = [self.good() for _ in range(size)]
        for item in bad:
            items.insert(self._random.randrange(len(items) + 1), item)
        return orjson.dumps({"items": items})


@asynccontextmanager
async def session(api_key: str, **headers: str) -> AsyncIterator[aiohttp.ClientSession]:
    """A client with as many connections as it has requests under way."""
    connector = aiohttp.TCPConnector(limit=0)
    always = {"Authorization": f"Bearer {api_key}", "Request-Timeout": "10", **headers}
    async with aiohttp.ClientSession(headers=always, connector=connector) as http:
        yield http


async def send(http: aiohttp.ClientSession, api: str, bodies: list[bytes], tally: Tally, until: float) -> None:
    """Send batches one after the other until the moment ``until`` (monotonic).

    Raises:
        BenchError: if a batch is refused as a whole.
    """
    while time.monotonic() < until and bodies:
        began = time.monotonic()
        async with http.post(f"{api}/v1/bindings:batch", data=bodies.pop()) as response:
            answer = await response.read()
        tally.seconds.append(time.monotonic() - began)
        if response.status != 200:
            raise BenchError(f"A batch was answered {response.status}: {answer[:200]!r}")
        for status in _STATUSES:
            tally.statuses[status] += answer.count(b'{"status":%d,' % status)

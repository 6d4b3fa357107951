"""How fast events reach a feed and a webhook.

``python -m bench.events [--events 20000] [--rate 200] [--seconds 5]`` starts a broker with everything it needs here.
First so many events are written at once: how long until all of them have been delivered to a webhook. Then some a
second are written one by one: how long each takes from its commit to a waiting reader of the feed, and to the webhook.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import orjson
from aiohttp import web

from bench.machine import machine

_EMIT = """
SELECT emit_event(a.id, 'call.started', NULL, gen_random_uuid(), jsonb_build_object('n', g))
FROM app AS a CROSS JOIN generate_series($1::integer, $2::integer) AS g WHERE a.name = 'demo-axb'
"""
_LIMIT_S = 300.0


class _Receiver:
    def __init__(self) -> None:
        self.at: dict[int, float] = {}

    async def receive(self, request: web.Request) -> web.Response:
        event = orjson.loads(await request.read())
        self.at.setdefault(event["data"].get("n", -1), time.monotonic())
        return web.Response(status=204)


async def _until(seen: dict[int, float], count: int) -> None:
    async with asyncio.timeout(_LIMIT_S):
        while len(seen) < count:  # noqa: ASYNC110 - what fills it is another task's HTTP
            await asyncio.sleep(0.01)


async def _follow(http: aiohttp.ClientSession, api: str, after: str, seen: dict[int, float]) -> None:
    while True:
        async with http.get(f"{api}/v1/events?limit=200&wait_s=30&after={after}") as answer:
            page = await answer.json()
        now = time.monotonic()
        seen.update((event["data"].get("n", -1), now) for event in page["items"])
        after = page["next_after"]


def _figures(begun: dict[int, float], seen: dict[int, float]) -> dict[str, float]:
    waits = sorted(seen[n] - at for n, at in begun.items())
    return {
        "p50_ms": round(statistics.median(waits) * 1000, 1),
        "p99_ms": round(waits[int(len(waits) * 0.99)] * 1000, 1),
        "max_ms": round(waits[-1] * 1000, 1),
    }


async def measure(up: dict[str, Any], folder: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measure one broker."""
    receiver = _Receiver()
    app = web.Application()
    app.router.add_post("/", receiver.receive)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    add = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "broker", "webhook", "add", "bench", f"http://127.0.0.1:{port}/",
        "--app", "demo-axb", "--state-dir", folder, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    if await add.wait():
        raise SystemExit("The webhook could not be added.")
    db = await asyncpg.connect(up["database"])
    headers = {"Authorization": f"Bearer {up['api_key']}"}
    async with aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=60)) as http:
        began = time.monotonic()
        await db.execute(_EMIT, 1, options.events)
        written_s = time.monotonic() - began
        await _until(receiver.at, options.events)
        all_s = time.monotonic() - began
        async with http.get(f"{up['api']}/v1/events?after=latest") as answer:
            after = (await answer.json())["next_after"]
        seen: dict[int, float] = {}
        following = asyncio.create_task(_follow(http, up["api"], after, seen))
        begun: dict[int, float] = {}
        for n in range(options.events + 1, options.events + 1 + int(options.rate * options.seconds)):
            await asyncio.sleep(max(began + all_s + len(begun) / options.rate - time.monotonic(), 0))
            await db.execute(_EMIT, n, n)
            begun[n] = time.monotonic()
        await _until(receiver.at, options.events + len(begun))
        await _until(seen, len(begun))
        following.cancel()
    await db.close()
    await runner.cleanup()
    return {
        "machine": machine(),
        "delivered_per_s": round(options.events / all_s),
        "written_s": round(written_s, 2),
        "feed": _figures(begun, seen),
        "webhook": _figures(begun, receiver.at),
    }


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=20_000, help="written at once")
    parser.add_argument("--rate", type=float, default=200.0, help="a second, one by one")
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BROKER_")}
    environment["BROKER_WEBHOOK_ALLOW"] = "127.0.0.1/32"
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        process = subprocess.Popen(
            [sys.executable, "-m", "broker", "up", "--port", "0", "--json", "--state-dir", folder],
            stdout=subprocess.PIPE,
            env=environment,
        )
        try:
            line = process.stdout.readline() if process.stdout is not None else b""
            result = asyncio.run(measure(orjson.loads(line), folder, options))
        finally:
            process.terminate()
            process.wait(60)
    sys.stdout.write(orjson.dumps(result, option=orjson.OPT_INDENT_2).decode() + "\n")


if __name__ == "__main__":
    main()

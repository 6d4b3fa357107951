"""``python -m bench.memory``: memory of each worker at a million live bindings, and whether it stays flat.

Loads live pairs of mode X by COPY, then binds, asks and reads at a steady rate while the resident set of each worker is
sampled every second; at the end also the proportional one, in which pages that processes share count once. Exit code 1:
a worker is over 150 MiB, or an answer is wrong or missing. The slope (Theil-Sen, after the first quarter) is told only
with ``--soak``: shorter runs still warm up.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import orjson
import uvloop
from rich.console import Console

from bench.live_pairs import CAP, NUMBERS, POOLS
from bench.machine import machine
from bench.pushing import Sender, Signature
from bench.questions import APP, Platform, loaded
from bench.stack import BenchError, Stack, running

_MOST, _MOST_RATE, _MOST_S = 2_000_000, 2_000, 86_400.0
_WANTED_MIB = 150.0
_SHORT_S = 10.0
#: The fit looks at this many samples at most: its pairs grow with the square.
_FITTED = 600

#: A sample: seconds since the begin, MiB.
Sample = tuple[float, float]


@dataclass(slots=True)
class _Watch:
    """Resident memory of each worker over time."""

    workers: tuple[int, ...]
    console: Console
    samples: dict[int, list[Sample]] = field(default_factory=dict)

    async def look(self, seconds: float) -> None:
        """Sample every second."""
        began = time.perf_counter()
        with self.console.status("") as status:
            while (now := time.perf_counter() - began) < seconds:
                for pid in self.workers:
                    self.samples.setdefault(pid, []).append((now, memory_mib(pid)["Rss"]))
                told = ", ".join(f"{kept[-1][1]:.1f}" for kept in self.samples.values())
                status.update(f"{now:.0f} of {seconds:.0f} s: {told} MiB")
                await asyncio.sleep(1.0)


def memory_mib(pid: int) -> dict[str, float]:
    """Return ``Rss`` and ``Pss`` of a process.

    Raises:
        BenchError: if it is gone.
    """
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
    except OSError:
        raise BenchError("A worker ended while it was watched.") from None
    told = {name: rest.split()[0] for name, _, rest in (line.partition(":") for line in lines)}
    return {name: round(int(told[name]) / 1024, 1) for name in ("Rss", "Pss")}


def slope(samples: list[Sample]) -> dict[str, float]:
    """Return the median of the slopes between all pairs after the first quarter, and their quartiles: MiB a minute."""
    kept = samples[len(samples) // 4 :]
    kept = kept[:: -(-len(kept) // _FITTED) or 1]
    slopes = [60 * (y - b) / (x - a) for i, (a, b) in enumerate(kept) for x, y in kept[i + 1 :]]
    if len(slopes) < 2:
        return {}
    low, middle, high = statistics.quantiles(slopes, n=4)
    return {"mib_a_minute": round(middle, 3), "quartile_1": round(low, 3), "quartile_3": round(high, 3)}


def _reads(platform: Platform) -> tuple[bytes, bytes]:
    head = (
        f"GET /v1/bindings?limit=20 HTTP/1.1\r\nHost: {urlsplit(platform.api).netloc}\r\n"
        f"Authorization: Bearer {platform.api_key}\r\n\r\n"
    )
    return head.encode(), b'"x":'


async def _load(stack: Stack, platform: Platform, options: argparse.Namespace, seconds: float) -> dict[str, Any]:
    senders = {
        "questions": (Sender(platform.question), stack.edge, options.rate),
        "binds": (Sender(platform.order), stack.api, options.rate),
        "reads": (Sender(lambda: _reads(platform)), stack.api, options.rate / 10),
    }
    for sender, where, _ in senders.values():
        await sender.connect(where, 32)
    try:
        await asyncio.gather(*(sender.at_rate(rate, seconds) for sender, _, rate in senders.values()))
    finally:
        for sender, _, _ in senders.values():
            sender.close()
    return {name: dict(sender.answers) for name, (sender, _, _) in senders.items()}


async def _measure(options: argparse.Namespace) -> dict[str, Any]:
    console = Console(stderr=True)
    seconds = options.soak or _SHORT_S
    async with running(options.workers, options.state_root) as stack:
        db = await asyncpg.connect(stack.database)
        try:
            pairs = await loaded(stack, db, options.live, console)
        finally:
            await db.close()
        app = stack.who.apps["x"]
        signed = Signature(stack.edge, APP, app.app_key, app.app_secret)
        watch = _Watch(stack.workers, console)
        answers, _ = await asyncio.gather(
            _load(stack, Platform(signed, pairs, stack.api, app.api_key), options, seconds), watch.look(seconds)
        )
        workers = [
            {
                "rss_mib": now["Rss"],
                "pss_mib": now["Pss"],
                "rss_most_mib": max(now["Rss"], *(mib for _, mib in watch.samples[pid])),
                "slope": slope(watch.samples[pid]) if options.soak else {},
            }
            for pid in stack.workers
            for now in [memory_mib(pid)]
        ]
        return {"machine": machine(stack.folder), "live": options.live, "answers": answers, "workers": workers}


def _kept(found: dict[str, Any]) -> bool:
    wanted = {"questions": {"200"}, "binds": {"201"}, "reads": {"200"}}
    return all(worker["rss_most_mib"] <= _WANTED_MIB for worker in found["workers"]) and all(
        set(found["answers"][name]) == right for name, right in wanted.items()
    )


def main() -> int:
    """Load, watch, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--live", type=int, default=1_000_000, help=f"live bindings, at most {_MOST:,}")
    parser.add_argument("--rate", type=float, default=200.0, help="binds, and questions, a second; reads a tenth")
    parser.add_argument("--soak", type=float, default=0.0, metavar="SECONDS", help="watch so long, and tell the slope")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--state-root", type=Path, default=Path("/var/tmp"), help="a real disk")  # noqa: S108
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if (
        not 1 <= options.live <= min(_MOST, POOLS * NUMBERS * CAP)
        or not 1 <= options.rate <= _MOST_RATE
        or not (options.soak == 0 or _SHORT_S <= options.soak <= _MOST_S)
        or not 1 <= options.workers <= 64
    ):
        parser.error("that is not what this bench is for: see --help")
    try:
        found = uvloop.run(_measure(options))
    except BenchError as error:
        print(error, file=sys.stderr)
        return 2
    if options.json:
        print(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
    else:
        print(f"{found['live']:,} live bindings; answers {found['answers']}")
        for worker in found["workers"]:
            text = "RSS {rss_mib} MiB (most {rss_most_mib}), PSS {pss_mib}".format_map(worker)
            told = "; {mib_a_minute} MiB/minute, quartiles {quartile_1} to {quartile_3}"
            print(text + (told.format_map(worker["slope"]) if worker["slope"] else ""))
    return 0 if _kept(found) else 1


if __name__ == "__main__":
    sys.exit(main())

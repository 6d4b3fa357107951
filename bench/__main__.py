"""``python -m bench``: load on this machine, bounded in count and time, with a check of every promise at the end."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from bench.plan import Plan
from bench.report import table
from bench.run import Ask, measure
from bench.scenario import Shape
from bench.stack import BenchError

_LONGEST_S = 7200.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; 1 = a promise was broken, 2 = nothing could be measured."""
    options = _parser().parse_args(arguments)
    try:
        ask = _ask(options)
        with Progress(
            TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=Console(stderr=True),
            transient=True, disable=not sys.stderr.isatty(),
        ) as bar:  # fmt: skip
            task = bar.add_task("", total=1.0)
            result = asyncio.run(measure(ask, lambda what, share: bar.update(task, description=what, completed=share)))
    except BenchError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    if options.json:
        sys.stdout.buffer.write(orjson.dumps(result) + b"\n")
    else:
        print(table(result))
    return 1 if result["violations"] else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n  bench confirmed --runs 3\n  bench confirmed --release-after 5\n"
        "  bench open --rate 1000 --seconds 20 --json\n",
    )  # fmt: skip
    commands = parser.add_subparsers(dest="command", required=True)
    confirmed = commands.add_parser(
        "confirmed", help="closed loop: how many confirmed bindings a second, and what each costs",
        description="Closed loop: every connection binds again as soon as it has its answer.",
    )  # fmt: skip
    opened = commands.add_parser(
        "open", help="open loop: latency from the intended start at a given rate",
        description="Open loop: arrivals are drawn beforehand, latency counts from the intended start.",
    )  # fmt: skip
    opened.add_argument("--rate", type=_number(0.1, 1e6), required=True, help="binds a second")
    opened.add_argument("--arrivals", choices=("poisson", "constant"), default="poisson")
    for command in (confirmed, opened):
        _add_common(command)
    return parser


def _add_common(command: argparse.ArgumentParser) -> None:
    load = command.add_argument_group("load")
    load.add_argument("--clients", type=_whole(1, 10_000), default=200, help="connections (default 200)")
    load.add_argument("--seconds", type=_number(0.5, _LONGEST_S), default=10.0, help="length of a window (default 10)")
    load.add_argument("--warmup", type=_number(0, 600), default=2.0, help="seconds before it (default 2)")
    load.add_argument("--runs", type=_whole(1, 100), default=3 if command.prog.endswith("confirmed") else 1)
    load.add_argument("--no-keep-alive", action="store_true", help="a new connection for each request")
    load.add_argument(
        "--release-after", type=_number(0, _LONGEST_S), metavar="S", help="release each binding after S seconds"
    )
    load.add_argument("--idempotency-keys", action="store_true", help="send an Idempotency-Key with each bind")
    load.add_argument("--ttl", type=_whole(0, 7_776_000), default=86_400, help="ttl_s of the binds (default 86400)")
    load.add_argument(
        "--load-processes", type=_whole(1, 64), default=1, help="processes that make the load (default 1)"
    )
    load.add_argument("--max-requests", type=_whole(1, 100_000_000), default=2_000_000, help="binds of a run at most")
    load.add_argument("--seed", type=int, default=1, help="of parties and arrivals")
    broker = command.add_argument_group("broker")
    broker.add_argument("--workers", type=_whole(1, 64), default=2, help="worker processes (default 2)")
    broker.add_argument("--pools", type=_whole(1, 1000), default=8)
    broker.add_argument("--numbers", type=_whole(1, 100_000), default=500, help="X numbers of each pool")
    broker.add_argument("--cap", type=_whole(1, 5000), default=500, help="live lines on one X")
    broker.add_argument(
        "--app-rate", type=_number(1, 1e6), help="platform calls a second of the app (default: no limit)"
    )
    broker.add_argument("--quarantine", type=_whole(1, 31_536_000), default=7200, help="seconds")
    broker.add_argument("--couriers", type=_whole(1, 10_000_000), default=20_000, help="distinct A numbers")
    broker.add_argument(
        "--checkpoint", action="store_true", help="one at the begin of each window: what whole pages in the WAL add"
    )
    broker.add_argument(
        "--state-root", type=Path, help="where the database goes: a disk, not memory (default /var/tmp)"
    )
    target = command.add_argument_group("a broker that runs already (no cost figures)")
    target.add_argument("--target", metavar="URL", help="http://HOST:PORT")
    target.add_argument("--api-key", metavar="K")
    target.add_argument("--pool", action="append", default=[], help="pool to bind in; may be repeated")
    target.add_argument("--i-own-this-target", action="store_true", help="it is not this machine, and I may load it")
    command.add_argument("--json", action="store_true", help="print everything as JSON")


def _ask(options: argparse.Namespace) -> Ask:
    if options.target and not options.api_key:
        raise BenchError("--target needs --api-key.")
    plan = Plan(
        host="", port=0, api_key=options.api_key or "", kind="closed" if options.command == "confirmed" else "open",
        connections=options.clients, seconds=options.warmup + options.seconds, seed=options.seed, out="",
        pools=tuple(options.pool), couriers=options.couriers, ttl_s=options.ttl, keep_alive=not options.no_keep_alive,
        idempotency=options.idempotency_keys, release_after_s=options.release_after,
        rate=getattr(options, "rate", 0.0), arrivals=getattr(options, "arrivals", "poisson"),
        max_requests=options.max_requests,
    )  # fmt: skip
    shape = Shape(options.pools, options.numbers, options.cap, options.quarantine, options.couriers, options.app_rate)
    return Ask(
        plan=plan, warmup_s=options.warmup, runs=options.runs, workers=options.workers,
        load_processes=min(options.load_processes, options.clients), shape=shape, target=options.target,
        own_target=options.i_own_this_target, state_root=options.state_root, checkpoint=options.checkpoint,
    )  # fmt: skip


def _whole(low: int, high: int) -> Any:
    return lambda text: _within(int(text), low, high)


def _number(low: float, high: float) -> Any:
    return lambda text: _within(float(text), low, high)


def _within(value: float, low: float, high: float) -> float:
    if not low <= value <= high:
        raise argparse.ArgumentTypeError(f"must be from {low:g} to {high:g}")
    return value


if __name__ == "__main__":
    sys.exit(main())

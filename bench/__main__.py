"""``python -m bench``: load on this machine, bounded in count and time, with a check of every promise at the end."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bench import commands
from bench.options import number, whole
from bench.rivals import run as rivals
from bench.scenario_file import ScenarioFile
from bench.stack import BenchError

_LONGEST_S = 7200.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; 1 = a promise was broken, 2 = nothing could be measured."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(["check", *given[1:]] if given[:1] == ["--check"] else given)
    try:
        return int(options.act(options))
    except (BenchError, ValidationError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n  bench list\n  bench run many-cities --runs 3\n  bench show steady > mine.toml\n"
        "  bench run mine.toml --json\n  bench confirmed --release-after 5\n"
        "  bench open --rate 1000 --seconds 20 --json\n",
    )  # fmt: skip
    parts = parser.add_subparsers(dest="command", required=True)
    _add_scenarios(parts)
    _add_results(parts)
    confirmed = parts.add_parser(
        "confirmed", help="closed loop: how many confirmed bindings a second, and what each costs",
        description="Closed loop: every connection binds again as soon as it has its answer.",
    )  # fmt: skip
    opened = parts.add_parser(
        "open", help="open loop: latency from the intended start at a given rate",
        description="Open loop: arrivals are drawn beforehand, latency counts from the intended start.",
    )  # fmt: skip
    opened.add_argument("--rate", type=number(0.1, 1e6), required=True, help="binds a second")
    opened.add_argument("--arrivals", choices=("poisson", "constant"), default="poisson")
    for command in (confirmed, opened):
        _add_common(command)
        _add_where(command)
        command.set_defaults(act=_one)
    return parser


def _add_scenarios(parts: Any) -> None:
    run = parts.add_parser("run", help="a scenario, by its name or as a file of your own")
    run.add_argument("scenario", help="a name of `bench list`, or the path of a .toml file")
    run.add_argument("--alone", action="store_true", help="without the scenario it is compared with")
    _add_where(run)
    run.set_defaults(act=commands.run)
    _add_overrides(run)
    listed = parts.add_parser("list", help="the scenarios")
    listed.add_argument("--json", action="store_true")
    listed.set_defaults(act=commands.list_all)
    shown = parts.add_parser("show", help="print a scenario's file, to be copied and changed")
    shown.add_argument("scenario")
    shown.set_defaults(act=commands.show)


def _add_overrides(command: argparse.ArgumentParser) -> None:
    command.add_argument("--seconds", type=number(0.5, _LONGEST_S), help="length of a window, instead of the file's")
    command.add_argument("--runs", type=whole(1, 100))
    command.add_argument("--rate", type=number(0.1, 1e6), help="of an open loop")
    command.add_argument("--workers", type=whole(1, 64))
    command.add_argument("--seed", type=int)


def _add_results(parts: Any) -> None:
    compared = parts.add_parser(
        "compare", help="two results of `run --json`: what changed, and whether noise explains it"
    )
    compared.add_argument("old", type=Path)
    compared.add_argument("new", type=Path)
    compared.set_defaults(act=commands.compare)
    sized = parts.add_parser("size", help="from a result of `run --json` to workers, cores, connections, X numbers")
    sized.add_argument("result", type=Path)
    sized.add_argument("--rate", type=number(0.1, 1e7), required=True, help="binds a second at the peak")
    sized.add_argument("--p99-ms", type=number(0.1, 1e6), default=50.0, help="beyond the platform's own (default 50)")
    sized.add_argument("--lifetime-s", type=number(1, 1e7), default=1800.0, help="of a binding (default 1800)")
    sized.add_argument("--quarantine-s", type=number(1, 1e7), default=14_400.0, help="(default 14400)")
    sized.add_argument(
        "--per-party", type=whole(1, 100_000), default=40,
        help="most orders of one phone in a lifetime and the rest after it (default 40)",
    )  # fmt: skip
    sized.add_argument("--cap", type=whole(1, 5000), default=500, help="live lines on one X (default 500)")
    sized.add_argument("--cities", type=whole(1, 10_000), default=1, help="pools that share them evenly (default 1)")
    sized.set_defaults(act=commands.size)
    raced = parts.add_parser("rivals", help="the broker and other ways to do the same, in turn")
    raced.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(rivals.NAMES)} (default all); or kea")
    raced.add_argument(
        "--scenario", default="many-cities", help="(default many-cities; many-cities-x: no platform calls)"
    )
    _add_overrides(raced)
    raced.set_defaults(act=commands.rivals)
    checked = parts.add_parser("check", help="a short subset against bench/baseline.json (also: --check)")
    checked.add_argument("--write", action="store_true", help="make what is measured the baseline")
    checked.set_defaults(act=commands.check)
    told = parts.add_parser("table", help="the targets, each beside what its own command measures")
    told.add_argument("--row", action="append", default=[], metavar="NAME", help="only this one; may be repeated")
    told.add_argument("--list", action="store_true", help="name the rows")
    told.add_argument("--out", type=Path, default=Path("build/table"), help="results so far (default build/table)")
    told.add_argument("--again", action="store_true", help="measure what has been measured, too")
    told.add_argument("--saved", action="store_true", help="measure nothing: only what there is in --out")
    told.add_argument("--write", action="store_true", help="write the table into README.md")
    told.set_defaults(act=commands.targets_table)
    for command in (raced, checked):
        command.add_argument("--state-root", type=Path, help="where the database goes (default /var/tmp)")
    for command in (compared, sized, raced, checked, told):
        command.add_argument("--json", action="store_true", help="print everything as JSON")


def _add_common(command: argparse.ArgumentParser) -> None:
    load = command.add_argument_group("load")
    load.add_argument("--clients", type=whole(1, 10_000), default=200, help="connections (default 200)")
    load.add_argument("--seconds", type=number(0.5, _LONGEST_S), default=10.0, help="length of a window (default 10)")
    load.add_argument("--warmup", type=number(0, 600), default=2.0, help="seconds before it (default 2)")
    load.add_argument("--runs", type=whole(1, 100), default=3 if command.prog.endswith("confirmed") else 1)
    load.add_argument("--no-keep-alive", action="store_true", help="a new connection for each request")
    load.add_argument(
        "--release-after", type=number(0, _LONGEST_S), metavar="S", help="release each binding after S seconds"
    )
    load.add_argument("--idempotency-keys", action="store_true", help="send an Idempotency-Key with each bind")
    load.add_argument("--ttl", type=whole(0, 7_776_000), default=86_400, help="ttl_s of the binds (default 86400)")
    load.add_argument("--load-processes", type=whole(1, 64), default=1, help="processes that make the load (default 1)")
    load.add_argument("--max-requests", type=whole(1, 100_000_000), default=2_000_000, help="binds of a run at most")
    load.add_argument("--seed", type=int, default=1, help="of parties and arrivals")
    broker = command.add_argument_group("broker")
    broker.add_argument("--workers", type=whole(1, 64), default=2, help="worker processes (default 2)")
    broker.add_argument("--pools", type=whole(1, 1000), default=8)
    broker.add_argument("--numbers", type=whole(1, 100_000), default=500, help="X numbers of each pool")
    broker.add_argument("--cap", type=whole(1, 5000), default=500, help="live lines on one X")
    broker.add_argument(
        "--app-rate", type=number(1, 1e6), help="platform calls a second of the app (default: no limit)"
    )
    broker.add_argument("--quarantine", type=whole(1, 31_536_000), default=7200, help="seconds")
    broker.add_argument("--couriers", type=whole(1, 10_000_000), default=20_000, help="distinct A numbers")
    broker.add_argument(
        "--checkpoint", action="store_true", help="one at the begin of each window: what whole pages in the WAL add"
    )


def _add_where(command: argparse.ArgumentParser) -> None:
    where = command.add_argument_group("where")
    where.add_argument("--state-root", type=Path, help="where the database goes: a disk, not memory (default /var/tmp)")
    target = command.add_argument_group("a broker that runs already (no cost figures)")
    target.add_argument("--target", metavar="URL", help="http://HOST:PORT")
    target.add_argument("--api-key", metavar="K")
    target.add_argument("--pool", action="append", default=[], help="pool to bind in; may be repeated")
    target.add_argument("--i-own-this-target", action="store_true", help="it is not this machine, and I may load it")
    command.add_argument("--json", action="store_true", help="print everything as JSON")
    command.add_argument(
        "--html", type=Path, metavar="FILE", help="write the report as one page that needs nothing else"
    )


def _one(options: argparse.Namespace) -> int:
    """Measure what the options say, as if a file said it."""
    is_open = options.command == "open"
    file = ScenarioFile.model_validate(
        {
            "about": "as the command line says",
            "load": {
                "kind": "open" if is_open else "closed", "clients": options.clients, "seconds": options.seconds,
                "warmup_s": options.warmup, "runs": options.runs, "processes": options.load_processes,
                "max_requests": options.max_requests, "keep_alive": not options.no_keep_alive, "seed": options.seed,
                "idempotency_keys": options.idempotency_keys, "ttl_s": options.ttl, "couriers": options.couriers,
                "release_after_s": options.release_after,
                **({"rate": options.rate, "arrivals": options.arrivals} if is_open else {}),
            },
            "pools": {
                "count": options.pools, "numbers": options.numbers, "cap": options.cap,
                "quarantine_s": options.quarantine, "app_rate": options.app_rate,
            },
            "faults": {"checkpoint": options.checkpoint},
            "broker": {"workers": options.workers},
        }
    )  # fmt: skip
    return commands.measured([commands.ask_of(options.command, file, options)], options)


if __name__ == "__main__":
    sys.exit(main())

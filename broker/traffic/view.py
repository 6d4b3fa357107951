"""Traffic while it runs, on stderr: a table that redraws itself on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import asyncio
import sys
from typing import Any, Final

import click

from broker.emulator.outcomes import WORDS
from broker.traffic.play import Tally

_REDRAW_S: Final = 0.25
_LINE_S: Final = 5.0
_WORDS: Final = {code: word for word, code in WORDS.items()}


async def show(tally: Tally) -> None:
    """Show progress until cancelled."""
    if sys.stderr.isatty():
        await _table(tally)
    while True:
        await asyncio.sleep(_LINE_S)
        click.echo(", ".join(f"{name} {value}" for name, value in lines(report(tally))), err=True)


async def _table(tally: Tally) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

    def drawn() -> Table:
        table = Table(box=None, show_header=False, pad_edge=False)
        for name, value in lines(report(tally)):
            table.add_row(name, value)
        return table

    with Live(drawn(), console=Console(stderr=True), transient=True, auto_refresh=False) as live:
        while True:
            live.update(drawn(), refresh=True)
            await asyncio.sleep(_REDRAW_S)


def report(tally: Tally) -> dict[str, Any]:
    """Return the whole as JSON has it; calls by how they go, pushes by what became of them."""
    pushes = tally.since("pushes")
    return {
        "placed": tally.done,
        "rate": round(tally.done / tally.elapsed_s, 1) if tally.elapsed_s else 0.0,
        "late": tally.late,
        "calls": {_WORDS.get(code, str(code)): count for code, count in tally.calls.most_common()},
        "up": tally.up,
        "messages": {"forwarded": tally.messages[0], "not": tally.messages.total() - tally.messages[0]},
        "pushes": {
            name: pushes[name] for name in ("delivered", "failed", "retried", "repeated", "given_up", "unaddressed")
        },
        "waiting": tally.waiting,
    }


def lines(told: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the report for people: what, and how much."""
    pushes = told["pushes"]
    rows = [("placed", str(told["placed"])), ("rate", f"{told['rate']:.1f}/s"), ("late", str(told["late"]))]
    rows += [(name, str(count)) for name, count in told["calls"].items()]
    rows += [("up", str(told["up"])), ("messages", f"{told['messages']['forwarded']} forwarded")]
    rows += [(f"pushes {name}", str(pushes[name])) for name in pushes if pushes[name] or name == "delivered"]
    return [*rows, ("pushes waiting", str(told["waiting"]))]

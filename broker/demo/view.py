"""The hour while it runs: a table that redraws itself on a terminal, a line now and then elsewhere. On stderr."""

from __future__ import annotations

import asyncio
import sys

import click

from broker.demo.play import City
from broker.demo.report import quantile
from broker.demo.truth import Verdict

_REDRAW_S = 0.25
_LINE_S = 5.0


async def show(city: City, length_s: int) -> None:
    """Show progress until cancelled."""
    if sys.stderr.isatty():
        await _table(city, length_s)
    while True:
        await asyncio.sleep(_LINE_S)
        click.echo(", ".join(f"{name} {value}" for name, value in _figures(city, length_s)), err=True)


async def _table(city: City, length_s: int) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

    def drawn() -> Table:
        table = Table(box=None, show_header=False, pad_edge=False)
        for name, value in _figures(city, length_s):
            table.add_row(name, value)
        return table

    with Live(drawn(), console=Console(stderr=True), transient=True, auto_refresh=False) as live:
        while True:
            live.update(drawn(), refresh=True)
            await asyncio.sleep(_REDRAW_S)


def _figures(city: City, length_s: int) -> list[tuple[str, str]]:
    tally = city.tally
    look = tally.looks[-1] if tally.looks else None
    minute = round(city.now_s() / 60)
    return [
        ("time", f"12:{minute:02}" if minute < length_s // 60 else f"{minute - length_s // 60} min after"),
        ("bound", str(tally.bound())),
        ("refused", str(tally.refused.total())),
        ("released", str(len(tally.released))),
        ("X in use / X*", f"{look.in_use} / {look.needed}" if look else "-"),
        ("bind p99", f"{quantile(tally.bind_ms, 0.99):.0f} ms"),
        ("calls", str(tally.calls.total())),
        ("missed", str(tally.calls[Verdict.MISSED])),
        ("wrong persons", str(tally.calls[Verdict.WRONG])),
        ("told: events", str(tally.heard.total())),
        ("told: answered", str(tally.heard["call.answered"])),
        ("told: ended", str(tally.heard["call.ended"])),
        ("told: records", str(tally.heard["cdr.created"])),
    ]

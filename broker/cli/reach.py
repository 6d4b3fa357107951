"""``broker reach``."""

from __future__ import annotations

import sys
from typing import Any

import click

from broker.cli.desk import tell, who, with_json, with_state_dir, work


@click.command()
@click.argument("x")
@click.argument("caller")
@click.option("--digits", help="The extension that is dialled then; mode axe.")
@click.option("--at", metavar="TIME", help="At this moment, which has passed, as 2026-11-22T12:00:00Z; default now.")
@click.option("--reveal", is_flag=True, help="Show the real number; who did is noted in the binding's story.")
@with_state_dir
@with_json
def reach(x: str, caller: str, reveal: bool, state_dir: str | None, as_json: bool, **asked: Any) -> None:
    r"""Tell who is reached when CALLER dials X, or why nobody.

    CALLER is E.164, or - to read it from standard input, where neither the shell's history nor `ps` shows it.

    \b
    Examples:
      echo +8613900000001 | broker reach +8617010000001 -
      broker reach +8617010000001 +8613900000001 --at 2026-11-22T12:00:00Z --json
    """
    from broker.flows.operate import reach as flow
    from broker.flows.operate.fields import ReachAsk, read

    given = sys.stdin.readline(100).strip() if caller == "-" else caller

    async def job(desk: Any) -> Any:
        question = read(ReachAsk, {"x": x, "caller": given, **asked})
        return await flow.show(desk, question, reveal_to=who() if reveal else None)

    tell(work(state_dir, job), as_json=as_json)

"""``broker numbers evacuation``."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import click

from broker.cli.desk import tell, the_app, with_app, with_json, with_state_dir, work

_COLUMNS = (
    "number", "state", "moved", "moving", "waiting", "over", "to_do", "unbinding", "waiting_for", "begun_at",
    "ended_at",
)  # fmt: skip
_LOOK_S = 0.5


@click.command()
@click.argument("number", required=False)
@click.option("--watch", is_flag=True, help="Follow it to its end, with a bar on stderr; it goes on without you.")
@with_app
@with_state_dir
@with_json
def evacuation(number: str | None, watch: bool, app: str | None, state_dir: str | None, as_json: bool) -> None:
    """Show how far the bindings of a number have moved to others; without a number, of all that move.

    `waiting` lines could not be moved yet (`waiting_for` says why) and are tried again. Exit 1 if some still wait.
    """
    from broker.flows.operate import evacuation as flow

    async def job(desk: Any) -> Any:
        name = await the_app(desk, app)
        shown = await flow.progress(desk, name, number)
        if not watch or flow.over(shown):
            return shown
        with click.progressbar(length=1, label="Moving", file=sys.stderr) as bar:
            while not flow.over(shown):
                done = sum(one["moved"] + one["over"] for one in shown)
                bar.length = max(done + sum(one["moving"] + one["waiting"] + one["to_do"] for one in shown), 1)
                bar.update(done - bar.pos)
                await asyncio.sleep(_LOOK_S)
                shown = await flow.progress(desk, name, number)
            bar.update((bar.length or 0) - bar.pos)
        return shown

    shown = work(state_dir, job)
    tell(shown, as_json=as_json, columns=_COLUMNS)
    sys.exit(1 if any(one["waiting"] for one in shown) else 0)

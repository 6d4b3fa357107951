"""``broker audit``."""

from __future__ import annotations

import sys
from typing import Any

import click

from broker.cli.desk import tell, the_app, with_app, with_json, with_state_dir, work

_FINDINGS = ("kind", "action", "x", "extension", "subscription_id", "line_id", "first_seen_at", "resolved_at")
_LOOK_S = 0.5
#: An instance takes a run within seconds; after this long nobody does.
_PATIENCE_S = 30.0


@click.group()
def audit() -> None:
    r"""Compare what the platform holds with our books, both ways.

    Every instance does it by itself from time to time, slowly. A difference counts once it has stood a second look.

    \b
    Examples:
      broker audit run --app food
      broker audit report --app food --json
      broker audit policy --app food --unknown unbind --absent rebind
    """


@audit.command("run")
@click.option("--no-wait", is_flag=True, help="Only begin it.")
@with_app
@with_state_dir
@with_json
def run_audit(no_wait: bool, app: str | None, state_dir: str | None, as_json: bool) -> None:
    """Begin an audit, or follow the one under way, until its end; exit code 1 if differences are open then."""
    from broker.flows.operate import audit as flow

    async def job(desk: Any) -> Any:
        name = await the_app(desk, app)
        run = await flow.begin(desk, name)
        if no_wait:
            return run
        await _follow(desk, name, run["id"])
        return await flow.report(desk, name, everything=False)

    told = work(state_dir, job)
    if no_wait:
        tell(told, as_json=as_json)
        return
    _show(told, as_json=as_json)
    sys.exit(1 if told["findings"] else 0)


@audit.command()
@click.option("--all", "everything", is_flag=True, help="Also what has been resolved.")
@with_app
@with_state_dir
@with_json
def report(everything: bool, app: str | None, state_dir: str | None, as_json: bool) -> None:
    """Show what is open, and the latest runs."""
    from broker.flows.operate import audit as flow

    async def job(desk: Any) -> Any:
        return await flow.report(desk, await the_app(desk, app), everything=everything)

    _show(work(state_dir, job), as_json=as_json)


@audit.command()
@click.option("--unknown", help="Bound there, unknown here: report (and bar), unbind or adopt.")
@click.option("--absent", help="Live here, absent there: report, rebind or end.")
@click.option("--differing", help="Other parties, lifetime or direction: report or repair.")
@click.option("--every-s", type=int, help="Seconds between the begins of two audits; 0 = only when asked.")
@click.option("--caller", help="Whose bindings adopted ones become.")
@with_app
@with_state_dir
@with_json
def policy(app: str | None, state_dir: str | None, as_json: bool, **given: Any) -> None:
    """Say what is to be made of differences; what is not given stays."""
    from broker.flows.operate import audit as flow
    from broker.flows.operate.fields import DriftPolicy, read

    async def job(desk: Any) -> Any:
        wanted = read(DriftPolicy, {name: value for name, value in given.items() if value is not None})
        return await flow.set_policy(desk, await the_app(desk, app), wanted)

    tell(work(state_dir, job), as_json=as_json)


def _show(told: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        tell(told, as_json=True)
        return
    for run in told["runs"][:1]:
        words = (
            f"run {run['id']} ({run['why']}): {run['state']}, {run['steps_done']} of {run['steps']} places, "
            f"{run['calls']} calls, {run['compared']} bindings compared, {run['found']} differences"
        )
        if run["peers"] or run["unverifiable"]:
            words += f"; {run['peers']} peers compared, {run['unverifiable']} not verifiable"
        click.echo(words, err=True)
    tell(told["findings"], as_json=False, columns=_FINDINGS)


async def _follow(desk: Any, app: str, run_id: int) -> None:
    """Wait for the end of a run, with a bar on stderr.

    Raises:
        Unavailable: no instance works on it.
    """
    import asyncio
    import time

    from broker.errors import Unavailable
    from broker.flows.operate import audit as flow

    idle_since = time.monotonic()
    with click.progressbar(length=1, label="audit", file=sys.stderr) as bar:
        while True:
            run = await flow.newest(desk, app)
            if run["id"] != run_id or run["state"] == "done":
                bar.update(bar.length - bar.pos if bar.length else 1)
                return
            if run["steps"]:
                bar.length = run["steps"]
                bar.update(run["steps_done"] - bar.pos)
            if run["working"]:
                idle_since = time.monotonic()
            if time.monotonic() - idle_since > _PATIENCE_S:
                raise Unavailable("No instance works on it: is one running?")
            await asyncio.sleep(_LOOK_S)

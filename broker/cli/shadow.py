"""``broker shadow report``, ``broker app shadow`` and ``broker app cutover``."""

from __future__ import annotations

from typing import Any

import click

from broker.cli.desk import confirm, tell, the_app, with_app, with_json, with_state_dir, with_yes, work

_LOOK_S = 1.0
#: Calls that are open when an app goes back into shadow must come to their end.
_PATIENCE_S = 120.0


@click.group()
def shadow() -> None:
    r"""Follow another system that binds on an app, and predict what this broker would have done.

    \b
    Examples:
      broker app create food --shadow --app-key KEY --secret-file secret.txt --base-url https://platform.example.com
      broker shadow report --app food --json
      broker app cutover food
    """


@shadow.command()
@with_app
@with_state_dir
@with_json
def report(app: str | None, state_dir: str | None, as_json: bool) -> None:
    """Show how predictions compare with what the other system has bound.

    What is bound there is as of the last audit, which also begins with `broker audit run`.
    """
    from broker.flows.operate import shadow as flow

    async def job(desk: Any) -> Any:
        return await flow.report(desk, await the_app(desk, app))

    tell(work(state_dir, job), as_json=as_json)


@click.command("shadow")
@click.argument("name")
@with_yes
@with_state_dir
@with_json
def enter(name: str, yes: bool, state_dir: str | None, as_json: bool) -> None:
    """Only predict from now on: another system binds (again).

    The app is suspended for some 12 s. Its bindings end in these books (reason handed_back); at the platform they stay.
    """
    confirm(f"Hand all bindings of {name} back to another system?", yes=yes)

    async def job(desk: Any) -> Any:
        return await _switched(desk, name, shadow=True)

    tell(work(state_dir, job), as_json=as_json)


@click.command()
@click.argument("name")
@click.option("--caller", help="Whose bindings the platform's become; default the app's first caller.")
@click.option("--no-import", "leave", is_flag=True, help="Stay suspended: import (mode axe: a file), resume by hand.")
@with_yes
@with_state_dir
@with_json
def cutover(name: str, caller: str | None, leave: bool, yes: bool, state_dir: str | None, as_json: bool) -> None:
    """Leave shadow: from now on this broker binds. Stop the other system first.

    Predictions end (reason cut_over), what the platform holds becomes bindings here, then orders are taken again. What
    was stopped in between goes on when the command is repeated.
    """
    confirm(f"Does nobody else bind on {name} any more?", yes=yes)

    async def job(desk: Any) -> Any:
        from broker.cli.importing import take_in
        from broker.flows.operate import apps
        from broker.store import registry

        told = {"app": name, "ended": 0}
        if not await _left_before(desk, name):
            told |= await _switched(desk, name, shadow=False)
        if not leave:
            known = await registry.load(desk.db, desk.vault)
            told["import"] = await take_in(desk, known, name, caller, None, None, dry_run=False, yes=True)
            await apps.resume(desk, name)
        return told

    tell(work(state_dir, job), as_json=as_json)


async def _left_before(desk: Any, name: str) -> bool:
    """Tell whether the app has left shadow already, by a command that was stopped after that."""
    from broker.domain.shadow import SWITCHING
    from broker.store import shadow as store

    state = await store.state(desk.db, name)
    return state is not None and not state.shadow and state.suspended == SWITCHING and state.changed_at is not None


async def _switched(desk: Any, name: str, *, shadow: bool) -> dict[str, Any]:
    """Ask for the switch until it is done, with words on stderr.

    Raises:
        Unavailable: calls stay open.
    """
    import asyncio
    import time

    from broker.errors import Unavailable
    from broker.flows.operate import shadow as flow

    until = time.monotonic() + _PATIENCE_S
    while True:
        told = await flow.switch(desk, name, shadow=shadow)
        if told["done"]:
            return {"app": name, "ended": told["ended"]}
        if time.monotonic() > until:
            raise Unavailable(
                f"{told['open_calls']} calls of the app are still open; it stays suspended. Repeat the command, "
                "or `broker app resume`."
            )
        waits = f"suspended, {told['ready_in_s']} s to go" if not told["open_calls"] else f"{told['open_calls']} calls"
        click.echo(waits, err=True)
        await asyncio.sleep(min(max(told["ready_in_s"], 0.1), _LOOK_S))

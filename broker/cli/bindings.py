"""``broker bindings``."""

from __future__ import annotations

import sys
from typing import Any

import click

from broker.cli.desk import confirm, tell, the_app, who, with_app, with_json, with_state_dir, with_yes, work

_LIST = ("id", "state", "reason", "x", "a", "b", "pool", "order_id", "created_at", "expires_at")
_STATES = click.Choice(["pending", "active", "releasing", "released", "failed"])
_LIMIT = click.IntRange(1, 10_000)


@click.group()
def bindings() -> None:
    r"""Bindings: list, search, show the whole story, release by hand. Phones are masked.

    \b
    Examples:
      broker bindings list --state active --app food
      broker bindings list --order order-1 --app food
      echo +8613900000001 | broker bindings search - --app food
      broker bindings show bnd_...
      broker bindings release bnd_... --yes
    """


@bindings.command("list")
@click.option("--order", "order_id", help="Only this order's.")
@click.option("--x", help="Only those on this X number.")
@click.option("--state", type=_STATES, help="Only those in this state.")
@click.option("--limit", type=_LIMIT, default=50, show_default=True, help="At most so many, newest first.")
@with_app
@with_state_dir
@with_json
def list_bindings(app: str | None, state_dir: str | None, as_json: bool, **wanted: Any) -> None:
    r"""List bindings of an app, newest first.

    \b
    Examples:
      broker bindings list
      broker bindings list --x +8617010000001 --state active --json
    """
    _list(wanted, app, state_dir, as_json=as_json)


@bindings.command("search")
@click.argument("party")
@click.option("--state", type=_STATES, help="Only those in this state.")
@click.option("--limit", type=_LIMIT, default=50, show_default=True, help="At most so many, newest first.")
@with_app
@with_state_dir
@with_json
def search_bindings(party: str, app: str | None, state_dir: str | None, as_json: bool, **wanted: Any) -> None:
    r"""Find the bindings of a real phone, of what has ended the last on each X.

    PARTY is E.164, or - to read it from standard input, where neither the shell's history nor `ps` shows it.

    \b
    Examples:
      echo +8613900000001 | broker bindings search -
    """
    given = sys.stdin.readline(100).strip() if party == "-" else party
    _list({**wanted, "party": given}, app, state_dir, as_json=as_json)


def _list(wanted: dict[str, Any], app: str | None, state_dir: str | None, *, as_json: bool) -> None:
    from broker.flows.operate import bindings as flow
    from broker.flows.operate.fields import BindingFilter, read

    async def job(desk: Any) -> Any:
        asked = read(BindingFilter, wanted)
        return await flow.every(desk, await the_app(desk, app), asked)

    tell(work(state_dir, job), as_json=as_json, columns=_LIST)


@bindings.command("show")
@click.argument("binding", metavar="ID")
@click.option("--reveal", is_flag=True, help="Show the real numbers; who did is noted in the binding's story.")
@with_state_dir
@with_json
def show_binding(binding: str, reveal: bool, state_dir: str | None, as_json: bool) -> None:
    r"""Show a binding and its whole story: states, platform calls with attempt and code, who and why.

    \b
    Examples:
      broker bindings show bnd_...
      broker bindings show bnd_... --reveal --json
    """
    from broker.flows.operate import bindings as flow

    async def job(desk: Any) -> Any:
        return await flow.show(desk, binding, reveal_to=who() if reveal else None)

    shown = work(state_dir, job)
    if as_json:
        tell(shown, as_json=True)
        return
    tell({name: value for name, value in shown.items() if name != "story"}, as_json=False)
    click.echo()
    tell(shown["story"], as_json=False, columns=("at", "event", "text"))


@bindings.command("release")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@with_yes
@with_state_dir
@with_json
def release_bindings(ids: tuple[str, ...], yes: bool, state_dir: str | None, as_json: bool) -> None:
    r"""Release bindings by hand. Running instances send the unbinds: `releasing` = none has been confirmed yet.

    \b
    Examples:
      broker bindings release bnd_... bnd_... --yes
    """
    from broker.flows.operate import bindings as flow

    confirm(f"Release {len(ids)} binding{'s' if len(ids) > 1 else ''}? Their calls end now.", yes=yes)
    if sys.stderr.isatty():
        click.echo("Waiting for the platform ...", err=True)

    async def job(desk: Any) -> Any:
        return await flow.release(desk, list(dict.fromkeys(ids)), who=who())

    tell(work(state_dir, job), as_json=as_json, columns=("id", "state", "reason"))

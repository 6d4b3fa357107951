"""``broker calls``."""

from __future__ import annotations

from typing import Any

import click

from broker.cli.desk import confirm, tell, the_app, who, with_app, with_json, with_state_dir, with_yes, work

_LIST = ("id", "op", "state", "reason", "http", "code", "x", "failures", "crashes", "failing_since", "dead_at")
_TRIES = ("at", "asked", "attempt", "verdict", "http", "code", "error", "who", "why")
_STATES = click.Choice(["dead", "failing", "all"])


@click.group()
def calls() -> None:
    r"""Platform calls that keep failing. A dead one is tried no more, and what it holds stays held, until you decide.

    \b
    Examples:
      broker calls list --app food
      broker calls explain 019ab3c5e27f7c1d9a04b8f3d2e6170a.2 --app food
      broker calls retry --all --app food
      broker calls discard 019ab3c5e27f7c1d9a04b8f3d2e6170a.2 --reason "ended in the platform's console" --app food
    """


@calls.command("list")
@click.option("--state", type=_STATES, default="dead", show_default=True, help="failing: tried still.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="At most so many.")
@with_app
@with_state_dir
@with_json
def list_calls(app: str | None, state_dir: str | None, as_json: bool, **wanted: Any) -> None:
    r"""List calls that keep failing, those dead longest first.

    \b
    Examples:
      broker calls list --state all --json
    """
    from broker.flows.operate import calls as flow
    from broker.flows.operate.fields import CallFilter, read

    async def job(desk: Any) -> Any:
        return await flow.every(desk, await the_app(desk, app), read(CallFilter, wanted))

    tell(work(state_dir, job), as_json=as_json, columns=_LIST)


@calls.command("explain")
@click.argument("call", metavar="ID")
@with_app
@with_state_dir
@with_json
def explain_call(call: str, app: str | None, state_dir: str | None, as_json: bool) -> None:
    r"""Show what was tried when with which codes, what the call blocks, and what a retry or a discard would do.

    \b
    Examples:
      broker calls explain 019ab3c5e27f7c1d9a04b8f3d2e6170a.2
    """
    from broker.flows.operate import calls as flow

    async def job(desk: Any) -> Any:
        return await flow.explain(desk, await the_app(desk, app), call)

    shown = work(state_dir, job)
    if as_json:
        tell(shown, as_json=True)
        return
    tell({name: value for name, value in shown.items() if name != "tries"}, as_json=False)
    click.echo()
    tell([{name: one.get(name) for name in _TRIES} for one in shown["tries"]], as_json=False, columns=_TRIES)


@calls.command("retry")
@click.argument("ids", nargs=-1, metavar="[ID...]")
@click.option("--all", "everything", is_flag=True, help="Every dead call of the app.")
@with_app
@with_state_dir
@with_json
def retry_calls(ids: tuple[str, ...], everything: bool, app: str | None, state_dir: str | None, as_json: bool) -> None:
    r"""Have dead calls tried again, by running instances. It does no harm: what may have happened is looked up first.

    \b
    Examples:
      broker calls retry --all --app food
    """
    from broker.flows.operate import calls as flow
    from broker.flows.operate.fields import Retry, read

    if everything == bool(ids):
        raise click.UsageError("Name the calls, or give --all.")

    async def job(desk: Any) -> Any:
        wanted = read(Retry, {"calls": list(ids)} if ids else {})
        return await flow.retry(desk, await the_app(desk, app), wanted.calls, who=who())

    tell(work(state_dir, job), as_json=as_json, columns=("id", "state"))


@calls.command("discard")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.option("--reason", required=True, help="Why; kept in the story of the bindings concerned.")
@with_app
@with_yes
@with_state_dir
@with_json
def discard_calls(
    ids: tuple[str, ...], reason: str, app: str | None, yes: bool, state_dir: str | None, as_json: bool
) -> None:
    r"""Give dead calls up without knowing what the platform holds; `explain` says who may be reachable then.

    \b
    Examples:
      broker calls discard 019ab3c5e27f7c1d9a04b8f3d2e6170a.2 --reason "ended in the platform's console" --yes
    """
    from broker.flows.operate import calls as flow
    from broker.flows.operate.fields import Discard, read

    many = f"{len(ids)} call{'s' if len(ids) > 1 else ''}"
    confirm(f"Give up {many}? The platform may still connect the parties; see `broker calls explain`.", yes=yes)

    async def job(desk: Any) -> Any:
        wanted = read(Discard, {"calls": list(ids), "reason": reason})
        return await flow.discard(desk, await the_app(desk, app), wanted, who=who())

    tell(work(state_dir, job), as_json=as_json, columns=("id", "state", "op"))

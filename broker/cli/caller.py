"""``broker caller`` and ``broker key``."""

from __future__ import annotations

from typing import Any

import click

from broker.cli.desk import confirm, tell, the_app, with_app, with_json, with_state_dir, with_yes, work


@click.group()
def caller() -> None:
    r"""Order systems that use an app.

    \b
    Examples:
      broker caller create shop --app food
      broker caller weight shop 5 --app food
    """


@caller.command("list")
@with_app
@with_state_dir
@with_json
def list_callers(app: str | None, state_dir: str | None, as_json: bool) -> None:
    """List the callers of an app."""
    from broker.flows.operate import callers

    async def job(desk: Any) -> Any:
        return await callers.every(desk, await the_app(desk, app))

    tell(work(state_dir, job), as_json=as_json, columns=("name", "weight", "live_keys", "created_at"))


@caller.command("create")
@click.argument("name")
@click.option("--weight", type=int, default=1, show_default=True, help="Share of the app's call budget, 1 to 1000.")
@with_app
@with_state_dir
@with_json
def create_caller(name: str, weight: int, app: str | None, state_dir: str | None, as_json: bool) -> None:
    """Create a caller."""
    from broker.flows.operate import callers
    from broker.flows.operate.fields import NewCaller, read

    async def job(desk: Any) -> Any:
        new = read(NewCaller, {"name": name, "weight": weight})
        return await callers.create(desk, await the_app(desk, app), new)

    tell(work(state_dir, job), as_json=as_json)


@caller.command("weight")
@click.argument("name")
@click.argument("weight", type=int)
@with_app
@with_state_dir
@with_json
def set_weight(name: str, weight: int, app: str | None, state_dir: str | None, as_json: bool) -> None:
    """Change a caller's share of the app's call budget."""
    from broker.flows.operate import callers
    from broker.flows.operate.fields import CallerChange, read

    async def job(desk: Any) -> Any:
        wanted = read(CallerChange, {"weight": weight})
        return await callers.set_weight(desk, await the_app(desk, app), name, wanted.weight)

    tell(work(state_dir, job), as_json=as_json)


@click.group()
def key() -> None:
    r"""API keys of callers: at most two live ones each, so that they can be rotated without a gap.

    \b
    Examples:
      broker key create shop --app food
      broker key create console --app food --scope operate
      broker key revoke shop X7ab --app food --yes
    """


@key.command("list")
@click.option("--caller", "caller_name", help="Only this caller's.")
@with_app
@with_state_dir
@with_json
def list_keys(caller_name: str | None, app: str | None, state_dir: str | None, as_json: bool) -> None:
    """List keys by their hints: the last characters."""
    from broker.flows.operate import callers

    async def job(desk: Any) -> Any:
        return await callers.keys(desk, await the_app(desk, app), caller_name)

    tell(work(state_dir, job), as_json=as_json, columns=("caller", "hint", "scopes", "created_at", "revoked_at"))


@key.command("create")
@click.argument("caller_name", metavar="CALLER")
@click.option("--scope", "scopes", multiple=True, help="bind, read, reveal or operate; default: bind and read.")
@with_app
@with_state_dir
@with_json
def create_key(
    caller_name: str, scopes: tuple[str, ...], app: str | None, state_dir: str | None, as_json: bool
) -> None:
    """Create a key and print it: this once, never again."""
    from broker.api.auth import new_key
    from broker.flows.operate import callers
    from broker.flows.operate.fields import NewKey, read

    async def job(desk: Any) -> Any:
        new = read(NewKey, {"scopes": list(scopes)} if scopes else {})
        return await callers.create_key(desk, await the_app(desk, app), caller_name, new, new_key())

    tell(work(state_dir, job), as_json=as_json)


@key.command("revoke")
@click.argument("caller_name", metavar="CALLER")
@click.argument("hint")
@with_yes
@with_app
@with_state_dir
@with_json
def revoke_key(caller_name: str, hint: str, yes: bool, app: str | None, state_dir: str | None, as_json: bool) -> None:
    """Revoke the key with this hint. Instances stop taking it within about a second."""
    from broker.flows.operate import callers

    confirm(f"Revoke the key of {caller_name} that ends in {hint}?", yes=yes)

    async def job(desk: Any) -> Any:
        return await callers.revoke_key(desk, await the_app(desk, app), caller_name, hint)

    tell(work(state_dir, job), as_json=as_json)

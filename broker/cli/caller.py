"""``broker caller`` and ``broker key``."""

from __future__ import annotations

from typing import Any

import click

from broker.cli.desk import confirm, number_or_none, tell, the_app, with_app, with_json, with_state_dir, with_yes, work

_LIST = ("name", "weight", "requests_per_s", "max_live_bindings", "live_keys", "created_at")


@click.group()
def caller() -> None:
    r"""Order systems that use an app.

    \b
    Examples:
      broker caller create shop --app food
      broker caller set shop --weight 5 --app food
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

    tell(work(state_dir, job), as_json=as_json, columns=_LIST)


def _profile(command: Any) -> Any:
    for option in reversed(
        (
            click.option("--weight", type=int, help="Share of the app's call budget, 1 to 1000."),
            click.option("--requests-per-s", help="Requests a second, or 'none'."),
            click.option("--max-live-bindings", help="Live bindings at a time, or 'none'."),
        )
    ):
        command = option(command)
    return command


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in fields.items() if value is not None}
    for name, kind in (("requests_per_s", float), ("max_live_bindings", int)):
        if name in given:
            given[name] = number_or_none(given[name], kind, name)
    return given


@caller.command("create")
@click.argument("name")
@_profile
@with_app
@with_state_dir
@with_json
def create_caller(name: str, app: str | None, state_dir: str | None, as_json: bool, **fields: Any) -> None:
    """Create a caller."""
    from broker.flows.operate import callers
    from broker.flows.operate.fields import NewCaller, read

    given = {"name": name, **_given(fields)}

    async def job(desk: Any) -> Any:
        new = read(NewCaller, given)
        return await callers.create(desk, await the_app(desk, app), new)

    tell(work(state_dir, job), as_json=as_json)


@caller.command("set")
@click.argument("name")
@_profile
@with_app
@with_state_dir
@with_json
def set_caller(name: str, app: str | None, state_dir: str | None, as_json: bool, **fields: Any) -> None:
    """Change what is given of a caller and leave the rest."""
    from broker.flows.operate import callers
    from broker.flows.operate.fields import CallerChange, read

    given = _given(fields)
    if not given:
        raise click.UsageError("Nothing to change: give an option.")

    async def job(desk: Any) -> Any:
        wanted = read(CallerChange, given)
        return await callers.change(desk, await the_app(desk, app), name, wanted)

    tell(work(state_dir, job), as_json=as_json)


@click.group()
def key() -> None:
    r"""API keys of callers: at most two live ones each, so that they can be rotated without a gap.

    \b
    Examples:
      broker key create shop --app food
      broker key create console --app food --scope operate
      broker key rotate shop --app food
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


@key.command("rotate")
@click.argument("caller_name", metavar="CALLER")
@with_app
@with_state_dir
@with_json
def rotate_key(caller_name: str, app: str | None, state_dir: str | None, as_json: bool) -> None:
    """Create a second key with the scopes of the first and print it: this once, never again.

    Both work until the old one, whose hint is printed as `replaces`, is revoked.
    """
    from broker.api.auth import new_key
    from broker.flows.operate import callers

    async def job(desk: Any) -> Any:
        return await callers.rotate_key(desk, await the_app(desk, app), caller_name, new_key())

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

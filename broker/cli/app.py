"""``broker app``."""

from __future__ import annotations

import sys
from typing import Any

import click

from broker.cli.desk import confirm, tell, with_json, with_state_dir, with_yes, work

_LIST = ("name", "mode", "state", "base_url", "rate", "burst", "default_ttl_s", "quarantine_s", "cap", "policy")
_ABSENT = "none"


@click.group()
def app() -> None:
    r"""Platform applications: address, secret, limits, defaults.

    \b
    Examples:
      broker app create food --app-key KEY --secret-file secret.txt --base-url https://platform.example.com
      broker app update food --rate 50 --burst 10
      broker app check food
    """


def _profile(command: Any) -> Any:
    for option in reversed(
        (
            click.option("--base-url", help="The platform's access address; a path in it is kept."),
            click.option(
                "--secret-file",
                type=click.File("r"),
                help="File with the app's secret, - = standard input. A secret is never taken from the command line.",
            ),
            click.option("--rate", help="Platform calls a second over all instances; 'none' = no limit."),
            click.option("--burst", type=int, help="Calls that may go out at once after a pause."),
            click.option(
                "--default-ttl", "default_ttl_s", type=int, help="Lifetime in seconds of a binding; 0 = none."
            ),
            click.option("--quarantine", "quarantine_s", type=int, help="Rest in seconds of a party on an X."),
            click.option("--cap", type=int, help="Most live lines on one X."),
            click.option("--policy", help="pack, sticky, avoid_sticky or spread."),
        )
    ):
        command = option(command)
    return command


def _given(rate: str | None, secret_file: Any, fields: dict[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in fields.items() if value is not None}
    if rate is not None:
        try:
            given["rate"] = None if rate == _ABSENT else float(rate)
        except ValueError:
            raise click.BadParameter("must be a number or 'none'", param_hint="--rate") from None
    if secret_file is not None:
        try:
            given["secret"] = secret_file.read().strip()
        except UnicodeDecodeError:
            raise click.BadParameter("the file is not text", param_hint="--secret-file") from None
    return given


@app.command("list")
@with_state_dir
@with_json
def list_apps(state_dir: str | None, as_json: bool) -> None:
    """List all apps."""
    from broker.flows.operate import apps

    tell(work(state_dir, apps.every), as_json=as_json, columns=_LIST)


@app.command()
@click.argument("name")
@with_state_dir
@with_json
def show(name: str, state_dir: str | None, as_json: bool) -> None:
    """Show one app; its secret is never shown."""
    from broker.flows.operate import apps

    tell(work(state_dir, lambda desk: apps.show(desk, name)), as_json=as_json)


@app.command()
@click.argument("name")
@click.option("--app-key", required=True, help="The platform's APP_Key.")
@click.option("--auth-scheme", help="aksk (the platform's usual one) or wsse.")
@_profile
@with_state_dir
@with_json
def create(name: str, state_dir: str | None, as_json: bool, **fields: Any) -> None:
    """Create an app. The secret comes from a file, or is asked for at a terminal."""
    from broker.flows.operate import apps
    from broker.flows.operate.fields import NewApp, read

    if fields["base_url"] is None:
        raise click.UsageError("Missing option '--base-url'.")
    given = {"name": name, **_given(fields.pop("rate"), fields.pop("secret_file"), fields)}
    if "secret" not in given:
        if not sys.stdin.isatty():
            raise click.UsageError("Missing option '--secret-file'.")
        given["secret"] = click.prompt("Secret", hide_input=True, err=True)

    async def job(desk: Any) -> Any:
        return await apps.create(desk, read(NewApp, given))

    tell(work(state_dir, job), as_json=as_json)


@app.command()
@click.argument("name")
@_profile
@with_state_dir
@with_json
def update(name: str, state_dir: str | None, as_json: bool, **fields: Any) -> None:
    """Change what is given and leave the rest. Instances take it in within about a second."""
    from broker.flows.operate import apps
    from broker.flows.operate.fields import AppChange, read

    given = _given(fields.pop("rate"), fields.pop("secret_file"), fields)
    if not given:
        raise click.UsageError("Nothing to change: give an option.")

    async def job(desk: Any) -> Any:
        return await apps.change(desk, name, read(AppChange, given))

    tell(work(state_dir, job), as_json=as_json)


@app.command()
@click.argument("name")
@click.option("--reason", help="For people who look later.")
@with_yes
@with_state_dir
@with_json
def suspend(name: str, reason: str | None, yes: bool, state_dir: str | None, as_json: bool) -> None:
    """Refuse new bindings of the app. What is bound stays bound."""
    from broker.flows.operate import apps
    from broker.flows.operate.fields import Why, read

    confirm(f"Refuse all new bindings of {name}?", yes=yes)

    async def job(desk: Any) -> Any:
        return await apps.suspend(desk, name, read(Why, {"reason": reason}).reason)

    tell(work(state_dir, job), as_json=as_json)


@app.command()
@click.argument("name")
@with_state_dir
@with_json
def resume(name: str, state_dir: str | None, as_json: bool) -> None:
    """Take new bindings of the app again."""
    from broker.flows.operate import apps

    tell(work(state_dir, lambda desk: apps.resume(desk, name)), as_json=as_json)


@app.command()
@click.argument("name")
@with_state_dir
@with_json
def check(name: str, state_dir: str | None, as_json: bool) -> None:
    """Prove address and secret with one query to the platform; exit 1 if it does not accept them."""
    from broker.flows.operate import apps
    from broker.platform.huawei.access import of_app

    verdict = work(state_dir, lambda desk: apps.check(desk, name, of_app))
    tell(verdict, as_json=as_json)
    sys.exit(0 if verdict["ok"] else 1)

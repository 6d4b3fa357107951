"""``broker app``."""

from __future__ import annotations

import sys
from typing import Any, TextIO

import click

from broker.cli.desk import ABSENT, confirm, number_or_none, tell, with_json, with_state_dir, with_yes, work

_LIST = ("name", "mode", "state", "base_url", "rate", "burst", "default_ttl_s", "quarantine_s", "cap", "policy")
_SECRET_CHARS = 4096
_NUMBERS: tuple[tuple[str, type[int | float]], ...] = (
    ("rate", float),
    ("bind_rate", float),
    ("unbind_rate", float),
    ("modify_rate", float),
    ("query_rate", float),
    ("heat", int),
    ("requests_per_s", float),
    ("max_live_bindings", int),
    ("withdraw_after_s", int),
    ("end_after_call_s", int),
    ("renew_by_call_s", int),
    ("longest_life_s", int),
    ("complaint_budget", int),
    ("answer_floor", float),
)
_WORDS = ("event_url", "cdr_url", "sms_url", "push_from", "close_tone", "channel", "industry", "call_script", "owner")


@click.group()
def app() -> None:
    r"""Platform applications: address, secret, limits, defaults, notes.

    \b
    Examples:
      broker app create food --app-key KEY --secret-file secret.txt --base-url https://platform.example.com
      broker app set food --rate 50 --burst 10 --max-ttl 86400
      broker app check food
      broker app secret food --stage --secret-file new.txt
      broker app check food --staged
      broker app secret food --promote
    """


_secret_file = click.option(
    "--secret-file",
    type=click.File("r"),
    help="File with the app's secret, - = standard input. A secret is never taken from the command line.",
)


def _profile(command: Any) -> Any:
    for option in reversed(
        (
            click.option("--base-url", help="The platform's access address; a path in it is kept."),
            _secret_file,
            click.option("--rate", help="Platform calls a second over all instances; 'none' = no limit."),
            click.option("--burst", type=int, help="Calls that may go out at once after a pause."),
            click.option("--bind-rate", help="Binds a second within the rate, or 'none'."),
            click.option("--unbind-rate", help="Unbinds a second within the rate, or 'none'."),
            click.option("--modify-rate", help="Changes a second within the rate, or 'none'."),
            click.option("--query-rate", help="Queries a second within the rate, or 'none'."),
            click.option(
                "--default-ttl", "default_ttl_s", type=int, help="Lifetime in seconds of a binding; 0 = none."
            ),
            click.option(
                "--max-ttl",
                "max_ttl_s",
                type=int,
                help="Longest lifetime in seconds, 60 to 31536000; below that, none is without end.",
            ),
            click.option("--quarantine", "quarantine_s", type=int, help="Rest in seconds of a party on an X."),
            click.option("--cap", type=int, help="Most live lines on one X."),
            click.option("--policy", help="pack, sticky, avoid_sticky or spread."),
            click.option("--heat", help="Calls an hour that one X may carry while others carry less, or 'none'."),
            click.option(
                "--recording/--no-recording",
                default=None,
                help="Whether calls may be recorded.",
            ),
            click.option("--sms/--no-sms", default=None, help="Whether binds may ask for short messages."),
            click.option("--extension-digits", type=int, help="Digits of an extension, 1 to 4, as at the platform."),
            click.option("--extensions-per-x", type=int, help="Most extensions of one X that are given out; mode axe."),
            click.option("--owner", help="Bindings may move between apps of one owner; 'none' takes it away."),
            click.option(
                "--recreate/--no-recreate",
                default=None,
                help="Whether lines are renewed by binding them anew; mode axe.",
            ),
            click.option(
                "--retention-days",
                type=int,
                help="Days that the past is kept: calls, ended bindings, who had which X.",
            ),
            click.option("--event-days", type=int, help="How long events are kept; 0 = none are written."),
            click.option("--requests-per-s", help="Requests a second of all callers together, or 'none'."),
            click.option("--max-live-bindings", help="Live bindings of all callers together, or 'none'."),
            click.option("--withdraw-after-s", help="Binds that are pending so many seconds are withdrawn; or 'none'."),
            click.option("--end-after-call-s", help="A binding ends so long after its last call; or 'none'."),
            click.option("--renew-by-call-s", help="With each call a binding lasts so long from then on; or 'none'."),
            click.option("--longest-life-s", help="How long calls renew a binding at most; or 'none'."),
            click.option(
                "--release-grace-s", type=int, help="How long a line outlives its last order's release; 0 = not."
            ),
            click.option(
                "--call-back-s", type=int, help="Modes ax, x: A who dials X reaches the last caller so long; 0 = not."
            ),
            click.option("--sample-share", type=float, help="Share of releases that rest longer, to learn; 0 = none."),
            click.option("--sample-factor", type=int, help="So many times the quarantine they rest."),
            click.option(
                "--unreachable-after",
                type=int,
                help="Intercepted calls of a party a day, and no others, that are told; 0 = not.",
            ),
            click.option("--complaint-budget", help="Complaints that one X may have; or 'none' = any number."),
            click.option("--complaint-days", type=int, help="How many days a complaint counts."),
            click.option("--answer-floor", help="Share of an X's calls that must be answered, as 0.4; or 'none'."),
            click.option("--over-budget", help="What is made of an X over its budget: report or freeze."),
            click.option("--event-url", help="Where the platform was told to push call events, or 'none'."),
            click.option("--cdr-url", help="Where the platform was told to push call records, or 'none'."),
            click.option("--sms-url", help="Where the platform was told to push short messages, or 'none'."),
            click.option(
                "--push-wsse/--no-push-wsse", default=None, help="Whether pushes may be signed in the older scheme."
            ),
            click.option("--push-from", help="Networks that pushes may come from, with commas between, or 'none'."),
            click.option("--close-tone", help="Voice file for callers whom mode X puts through to nobody, or 'none'."),
            click.option("--channel", help="A note: through whom the business comes; 'none' takes it away."),
            click.option("--industry", help="A note: what business the calls are about; 'none' takes it away."),
            click.option("--call-script", help="A note: what the callers say; 'none' takes it away."),
        )
    ):
        command = option(command)
    return command


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in fields.items() if value is not None}
    for name, kind in _NUMBERS:
        if name in given:
            given[name] = number_or_none(given[name], kind, name)
    given |= dict.fromkeys((name for name in _WORDS if given.get(name) == ABSENT), None)
    if (file := given.pop("secret_file", None)) is not None:
        given["secret"] = _content(file)
    return given


def _content(file: TextIO) -> str:
    try:
        return file.read(_SECRET_CHARS).strip()
    except UnicodeDecodeError:
        raise click.BadParameter("the file is not text", param_hint="--secret-file") from None


def _asked_for() -> str:
    return str(click.prompt("Secret", hide_input=True, err=True))


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
@click.option("--mode", help="axb (as a rule), ax, axe, axyb or x: as the platform opened the app.")
@click.option("--auth-scheme", help="aksk (the platform's usual one) or wsse.")
@click.option("--shadow", is_flag=True, default=None, help="Another system binds: only predict.")
@_profile
@with_state_dir
@with_json
def create(name: str, state_dir: str | None, as_json: bool, **fields: Any) -> None:
    """Create an app. The secret comes from a file, or is asked for at a terminal."""
    from broker.flows.operate import apps
    from broker.flows.operate.fields import NewApp, read

    if fields["base_url"] is None:
        raise click.UsageError("Missing option '--base-url'.")
    given = {"name": name, **_given(fields)}
    if "secret" not in given:
        if not sys.stdin.isatty():
            raise click.UsageError("Missing option '--secret-file'.")
        given["secret"] = _asked_for()

    async def job(desk: Any) -> Any:
        return await apps.create(desk, read(NewApp, given))

    tell(work(state_dir, job), as_json=as_json)


@app.command("set")
@click.argument("name")
@_profile
@with_state_dir
@with_json
def set_app(name: str, state_dir: str | None, as_json: bool, **fields: Any) -> None:
    """Change what is given and leave the rest. Instances take it in within about a second."""
    from broker.flows.operate import apps
    from broker.flows.operate.fields import AppChange, read

    given = _given(fields)
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
@click.option("--staged", is_flag=True, help="With the staged secret, before it goes live.")
@with_state_dir
@with_json
def check(name: str, staged: bool, state_dir: str | None, as_json: bool) -> None:
    """Prove address and secret with one query to the platform; exit 1 if it does not accept them."""
    from broker.flows.operate import apps
    from broker.platform.huawei.access import of_app

    verdict = work(state_dir, lambda desk: apps.check(desk, name, of_app, staged=staged))
    tell(verdict, as_json=as_json)
    sys.exit(0 if verdict["ok"] else 1)


@app.command()
@click.argument("name")
@click.option("--stage", is_flag=True, help="Keep a new secret beside the current one: from --secret-file or stdin.")
@click.option("--promote", is_flag=True, help="Make the staged secret the current one, and this the previous one.")
@click.option("--drop", is_flag=True, help="Forget the second secret, previous or staged.")
@_secret_file
@with_yes
@with_state_dir
@with_json
def secret(
    name: str,
    stage: bool,
    promote: bool,
    drop: bool,
    secret_file: TextIO | None,
    yes: bool,
    state_dir: str | None,
    as_json: bool,
) -> None:
    """Rotate the app's secret without a gap: stage, `check --staged`, promote, drop.

    Calls to the platform are signed with the current secret.
    """
    from broker.flows.operate import rotation
    from broker.flows.operate.fields import Staged, read

    if stage + promote + drop != 1:
        raise click.UsageError("Give one of --stage, --promote and --drop.")
    if drop:
        confirm(f"Forget the second secret of {name}?", yes=yes)
    new = _new_secret(secret_file) if stage else ""

    async def job(desk: Any) -> Any:
        if stage:
            return await rotation.stage(desk, name, read(Staged, {"secret": new}).secret)
        return await (rotation.promote(desk, name) if promote else rotation.drop(desk, name))

    tell(work(state_dir, job), as_json=as_json)


def _new_secret(file: TextIO | None) -> str:
    if file is not None:
        return _content(file)
    return _asked_for() if sys.stdin.isatty() else _content(sys.stdin)

"""``broker webhook``."""

from __future__ import annotations

import sys
from typing import Any

import click

from broker.cli.desk import confirm, tell, the_app, with_app, with_json, with_state_dir, with_yes, work

_LIST = ("name", "state", "url", "types", "delivered", "behind", "waiting", "dead", "error")
_DELIVERIES = ("id", "type", "binding_id", "state", "attempts", "due_at", "error")


@click.group()
def webhook() -> None:
    r"""Webhooks: addresses of an order system that an app's events are sent to.

    Signed by Standard Webhooks 1.0, sent at least once, a binding's events in order. What a receiver does not accept is
    sent again over three days, then it is a dead letter; see `deliveries`.

    \b
    Examples:
      broker webhook add orders https://orders.example.com/events --type binding.* --app food
      broker webhook test orders --app food
      broker webhook deliveries orders --state dead --app food
      broker webhook replay orders --since 2026-11-22T08:00:00Z --app food
    """


def _run(app: str | None, state_dir: str | None, job: Any) -> Any:
    """Run ``job(flow, desk, app)``."""
    from broker.flows.operate import webhooks as flow

    async def at_desk(desk: Any) -> Any:
        return await job(flow, desk, await the_app(desk, app))

    return work(state_dir, at_desk)


@webhook.command()
@click.argument("name")
@click.argument("url")
@click.option("--type", "types", multiple=True, help="Only events of this type, or of a kind as binding.*; repeatable.")
@click.option("--secret", help="A signing secret of your own, whsec_ and base64; otherwise a new one.")
@with_app
@with_state_dir
@with_json
def add(
    name: str,
    url: str,
    types: tuple[str, ...],
    secret: str | None,
    app: str | None,
    state_dir: str | None,
    as_json: bool,
) -> None:
    """Send an app's events to URL from now on. The signing secret is shown once."""
    from broker.flows.operate.fields import read
    from broker.flows.operate.webhooks import NewWebhook

    given: dict[str, object] = {"name": name, "url": url, "types": list(types) or None, "secret": secret}
    answer = _run(app, state_dir, lambda flow, desk, of: flow.add(desk, of, read(NewWebhook, given)))
    tell(answer, as_json=as_json)


@webhook.command("list")
@with_app
@with_state_dir
@with_json
def list_webhooks(app: str | None, state_dir: str | None, as_json: bool) -> None:
    """List an app's webhooks, and how they do."""
    answer = _run(app, state_dir, lambda flow, desk, of: flow.every(desk, of))
    tell(answer, as_json=as_json, columns=_LIST)


@webhook.command()
@click.argument("name")
@with_app
@with_state_dir
@with_json
def show(name: str, app: str | None, state_dir: str | None, as_json: bool) -> None:
    """Show one webhook."""
    tell(_run(app, state_dir, lambda flow, desk, of: flow.show(desk, of, name)), as_json=as_json)


@webhook.command()
@click.argument("name")
@click.option("--wait", "wait_s", type=click.FloatRange(0, 120), default=15.0, help="Seconds to wait for an answer.")
@with_app
@with_state_dir
@with_json
def test(name: str, wait_s: float, app: str | None, state_dir: str | None, as_json: bool) -> None:
    """Send an event of type webhook.test the way that all go. Exit code 1 if it is not accepted."""
    answer = _run(app, state_dir, lambda flow, desk, of: flow.test(desk, of, name, wait_s=wait_s))
    tell(answer, as_json=as_json)
    if not answer["accepted"]:
        sys.exit(1)


@webhook.command()
@click.argument("name")
@click.option("--overlap", "overlap_s", type=int, default=86_400, help="Seconds in which the old secret signs too.")
@click.option("--secret", help="A signing secret of your own; otherwise a new one.")
@with_app
@with_state_dir
@with_json
def rotate(
    name: str, overlap_s: int, secret: str | None, app: str | None, state_dir: str | None, as_json: bool
) -> None:
    """Sign with a new secret, and for a while with the old one too."""
    from broker.flows.operate.fields import read
    from broker.flows.operate.webhooks import Rotation

    given = {"overlap_s": overlap_s, "secret": secret}
    tell(
        _run(app, state_dir, lambda flow, desk, of: flow.rotate(desk, of, name, read(Rotation, given))), as_json=as_json
    )


@webhook.command()
@click.argument("name")
@with_app
@with_state_dir
@with_json
def enable(name: str, app: str | None, state_dir: str | None, as_json: bool) -> None:
    """Send again, beginning with what happened meanwhile."""
    tell(_run(app, state_dir, lambda flow, desk, of: flow.enable(desk, of, name)), as_json=as_json)


@webhook.command()
@click.argument("name")
@with_app
@with_state_dir
@with_json
def disable(name: str, app: str | None, state_dir: str | None, as_json: bool) -> None:
    """Send nothing until it is enabled."""
    tell(_run(app, state_dir, lambda flow, desk, of: flow.disable(desk, of, name)), as_json=as_json)


@webhook.command()
@click.argument("name")
@with_yes
@with_app
@with_state_dir
@with_json
def remove(name: str, yes: bool, app: str | None, state_dir: str | None, as_json: bool) -> None:
    """Forget a webhook and what waits for it."""
    confirm(f"Forget {name} and what waits for it?", yes=yes)
    tell(_run(app, state_dir, lambda flow, desk, of: flow.remove(desk, of, name)), as_json=as_json)


@webhook.command()
@click.argument("name")
@click.option("--state", help="Only those waiting, or dead.")
@click.option("--after", help="Only those after this event.")
@click.option("--limit", type=int, default=50, show_default=True, help="Most to list.")
@with_app
@with_state_dir
@with_json
def deliveries(
    name: str, state: str | None, after: str | None, limit: int, app: str | None, state_dir: str | None, as_json: bool
) -> None:
    """List events that wait to be sent again, and those given up (dead)."""
    from broker.flows.operate.fields import read
    from broker.flows.operate.webhooks import DeliveryFilter

    given = {"state": state, "after": after, "limit": limit}
    answer = _run(app, state_dir, lambda flow, desk, of: flow.deliveries(desk, of, name, read(DeliveryFilter, given)))
    tell(answer, as_json=as_json, columns=_DELIVERIES)


@webhook.command()
@click.argument("name")
@click.option("--since", help="Events from this time on, as 2026-11-22T08:00:00Z.")
@click.option("--until", help="Events before this time.")
@click.option("--type", "types", multiple=True, help="Events of this type or kind; repeatable.")
@click.option("--id", "ids", multiple=True, help="The event with this id; repeatable.")
@click.option("--dead", is_flag=True, help="The dead letters.")
@with_yes
@with_app
@with_state_dir
@with_json
def replay(
    name: str, since: str | None, until: str | None, types: tuple[str, ...], ids: tuple[str, ...], dead: bool,
    yes: bool, app: str | None, state_dir: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Send events again, under their old ids."""
    from broker.flows.operate.fields import read
    from broker.flows.operate.webhooks import Replay

    given = {"since": since, "until": until, "types": list(types) or None, "ids": list(ids) or None}
    given = {name: value for name, value in given.items() if value is not None}
    if bool(given) == dead:
        raise click.UsageError("Say which: --dead, or any of --since, --until, --type and --id.")
    confirm(f"Send those events to {name} again?", yes=yes)

    async def job(flow: Any, desk: Any, of: str) -> Any:
        if dead:
            return await flow.revive(desk, of, name)
        answer = await flow.replay(desk, of, name, read(Replay, given))
        while answer["after"] is not None:
            click.echo(f"{answer['replayed']:,} events so far", err=True)
            more = await flow.replay(desk, of, name, read(Replay, {**given, "after": answer["after"]}))
            answer = {**more, "replayed": answer["replayed"] + more["replayed"]}
        return answer

    tell(_run(app, state_dir, job), as_json=as_json)

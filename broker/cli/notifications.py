"""``broker notifications``."""

from __future__ import annotations

from typing import Any

import click

from broker.cli.desk import confirm, tell, the_app, with_app, with_json, with_state_dir, with_yes, work

_NOTICES = ("id", "kind", "state", "at", "received_at", "error", "bytes")


@click.group()
def notifications() -> None:
    r"""What the platform pushed and what has not had its effects: waiting, unreadable, or stuck.

    \b
    Examples:
      broker notifications list --app food
      broker notifications list --state unreadable --json
      broker notifications replay --app food --yes
    """


@notifications.command("list")
@click.option("--state", help="new (waits for its effects), unreadable, stuck, or done; default all but done.")
@click.option("--limit", type=int, default=50, show_default=True, help="Most rows, 1 to 10000.")
@with_app
@with_state_dir
@with_json
def list_notifications(state: str | None, limit: int, app: str | None, state_dir: str | None, as_json: bool) -> None:
    """List notifications, newest first, without what they say."""
    from broker.flows.operate import notifications as flow
    from broker.flows.operate.fields import NoticeFilter, read

    async def job(desk: Any) -> Any:
        return await flow.every(desk, await the_app(desk, app), read(NoticeFilter, {"state": state, "limit": limit}))

    tell(work(state_dir, job), as_json=as_json, columns=_NOTICES)


@notifications.command()
@click.option("--id", "notice", type=click.UUID, help="Only this one; default all that were set aside.")
@with_yes
@with_app
@with_state_dir
@with_json
def replay(notice: Any, yes: bool, app: str | None, state_dir: str | None, as_json: bool) -> None:
    """Have what is unreadable or stuck taken up again, after a fix. No effect ever comes twice."""
    from broker.flows.operate import notifications as flow

    confirm("Take up again what was set aside?", yes=yes)

    async def job(desk: Any) -> Any:
        return await flow.replay(desk, await the_app(desk, app), notice)

    tell(work(state_dir, job), as_json=as_json)

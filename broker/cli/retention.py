"""``broker retention``."""

from __future__ import annotations

from typing import Any

import click

from broker.cli.desk import tell, with_json, with_state_dir, work

_TABLES = ("table", "kept", "rows", "bytes", "oldest", "walk")
_WALKS = ("walk", "began_at", "ended_at", "next_at", "deleting", "deleted_last", "deleted")
_APPS = ("name", "retention_days", "ended_days", "event_days")


@click.group()
def retention() -> None:
    r"""What is kept for how long. The times are set with `broker app set NAME --retention-days N --event-days N`.

    \b
    Examples:
      broker retention show
      broker retention show --json
    """


@retention.command()
@with_state_dir
@with_json
def show(state_dir: str | None, as_json: bool) -> None:
    """Show what is kept how long, how much there is of it, what was deleted, and when the next walk begins.

    Rows are estimates of the database's statistics. `ended_days` counts from the end of a binding or line. `oldest`:
    when the oldest row was made, or the begin of the oldest partition.
    """
    from broker.flows.operate import retention as flow

    async def job(desk: Any) -> Any:
        return await flow.show(desk)

    answer = work(state_dir, job)
    if as_json:
        tell(answer, as_json=True)
        return
    for part, columns in (("apps", _APPS), ("tables", _TABLES), ("walks", _WALKS)):
        click.echo(f"{part}:")
        tell(answer[part], as_json=False, columns=columns)

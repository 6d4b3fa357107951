"""``broker pool``."""

from __future__ import annotations

from typing import Any

import click

from broker.cli.desk import (
    confirm,
    number_or_none,
    tell,
    the_app,
    with_app,
    with_json,
    with_state_dir,
    with_yes,
    work,
)

_LIST = (
    "name", "area_code", "state", "level", "left_percent", "numbers", "open_numbers", "frozen_numbers",
    "suspended_numbers", "places", "held", "resting", "free", "created_at",
)  # fmt: skip


@click.group()
def pool() -> None:
    r"""Pools: named sets of X numbers, normally one city each.

    \b
    Examples:
      broker pool create north --area-code 010 --app food
      broker pool set north --typo-safe --app food
      broker pool set north --low-percent 20 --app food
      broker pool close north --app food --yes
    """


def _settings(command: Any) -> Any:
    routing = click.option("--routing", help="Behind an X in mode x: pair, or one party. Fixed by the first number.")
    safe = click.option(
        "--typo-safe/--no-typo-safe",
        default=None,
        help="Give out only extensions of which no slip of a finger makes another one; mode axe.",
    )
    low = click.option("--low-percent", help="The pool is low when no more is left, 1 to 90; or 'none': told nothing.")
    return routing(safe(low(command)))


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in fields.items() if value is not None}
    if "low_percent" in given:
        given["low_percent"] = number_or_none(given["low_percent"], int, "low_percent")
    return given


@pool.command("list")
@with_app
@with_state_dir
@with_json
def list_pools(app: str | None, state_dir: str | None, as_json: bool) -> None:
    """List the pools of an app."""
    from broker.flows.operate import pools

    async def job(desk: Any) -> Any:
        return await pools.every(desk, await the_app(desk, app))

    tell(work(state_dir, job), as_json=as_json, columns=_LIST)


@pool.command("create")
@click.argument("name")
@click.option("--area-code", required=True, help="City code in domestic form, as 0755.")
@_settings
@with_app
@with_state_dir
@with_json
def create_pool(
    name: str, area_code: str, app: str | None, state_dir: str | None, as_json: bool, **fields: Any
) -> None:
    """Create a pool."""
    from broker.flows.operate import pools
    from broker.flows.operate.fields import NewPool, read

    async def job(desk: Any) -> Any:
        new = read(NewPool, {"name": name, "area_code": area_code, **_given(fields)})
        return await pools.create(desk, await the_app(desk, app), new)

    tell(work(state_dir, job), as_json=as_json)


@pool.command("set")
@click.argument("name")
@_settings
@with_app
@with_state_dir
@with_json
def set_pool(name: str, app: str | None, state_dir: str | None, as_json: bool, **fields: Any) -> None:
    """Change what is given and leave the rest. What is bound stays bound."""
    from broker.flows.operate import pools
    from broker.flows.operate.fields import PoolChange, read

    given = _given(fields)
    if not given:
        raise click.UsageError("Nothing to change: give an option.")

    async def job(desk: Any) -> Any:
        return await pools.change(desk, await the_app(desk, app), name, read(PoolChange, given))

    tell(work(state_dir, job), as_json=as_json)


@pool.command("cooldown")
@click.argument("name")
@click.option(
    "--risk",
    type=click.FloatRange(0.01, 1_000_000),
    default=100.0,
    show_default=True,
    help="Calls for a million orders that may come after the quarantine.",
)
@with_app
@with_state_dir
@with_json
def cooldown(name: str, risk: float, app: str | None, state_dir: str | None, as_json: bool) -> None:
    """Propose a quarantine from the calls that came after the end of their binding.

    A sample of releases rests several times as long (sample_share, sample_factor of the app); what is seen there is
    what would have reached somebody else. The quarantine itself is set with `broker app set --quarantine`.
    """
    from broker.flows.operate import cooldown as flow
    from broker.flows.operate.fields import Cooldown, read

    async def job(desk: Any) -> Any:
        return await flow.show(desk, await the_app(desk, app), name, read(Cooldown, {"risk": risk}))

    answer = work(state_dir, job)
    if as_json:
        tell(answer, as_json=True)
        return
    for line in flow.words(answer):
        click.echo(line)
    if answer["ages"]:
        tell(answer["ages"], as_json=False, columns=("from_s", "to_s", "calls", "releases", "per_hour"))


@pool.command("close")
@click.argument("name")
@with_yes
@with_app
@with_state_dir
@with_json
def close_pool(name: str, yes: bool, app: str | None, state_dir: str | None, as_json: bool) -> None:
    """Hand out no number of the pool any more. Its lines live on."""
    from broker.flows.operate import pools

    confirm(f"Hand out no number of {name} any more?", yes=yes)

    async def job(desk: Any) -> Any:
        return await pools.close(desk, await the_app(desk, app), name)

    tell(work(state_dir, job), as_json=as_json)


@pool.command("open")
@click.argument("name")
@with_app
@with_state_dir
@with_json
def open_pool(name: str, app: str | None, state_dir: str | None, as_json: bool) -> None:
    """Hand the pool's numbers out again."""
    from broker.flows.operate import pools

    async def job(desk: Any) -> Any:
        return await pools.reopen(desk, await the_app(desk, app), name)

    tell(work(state_dir, job), as_json=as_json)

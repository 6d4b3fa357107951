"""``broker summary`` and ``broker price``."""

from __future__ import annotations

from typing import Any

import click

from broker.cli.desk import tell, the_app, with_app, with_json, with_state_dir, work

_DAY = click.DateTime(["%Y-%m-%d"])
_APART = {"pool": "pool", "area": "area_code", "x": "x"}
_COUNTED = (
    "calls",
    "answered",
    "answer_rate",
    "talk_s",
    "minutes",
    "messages",
    "segments",
    "cost",
    "currency",
    "unpriced",
)
_PRICES = ("area_code", "x", "valid_from", "currency", "call_minute", "sms")


@click.command()
@click.argument("first", type=_DAY, metavar="FIRST")
@click.argument("last", type=_DAY, metavar="[LAST]", required=False)
@click.option("--by", type=click.Choice(list(_APART)), multiple=True, help="Told apart by this; repeatable.")
@click.option("--zone", default="Asia/Shanghai", show_default=True, help="Whose days.")
@with_app
@with_state_dir
@with_json
def summary(
    first: Any, last: Any, by: tuple[str, ...], zone: str, app: str | None, state_dir: str | None, as_json: bool
) -> None:
    r"""Add calls and messages of an app up by day: how many, how many were answered, talk time, costs.

    \b
    Examples:
      broker summary 2026-11-01 2026-11-30 --app food
      broker summary 2026-11-22 --by area --by pool --json
    """
    from zoneinfo import available_timezones

    from broker.flows.operate import prices as flow
    from broker.store.summary import Period

    end = last or first
    if end < first or (end - first).days > 366:  # noqa: PLR2004 - a year
        raise click.UsageError("LAST must not be before FIRST, nor more than a year after it.")
    if zone not in available_timezones():
        raise click.UsageError("--zone must be a time zone by its name, as Asia/Shanghai.")

    async def job(desk: Any) -> Any:
        period = Period(first.date(), end.date(), zone, tuple(dict.fromkeys(by)))
        return await flow.add_up(desk, await the_app(desk, app), period)

    tell(work(state_dir, job), as_json=as_json, columns=("day", *(_APART[one] for one in by), *_COUNTED))


@click.group()
def price() -> None:
    r"""What calls and messages of an app cost, as its contract says: for all, for a city, or for one X.

    \b
    Examples:
      broker price set --currency CNY --call-minute 0.06 --sms 0.05 --app food
      broker price set --area-code 0755 --currency CNY --call-minute 0.055 --from 2026-12-01 --app food
      broker price list --app food
    """


def _where(command: Any) -> Any:
    for option in (
        click.option("--from", "valid_from", metavar="DAY", help="From this day on (default: always)."),
        click.option("--x", help="Only for this X number."),
        click.option("--area-code", help="Only for pools of this city."),
    ):
        command = option(command)
    return command


@price.command("set")
@click.option("--currency", required=True, help="As CNY.")
@click.option("--call-minute", required=True, help="For each minute that is begun while two speak, as 0.06.")
@click.option("--sms", help="For each segment of a message that was forwarded (default: as the next wider price says).")
@_where
@with_app
@with_state_dir
@with_json
def set_price(app: str | None, state_dir: str | None, as_json: bool, **given: Any) -> None:
    """Set a price, or change the one of the same X or city and day."""
    from broker.flows.operate import prices as flow
    from broker.flows.operate.fields import read

    async def job(desk: Any) -> Any:
        return await flow.put(desk, await the_app(desk, app), read(flow.Price, given))

    tell(work(state_dir, job), as_json=as_json)


@price.command("list")
@with_app
@with_state_dir
@with_json
def list_prices(app: str | None, state_dir: str | None, as_json: bool) -> None:
    """List an app's prices."""
    from broker.flows.operate import prices as flow

    async def job(desk: Any) -> Any:
        return await flow.every(desk, await the_app(desk, app))

    tell(work(state_dir, job), as_json=as_json, columns=_PRICES)


@price.command("remove")
@_where
@with_app
@with_state_dir
@with_json
def remove_price(app: str | None, state_dir: str | None, as_json: bool, **given: Any) -> None:
    """Remove a price."""
    from broker.flows.operate import prices as flow
    from broker.flows.operate.fields import read

    async def job(desk: Any) -> Any:
        where = read(flow.Where, given)
        await flow.remove(desk, await the_app(desk, app), where)
        return where.model_dump()

    tell(work(state_dir, job), as_json=as_json)

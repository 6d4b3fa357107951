"""How operators' commands reach the database, and how they answer: tables for people, tabs for pipes, JSON."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

if TYPE_CHECKING:
    from broker.errors import Problem
    from broker.flows.operate.desk import Desk
    from broker.settings import Settings

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

_TIMEOUT_S = 30.0

#: What an option is given to take a value away.
ABSENT = "none"

#: `[N]` of a pointer into a list, for people: how the places of a list are called.
_LISTS = ("/items/", "/numbers/")


def with_state_dir(command: F) -> F:
    """Add --state-dir."""
    return click.option(
        "--state-dir",
        type=click.Path(file_okay=False),
        help="State folder of a running `broker up`: its database and keys are used unless BROKER_DATABASE_URL is set.",
    )(command)


def with_json(command: F) -> F:
    """Add --json."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def with_app(command: F) -> F:
    """Add --app."""
    return click.option("--app", "app", help="Name of the app; not needed where there is only one.")(command)


def with_yes(command: F) -> F:
    """Add --yes."""
    return click.option("--yes", is_flag=True, help="Do not ask.")(command)


def confirm(question: str, *, yes: bool) -> None:
    """Go on only with --yes, or when a person at a terminal says so."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("This needs --yes where nobody can be asked.")
    click.confirm(question, abort=True, err=True)


def number_or_none(given: str, kind: type[int | float], option: str) -> float | None:
    """Return the number that an option names, or None for the word 'none'."""
    if given == ABSENT:
        return None
    try:
        return kind(given)
    except ValueError:
        hint = "--" + option.replace("_", "-")
        raise click.BadParameter(f"must be a number or '{ABSENT}'", param_hint=hint) from None


def work(state_dir: str | None, job: Callable[[Desk], Awaitable[T]]) -> T:
    """Run ``job`` on the database; whatever is refused is one or more lines on stderr and exit code 1."""
    import asyncio

    import asyncpg
    import structlog

    from broker.errors import Problem
    from broker.store.crypto import SealBroken

    settings = _settings(state_dir)
    # What the log would say of a refusal is said below, in words.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    try:
        return asyncio.run(_at_desk(settings, job))
    except Problem as problem:
        _refused(problem)
    except SealBroken as error:
        _end(f"{error}; are these the keys that it was stored with?", 1)
    except (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError, asyncpg.UndefinedFunctionError):
        _end("The database is not up to date: run 'broker migrate' first.", 1)
    except (asyncpg.DataError, UnicodeEncodeError):
        _end("A name holds characters that no name can have.", 1)
    except (asyncpg.InvalidPasswordError, asyncpg.InvalidCatalogNameError, asyncpg.InsufficientPrivilegeError) as error:
        _end(f"The database refuses: {type(error).__name__}.", 1)


async def the_app(desk: Desk, given: str | None) -> str:
    """Return the app that is meant: the one given, or the only one.

    Raises:
        Conflict: none is given and there is not exactly one.
    """
    from broker.errors import Conflict
    from broker.flows.operate import apps

    if given is not None:
        return given
    names = [str(app["name"]) for app in await apps.every(desk)]
    if len(names) != 1:
        raise Conflict(f"There are {len(names)} apps: choose one with --app." if names else "There is no app yet.")
    return names[0]


def tell(answer: object, *, as_json: bool, columns: Sequence[str] = ()) -> None:
    """Print one thing, or a list of things with these columns."""
    import orjson

    if as_json:
        body = {"items": answer} if isinstance(answer, list) else answer
        sys.stdout.buffer.write(orjson.dumps(body, option=orjson.OPT_UTC_Z) + b"\n")
        sys.stdout.flush()
    elif isinstance(answer, list):
        _table(answer, columns)
    elif isinstance(answer, Mapping):
        width = max(map(len, answer))
        for name, value in answer.items():
            click.echo(f"{name:<{width}}  {_cell(value)}" if sys.stdout.isatty() else f"{name}\t{_cell(value)}")


def who() -> str:
    """Return who sits here, as well as the system knows it."""
    import getpass
    import platform

    try:
        account = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        account = f"uid {os.getuid()}"
    return f"{account}@{platform.node()}"[:200]


def _table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    if not sys.stdout.isatty():
        click.echo("\t".join(columns))
        for row in rows:
            click.echo("\t".join(_cell(row[column]) for column in columns))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(row[column])) for column in columns))
    Console().print(table)


def _cell(value: object) -> str:
    from datetime import UTC, datetime

    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case datetime():
            return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        case list():
            return ",".join(map(str, value))
        case _:
            return str(value).replace("\n", "\\n")


def _settings(state_dir: str | None) -> Settings:
    from broker.embedded import EmbeddedError, default_state_dir, running
    from broker.settings import SettingsError, database_url, load

    folder = Path(state_dir) if state_dir else default_state_dir()
    environment = dict(os.environ)
    try:
        if database_url(environment) is None:
            server = running(folder)
            if server is None:
                _end(
                    f"Nothing runs in {folder}: start `broker up`, name its folder with --state-dir, or set "
                    "BROKER_DATABASE_URL, BROKER_DATA_KEYS and BROKER_INDEX_KEY.",
                    2,
                )
            environment["BROKER_DATABASE_URL"] = server.dsn
            environment = _keys(folder) | environment
        elif state_dir:
            environment = _keys(folder) | environment
        return load(environment)
    except SettingsError as error:
        _end("\n".join(error.problems), 2)
    except EmbeddedError as error:
        _end(str(error), 2)


def _keys(folder: Path) -> dict[str, str]:
    import orjson

    try:
        kept = orjson.loads((folder / "keys.json").read_bytes())
        found = {"BROKER_DATA_KEYS": str(kept["data_keys"]), "BROKER_INDEX_KEY": str(kept["index_key"])}
    except OSError as error:
        _end(f"{folder / 'keys.json'}: {error.strerror}", 2)
    except (orjson.JSONDecodeError, KeyError, TypeError):
        _end(f"{folder / 'keys.json'}: is not what `broker up` writes", 2)
    return {name: value for name, value in found.items() if f"{name}_FILE" not in os.environ}


async def _at_desk(settings: Settings, job: Callable[[Desk], Awaitable[T]]) -> T:
    from broker.flows.operate.desk import Desk
    from broker.store.crypto import Vault, parse_data_keys, parse_index_key
    from broker.store.database import Database

    vault = Vault(parse_data_keys(settings.data_keys), parse_index_key(settings.index_key))
    db = Database(
        settings.database_url,
        connections=1,
        timeout_s=_TIMEOUT_S,
        statement_cache=settings.db_statement_cache,
    )
    await db.open()
    try:
        return await job(Desk(db, vault))
    finally:
        await db.close()


def _refused(problem: Problem) -> NoReturn:
    lines = [problem.detail.removesuffix("; see errors.") + ":" if problem.errors else problem.detail]
    lines += [f"  {_place(error.pointer)}: {error.detail}" for error in problem.errors]
    _end("\n".join(lines), 1)


def _place(pointer: str) -> str:
    for name in _LISTS:
        if pointer.startswith(name):
            number, _, column = pointer.removeprefix(name).partition("/")
            # A file's first line has the columns' names.
            return f"line {int(number) + 2}, {column}" if name == "/items/" else f"number {int(number) + 1}"
    return pointer.removeprefix("/") or "file"


def _end(words: str, code: int) -> NoReturn:
    click.echo(words, err=True)
    sys.exit(code)

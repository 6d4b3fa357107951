"""Every command: what its help says, and what programs can ask of it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import click
import orjson
import pytest

from broker.cli.main import main
from tests.cli.test_commands import run
from tests.contract.service import CHECKOUT, command, environment
from tests.pg import Databases

#: Answers that are no report: a server, a shell script, one word with an exit code, a file.
_WITHOUT_JSON = {"serve", "completion", "config check", "tones export", "export"}


def leaves(group: click.Group, above: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command, click.Group]]:
    """Every command with its path and the group it belongs to."""
    for name, found in group.commands.items():
        if isinstance(found, click.Group):
            yield from leaves(found, (*above, name))
        else:
            yield " ".join((*above, name)), found, group


LEAVES = [leaf for leaf in leaves(main) if leaf[0] != "emulate"]  # the emulator has a parser of its own


@pytest.mark.parametrize(("path", "found", "group"), LEAVES, ids=[leaf[0] for leaf in LEAVES])
def test_help_has_examples_and_answers_have_json(path: str, found: click.Command, group: click.Group) -> None:
    """A sentence and examples, on the command or its group; --json wherever there is something to read."""
    assert found.help
    assert "Examples:" in found.help + (group.help or "")
    options = {name for parameter in found.params for name in parameter.opts}
    assert ("--json" in options) == (path not in _WITHOUT_JSON)
    assert all(parameter.help for parameter in found.params if isinstance(parameter, click.Option)), path


@pytest.mark.parametrize("arguments", [["demo"], ["bindings"], ["bindings", "show"], ["completion"]], ids=" ".join)
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    """--help answers without what only running needs."""
    code = (
        "import sys; from broker.cli.main import main\n"
        f"try: main({[*arguments, '--help']!r})\n"
        "finally: print(*sorted({'asyncpg', 'aiohttp', 'pydantic', 'rich'} & set(sys.modules)), file=sys.stderr)"
    )
    ended = subprocess.run(
        [command()[0], "-c", code], env=environment(), cwd=CHECKOUT, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr.strip()) == (0, "")
    assert "\x08" not in ended.stdout


def test_migrate_answers_programs(databases: Databases) -> None:
    """With --json one object at the end, each applied file on stderr; exit 1 of --check while there is something."""
    url = databases.create_empty()
    try:
        checked = run("migrate", "--check", "--json", BROKER_DATABASE_URL=url)
        assert checked.returncode == 1
        names = orjson.loads(checked.stdout)["to_apply"]
        assert names[0].startswith("0001_")
        applied = run("migrate", "--json", BROKER_DATABASE_URL=url)
        assert (applied.returncode, orjson.loads(applied.stdout)) == (0, {"applied": names})
        assert applied.stderr.splitlines() == [f"applied {name}" for name in names]
        again = run("migrate", "--check", "--json", BROKER_DATABASE_URL=url)
        assert (again.returncode, orjson.loads(again.stdout)) == (0, {"to_apply": []})
    finally:
        databases.drop(url)

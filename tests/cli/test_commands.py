"""Commands that end by themselves: their words, their exit codes, their speed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import orjson
import pytest

from tests.contract.service import CHECKOUT, command, environment
from tests.pg import Databases

KEY = "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s="
NOWHERE = "postgresql://u:secret-word@127.0.0.1:1/none"
SERVABLE = {"BROKER_DATABASE_URL": NOWHERE, "BROKER_DATA_KEYS": f"1:{KEY}", "BROKER_INDEX_KEY": KEY}


def run(*arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run ``broker`` to its end; a traceback is never an answer."""
    ended = subprocess.run(
        command(*arguments), env=environment(**extra), cwd=CHECKOUT, capture_output=True, text=True, timeout=60,
        check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert "Traceback" not in ended.stderr, ended.stderr
    return ended


@pytest.mark.parametrize(
    "arguments",
    [[], ["up"], ["serve"], ["migrate"], ["config"], ["config", "check"], ["config", "show"]],
    ids=" ".join,
)
def test_help_is_instant(arguments: list[str]) -> None:
    """--help explains itself without loading what only running needs."""
    code = (
        "import sys; from broker.cli.main import main\n"
        f"try: main({[*arguments, '--help']!r})\n"
        "finally: print(*sorted({'asyncpg', 'aiohttp', 'pydantic', 'uvloop', 'cryptography'} & set(sys.modules)),"
        " file=sys.stderr)"
    )
    python = command()[0]
    ended = subprocess.run(
        [python, "-c", code], env=environment(), cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("Usage: ")
    assert ended.stderr.strip() == ""


def test_emulate_explains_itself() -> None:
    """`broker emulate --help` lists the emulator's own options."""
    ended = run("emulate", "--help")
    assert (ended.returncode, "--no-keep-alive" in ended.stdout) == (0, True)


def test_version() -> None:
    """--version prints one line."""
    ended = run("--version")
    assert ended.returncode == 0
    assert ended.stdout.startswith("broker, version ")


@pytest.mark.parametrize("arguments", [["nonsense"], ["up", "--nonsense"], ["up", "--port", "70000"], ["serve", "x"]])
def test_mistakes_on_the_command_line(arguments: list[str]) -> None:
    """A command or option that is none: exit 2 and how to use it, on stderr."""
    ended = run(*arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "Usage: " in ended.stderr


def test_config_check_names_the_nearest() -> None:
    """A misspelt variable: exit 1, its name and the one that was meant."""
    ended = run("config", "check", **SERVABLE, BROKER_WORKRES="2")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == "BROKER_WORKRES: no such setting; did you mean BROKER_WORKERS?\n"
    assert run("config", "check", **SERVABLE).stdout == "ok\n"


def test_config_show_hides_secrets(tmp_path: Path) -> None:
    """The settings in force, as a table and as JSON, with secrets hidden, from variables and files."""
    file = tmp_path / "keys"
    file.write_text(f"1:{KEY}\n", encoding="utf-8")
    given = {**SERVABLE, "BROKER_DATA_KEYS_FILE": str(file), "BROKER_WORKERS": "3"}
    del given["BROKER_DATA_KEYS"]
    for ended in (run("config", "show", **given), run("config", "show", "--json", **given)):
        assert ended.returncode == 0, ended.stderr
        assert KEY not in ended.stdout
        assert "secret-word" not in ended.stdout
    settings = orjson.loads(ended.stdout)
    assert settings["BROKER_WORKERS"] == 3
    assert settings["BROKER_DATA_KEYS"] == settings["BROKER_DATABASE_URL"] == "(hidden)"


@pytest.mark.parametrize("missing", ["BROKER_DATA_KEYS", "BROKER_INDEX_KEY", "BROKER_DATABASE_URL"])
def test_serve_needs_its_secrets(missing: str) -> None:
    """Serve without a key or an address says which variable is not set, and that a file will do."""
    ended = run("serve", **{name: value for name, value in SERVABLE.items() if name != missing})
    assert ended.returncode == 2
    assert ended.stderr == f"{missing}: is not set (or {missing}_FILE)\n"


@pytest.mark.parametrize("arguments", [["serve"], ["migrate"], ["migrate", "--check"]], ids=" ".join)
def test_no_database(arguments: list[str]) -> None:
    """A database that does not answer: exit 1 and one sentence without the password."""
    ended = run(*arguments, **SERVABLE)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert len(ended.stderr.splitlines()) == 1
    assert "secret-word" not in ended.stderr


def test_migrate_needs_an_address() -> None:
    """Migrate without an address: exit 2 and the variable's name."""
    ended = run("migrate")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("BROKER_DATABASE_URL: is not set")


def test_migrate_and_check(databases: Databases, tmp_path: Path) -> None:
    """--check tells and exits 1, migrate applies, then both have nothing to do; the address may come from a file."""
    url = databases.create_empty()
    file = tmp_path / "dsn"
    file.write_text(url, encoding="utf-8")
    try:
        checked = run("migrate", "--check", BROKER_DATABASE_URL=url)
        assert checked.returncode == 1
        assert "to apply: 0001_" in checked.stdout
        refused = run("serve", **{**SERVABLE, "BROKER_DATABASE_URL": url})
        assert refused.returncode == 1
        assert "run 'broker migrate' first" in refused.stderr
        applied = run("migrate", BROKER_DATABASE_URL_FILE=str(file))
        assert applied.returncode == 0
        assert "applied 0001_" in applied.stdout
        again = run("migrate", BROKER_DATABASE_URL=url)
        assert (again.returncode, again.stdout) == (0, "up to date\n")
        checked = run("migrate", "--check", BROKER_DATABASE_URL_FILE=str(file))
        assert (checked.returncode, checked.stdout) == (0, "up to date\n")
    finally:
        databases.drop(url)

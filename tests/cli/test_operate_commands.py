"""Operators' commands against a running `up`, and what they answer when they cannot."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.cli.test_commands import KEY, SERVABLE, run
from tests.contract.service import Service, add_app, client_of, eventually, memory, rows, settled_config, up
from tests.pg import Databases, state_folder


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """One `broker up` for all tests of the module."""
    with state_folder(memory()) as folder, up(folder, "--workers", "1") as running:
        yield running


def ask(service: Service, *arguments: str, code: int = 0) -> Any:
    """Run a command on the service's folder and return its JSON; refused: its words."""
    ended = run(*arguments, "--json", "--state-dir", str(service.folder))
    assert ended.returncode == code, ended.stderr
    return orjson.loads(ended.stdout) if code == 0 else ended.stderr


def plain(service: Service, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command on the service's folder as a pipe sees it."""
    return run(*arguments, "--state-dir", str(service.folder))


async def test_a_new_app_from_nothing_to_its_first_binding(service: Service, tmp_path: Path) -> None:
    """App, caller, key, pool and numbers made by commands: the key binds on a running service without a restart."""
    demo = service.ready["apps"][0]
    secret = tmp_path / "secret"
    secret.write_text("their secret\n".replace(" ", "-"), encoding="utf-8")
    file = tmp_path / "numbers.csv"
    file.write_text(
        "number,pool,area_code,rent\n+8617990000001,north,010,8.5\n+8617990000002,north,,\n", encoding="utf-8"
    )
    async with client_of(service) as client:
        await client.emulator("PUT", "apps/newkey", {"secret": "their-secret", "mode": "axb", "rate": 0, "burst": None})
        await client.emulator("PUT", "apps/newkey/numbers", [
            {"number": f"+861799000000{place}", "area_code": "010"} for place in (1, 2)
        ])  # fmt: skip
        made = ask(
            service, "app", "create", "food", "--app-key", "newkey", "--secret-file", str(secret),
            "--base-url", service.ready["emulator"], "--rate", "50", "--burst", "5",
        )  # fmt: skip
        assert (made["rate"], made["burst"], made["state"]) == (50.0, 5, "open")
        assert ask(service, "app", "check", "food")["ok"] is True
        assert ask(service, "caller", "create", "shop", "--app", "food")["live_keys"] == 0
        assert ask(service, "pool", "create", "north", "--area-code", "010", "--app", "food")["numbers"] == 0
        assert ask(service, "numbers", "import", str(file), "--app", "food") == {
            "added": 2, "changed": 0, "unchanged": 0,
        }  # fmt: skip
        assert ask(service, "numbers", "import", str(file), "--app", "food")["unchanged"] == 2
        # Last, so that whoever knows the key knows the numbers, too.
        key = ask(service, "key", "create", "shop", "--app", "food")["key"]
        await settled_config(service, client, key)
        bound = await client.bind(key=key)
        assert bound.status == 201, bound.raw
        assert bound.body["x"].startswith("+861799")
        used, other = sorted((f"+861799000000{place}" for place in (1, 2)), key=lambda x: x != bound.body["x"])
        ask(service, "numbers", "drain", used, other, "--app", "food")
        listed = {row["number"]: row for row in ask(service, "numbers", "list", "--app", "food")["items"]}
        assert (listed[used]["live_lines"], listed[used]["releasable"]) == (1, False)
        await rows(
            service, "UPDATE x_number SET state_since = state_since - interval '11 s' WHERE number LIKE '+861799%'"
        )
        listed = {row["number"]: row for row in ask(service, "numbers", "list", "--app", "food")["items"]}
        assert (listed[other]["live_lines"], listed[other]["releasable"]) == (0, True)
        assert "lines live" in ask(service, "numbers", "retire", used, other, "--yes", "--app", "food", code=1)
        assert ask(service, "numbers", "retire", other, "--yes", "--app", "food")["items"][0]["state"] == "retired"
        # The line lives on although its number is on its way out.
        assert (await client.ask("GET", f"/v1/bindings/{bound.body['id']}", key=key)).body["state"] == "active"
        refused = (await client.bind(key=key)).problem(409, "pool_exhausted")
        assert refused["code"] == "pool_exhausted"
        assert demo["name"] == "demo-axb"


async def test_check_tells_a_wrong_secret_and_address(service: Service, tmp_path: Path) -> None:
    """`app check` exits 1 and says which of them the platform does not accept."""
    secret = tmp_path / "secret"
    secret.write_text("wrong", encoding="utf-8")
    async with client_of(service) as client:
        await client.emulator("PUT", "apps/key-of-proof", {"secret": "right", "mode": "axb", "rate": 0, "burst": None})
        await add_app(service, "proof")
        ask(service, "app", "set", "proof", "--secret-file", str(secret))
        ended = plain(service, "app", "check", "proof")
        assert ended.returncode == 1
        assert "does not accept the secret" in ended.stdout
        secret.write_text("right", encoding="utf-8")
        ask(service, "app", "set", "proof", "--secret-file", str(secret))
        assert plain(service, "app", "check", "proof").returncode == 0
    ask(service, "app", "set", "proof", "--base-url", "http://127.0.0.1:1")
    ended = plain(service, "app", "check", "proof")
    assert (ended.returncode, "cannot be reached" in ended.stdout) == (1, True)


def test_a_bad_file_imports_nothing(service: Service, tmp_path: Path) -> None:
    """Every bad line is named with its number in the file; nothing is imported."""
    before = ask(service, "numbers", "list", "--app", "demo-axb")
    file = tmp_path / "numbers.csv"
    file.write_text(
        "number,pool\n+8617990001001,beijing\n17990001002,beijing\n+8617990001001,beijing\n"
        "+8617990001003,nowhere\n+8617075500001,beijing\n",
        encoding="utf-8",
    )
    ended = plain(service, "numbers", "import", str(file), "--app", "demo-axb")
    assert (ended.returncode, ended.stdout) == (1, "")
    said = [line.strip().partition(":")[0] for line in ended.stderr.splitlines()]
    assert said == ["Nothing was imported", "line 3, number", "line 4, number", "line 5, pool", "line 6, number"]
    assert ask(service, "numbers", "list", "--app", "demo-axb") == before


@pytest.mark.parametrize(
    "content",
    [b"", b"number,pool\n", b"phone,pool\n+861,p\n", b"number,pool\n+8617990001001,beijing,x,y\n", b"\xff\xfe\x00",
     b'number,pool\n"+8617', b"number,pool\n\x00\n", b"number,number,pool\n"],
)  # fmt: skip
def test_a_file_that_is_none(service: Service, tmp_path: Path, content: bytes) -> None:
    """An empty, binary, torn or headless file: exit 1 and one sentence, no traceback."""
    file = tmp_path / "numbers.csv"
    file.write_bytes(content)
    ended = plain(service, "numbers", "import", str(file), "--app", "demo-axb")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("Nothing was imported:")


def test_a_pipe_gets_tabs(service: Service) -> None:
    """Lists on a pipe are lines of tab-separated cells under a line of names, without any colour."""
    ended = plain(service, "pool", "list", "--app", "demo-axb")
    lines = [line.split("\t") for line in ended.stdout.splitlines()]
    assert lines[0][:3] == ["name", "area_code", "state"]
    assert [line[0] for line in lines[1:]] == ["beijing", "shenzhen"]
    assert "\x1b" not in ended.stdout
    assert ended.stderr == ""


def test_keys_are_shown_once(service: Service) -> None:
    """A third live key is refused with what to do; a list shows hints; a revoked key makes room."""
    ask(service, "caller", "create", "rotating", "--app", "demo-axb")
    made = [ask(service, "key", "create", "rotating", "--app", "demo-axb") for _ in range(2)]
    assert "revoke one of them first" in ask(service, "key", "create", "rotating", "--app", "demo-axb", code=1)
    listed = plain(service, "key", "list", "--caller", "rotating", "--app", "demo-axb").stdout
    assert all(one["hint"] in listed and one["key"] not in listed for one in made)
    ask(service, "key", "revoke", "rotating", made[0]["hint"], "--app", "demo-axb", "--yes")
    ask(service, "key", "create", "rotating", "--app", "demo-axb")


def test_danger_needs_yes(service: Service) -> None:
    """What cannot be undone, on a pipe without --yes: exit 2, nothing done."""
    for arguments in (
        ("pool", "close", "beijing"), ("app", "suspend", "demo-axb"), ("key", "revoke", "demo", "abcd"),
        ("numbers", "retire", "+8617010000001"), ("numbers", "clear", "+8617010000001"),
        ("app", "secret", "demo-axb", "--drop"),
    ):  # fmt: skip
        ended = plain(service, *arguments)
        assert (ended.returncode, "--yes" in ended.stderr) == (2, True), arguments
    assert {pool["state"] for pool in ask(service, "pool", "list", "--app", "demo-axb")["items"]} == {"open"}
    ask(service, "pool", "close", "beijing", "--yes", "--app", "demo-axb")
    ask(service, "pool", "open", "beijing", "--app", "demo-axb")


def test_mistakes_are_sentences(service: Service, tmp_path: Path) -> None:
    """Bad values and names: exit 1, a line for each, no traceback."""
    secret = tmp_path / "secret"
    secret.write_text("s", encoding="utf-8")
    said = ask(
        service, "app", "create", "Bad", "--app-key", "k k", "--secret-file", str(secret), "--base-url", "ftp://h",
        "--cap", "0", code=1,
    )  # fmt: skip
    assert {line.strip().partition(":")[0] for line in said.splitlines()[1:]} == {"name", "app_key", "base_url", "cap"}
    assert ask(service, "app", "show", "none", code=1) == "There is no app 'none'.\n"
    assert plain(service, "app", "show", "\udcff").returncode == 1
    assert ask(service, "numbers", "freeze", "+8617999999999", "--app", "demo-axb", code=1).startswith("Nothing was")


def test_without_a_service_it_says_what_to_do(tmp_path: Path) -> None:
    """No address and nothing running: exit 2 and how to mend it. Misspelt settings are named."""
    ended = run("app", "list", "--state-dir", str(tmp_path))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "broker up" in ended.stderr
    ended = run("app", "list", **SERVABLE, BROKER_WORKRES="2")
    assert ended.returncode == 2
    assert "did you mean BROKER_WORKERS" in ended.stderr


def test_a_database_that_is_away_or_old(databases: Databases) -> None:
    """A database that does not answer, or has no tables: exit 1 and one sentence without the password."""
    ended = run("app", "list", **SERVABLE)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert len(ended.stderr.splitlines()) == 1
    assert "secret-word" not in ended.stderr
    url = databases.create_empty()
    try:
        ended = run("app", "list", **{**SERVABLE, "BROKER_DATABASE_URL": url})
        assert (ended.returncode, "broker migrate" in ended.stderr) == (1, True)
    finally:
        databases.drop(url)


def test_serve_operators_need_no_state_folder(database_url: str) -> None:
    """With BROKER_DATABASE_URL and the keys in the environment no folder is read."""
    given = {"BROKER_DATABASE_URL": database_url, "BROKER_DATA_KEYS": f"1:{KEY}", "BROKER_INDEX_KEY": KEY}
    ended = run("app", "list", "--json", **given)
    assert (ended.returncode, orjson.loads(ended.stdout)) == (0, {"items": []})
    ended = run("caller", "list", **given)
    assert (ended.returncode, ended.stderr) == (1, "There is no app yet.\n")


@pytest.mark.parametrize(
    "arguments",
    [["app"], ["app", "create"], ["caller"], ["key", "revoke"], ["pool"], ["numbers"], ["numbers", "import"],
     ["numbers", "retire"], ["numbers", "move"], ["numbers", "clear"], ["app", "secret"], ["key", "rotate"]],
    ids=" ".join,
)  # fmt: skip
def test_help_is_there(arguments: list[str]) -> None:
    """Every group and command explains itself, groups with examples."""
    ended = run(*arguments, "--help")
    assert ended.returncode == 0
    assert ended.stdout.startswith("Usage: ")
    assert len(arguments) > 1 or "Examples:" in ended.stdout


_A_DAY = """
INSERT INTO cooldown (pool_id, day, rest_s, share, releases, calls)
SELECT p.id, current_date - 3, 100800, 0.01, 1000000,
       array_fill(900::bigint, ARRAY[10]) || array_fill(0::bigint, ARRAY[30])
FROM pool AS p JOIN app AS a ON a.id = p.app_id WHERE a.name = 'demo-axb' AND p.name = 'shenzhen' RETURNING day
"""


async def test_a_quarantine_is_proposed(service: Service) -> None:
    """Too few data are said to be too few; a day of a million followed releases is enough; no pool, no proposal."""
    cooldown = ("pool", "cooldown", "shenzhen", "--app", "demo-axb")
    none = ask(service, *cooldown)
    assert (none["proposed_s"], none["exposure"], none["ages"]) == (None, None, [])
    assert "followed to the end" in none["why"]
    await rows(service, _A_DAY)
    told = ask(service, *cooldown, "--risk", "50")
    # The calls end with the tenth bin.
    assert (told["proposed_s"], told["sample"]["releases"]) == (1920, 1_000_000)
    assert told["ages"][9]["calls"] == 900
    assert told["exposure"]["high"] < 4
    words = plain(service, *cooldown, "--risk", "0.1").stdout
    assert f"Proposed quarantine: none, now: {told['quarantine_s']} s." in words
    assert "too few data: 1000000 releases were followed" in words
    assert "from_s\tto_s\tcalls\treleases\tper_hour" in words
    assert "no pool 'nowhere'" in ask(service, "pool", "cooldown", "nowhere", "--app", "demo-axb", code=1)


def test_a_complaint_is_entered(service: Service) -> None:
    """The number is shown with its complaints, and over its budget once they are too many."""
    x = next(row["number"] for row in ask(service, "numbers", "list", "--app", "demo-axb")["items"])
    budget = ("--complaint-budget", "0", "--over-budget", "report", "--answer-floor", "0.4")
    assert ask(service, "app", "set", "demo-axb", *budget)["answer_floor"] == 0.4
    (row,) = ask(service, "numbers", "complain", x, "--reason", "rang at midnight", "--app", "demo-axb")["items"]
    assert (row["complaints"], row["over_budget"], row["state"]) == (1, "complaints", "open")
    away = ask(service, "app", "set", "demo-axb", "--complaint-budget", "none", "--answer-floor", "none")
    assert (away["complaint_budget"], away["answer_floor"]) == (None, None)
    shown = ask(service, "pool", "set", "shenzhen", "--low-percent", "none", "--app", "demo-axb")
    assert (shown["low_percent"], shown["level"]) == (None, None)
    assert ask(service, "pool", "set", "shenzhen", "--low-percent", "20", "--app", "demo-axb")["low_percent"] == 20


async def test_what_is_kept_for_how_long(service: Service) -> None:
    """Apps with their days, tables with their sizes, walks that the workers have done; for people as tables."""

    async def walked() -> bool:
        walks = ask(service, "retention", "show")["walks"]
        return all(walk["ended_at"] is not None and walk["next_at"] > walk["ended_at"] for walk in walks)

    await eventually(walked, "every walk has come to its end")
    told = ask(service, "retention", "show")
    assert {app["name"]: (app["retention_days"], app["ended_days"]) for app in told["apps"]}["demo-axb"] == (90, 90)
    tables = {one["table"]: one for one in told["tables"]}
    assert {"line", "binding", "slot", "held", "event", "audit"} <= set(tables)
    assert all(one["bytes"] > 0 and one["rows"] >= 0 for one in tables.values())
    assert tables["event"]["oldest"] is not None
    assert {walk["walk"] for walk in told["walks"]} == {"lines", "bindings", "slots", "audits"}
    words = plain(service, "retention", "show").stdout
    assert "name\tretention_days\tended_days\tevent_days" in words
    assert "walk\tbegan_at\tended_at\tnext_at\tdeleting\tdeleted_last\tdeleted" in words

"""App profile, rotation, moving and clearing by commands against a running `up`."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
from pathlib import Path

from tests.cli.test_number_file import book
from tests.cli.test_operate_commands import ask, plain, service
from tests.contract.service import Service, add_app, client_of, command, environment, rows, settled_config

__all__ = ["service"]


def secret_file(folder: Path, secret: str) -> str:
    """A file with a secret."""
    path = folder / "secret"
    path.write_text(secret + "\n", encoding="utf-8")
    return str(path)


def piped(words: str, service: Service, *arguments: str) -> str:
    """What a command answers that reads these words from a pipe."""
    ended = subprocess.run(
        command(*arguments, "--state-dir", str(service.folder)), input=words, env=environment(), capture_output=True,
        text=True, timeout=60, check=True,
    )  # fmt: skip
    return ended.stdout


def on_terminal(service: Service, *arguments: str) -> tuple[int, str]:
    """Exit code and all that a command shows to a person at a terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command(*arguments, "--state-dir", str(service.folder)), stdin=theirs, stdout=theirs, stderr=theirs,
        env=environment(TERM="xterm", NO_COLOR="1"),
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    with os.fdopen(ours, "rb", buffering=0) as terminal, contextlib.suppress(OSError):  # EIO: nobody writes any more
        while part := terminal.read(4096):
            shown += part
    return process.wait(60), shown.decode()


async def old_enough(service: Service, pattern: str) -> None:
    """Let the moment pass in which a claim that began before a change may still commit."""
    await rows(service, "UPDATE x_number SET state_since = state_since - interval '11 s' WHERE number LIKE $1", pattern)


async def test_a_secret_is_proved_before_it_goes_live(service: Service, tmp_path: Path) -> None:
    """A staged secret is checked by itself, calls go on with the current one, promoted it is the one they use."""
    async with client_of(service) as client:
        await client.emulator("PUT", "apps/key-of-turn", {"secret": "old", "mode": "axb", "rate": 0, "burst": None})
        await add_app(service, "turn")
        ask(service, "app", "set", "turn", "--secret-file", secret_file(tmp_path, "old"))
        assert "no staged secret" in ask(service, "app", "check", "turn", "--staged", code=1)
        ask(service, "app", "secret", "turn", "--stage", "--secret-file", secret_file(tmp_path, "typo"))
        assert ask(service, "app", "check", "turn")["ok"] is True
        failed = plain(service, "app", "check", "turn", "--staged")
        assert (failed.returncode, "does not accept the secret" in failed.stdout) == (1, True)
        assert "second_secret\tstaged" in piped("new\n", service, "app", "secret", "turn", "--stage")
        await client.emulator("PUT", "apps/key-of-turn", {"secret": "new", "mode": "axb", "rate": 0, "burst": None})
        assert ask(service, "app", "check", "turn", "--staged")["ok"] is True
        assert ask(service, "app", "secret", "turn", "--promote")["second_secret"] == "previous"
        assert ask(service, "app", "check", "turn")["ok"] is True
        assert ask(service, "app", "secret", "turn", "--drop", "--yes")["second_secret"] is None
    for steps in ([], ["--stage", "--promote"]):
        assert plain(service, "app", "secret", "turn", *steps).returncode == 2
    assert "two words" not in ask(
        service, "app", "secret", "turn", "--stage", "--secret-file", secret_file(tmp_path, "two words"), code=1
    )


def test_the_profile_by_options(service: Service) -> None:
    """Every field has an option; `none` takes away; a list stays one line an app."""
    before = ask(service, "app", "show", "demo-axb")
    given = ask(
        service, "app", "set", "demo-axb", "--max-ttl", "31536000", "--heat", "40", "--no-recording", "--no-sms",
        "--extension-digits", "3", "--event-url", "https://e.example.com/n", "--cdr-url", "https://c.example.com",
        "--sms-url", "https://s.example.com", "--channel", "agency", "--industry", "taxi", "--call-script", "Hi\nBye",
    )  # fmt: skip
    changed = {
        "max_ttl_s": 31536000, "heat": 40, "recording": False, "sms": False, "extension_digits": 3,
        "event_url": "https://e.example.com/n", "cdr_url": "https://c.example.com", "sms_url": "https://s.example.com",
        "channel": "agency", "industry": "taxi", "call_script": "Hi\nBye",
    }  # fmt: skip
    assert given == {**before, **changed}
    shown = plain(service, "app", "show", "demo-axb").stdout.splitlines()
    assert [line.partition("\t")[0] for line in shown] == list(given)
    assert len(plain(service, "app", "list").stdout.splitlines()) == 1 + len(ask(service, "app", "list")["items"])
    away = ["--heat", "--event-url", "--cdr-url", "--sms-url", "--channel", "--industry", "--call-script"]
    options = [word for option in away for word in (option, "none")]
    assert ask(service, "app", "set", "demo-axb", "--recording", "--sms", "--extension-digits", "4", *options) == before
    refused = plain(service, "app", "set", "demo-axb", "--heat", "much")
    assert (refused.returncode, "--heat" in refused.stderr) == (2, True)
    assert "max_ttl_s" in ask(service, "app", "set", "demo-axb", "--max-ttl", "60", code=1)


def test_callers_and_their_keys(service: Service) -> None:
    """Limits by options; a key is rotated with its scopes and says which one to revoke."""
    made = ask(service, "caller", "create", "bounded", "--requests-per-s", "20", "--app", "demo-axb")
    assert (made["weight"], made["requests_per_s"], made["max_live_bindings"]) == (1, 20.0, None)
    options = ["--weight", "4", "--max-live-bindings", "100", "--requests-per-s", "none"]
    changed = ask(service, "caller", "set", "bounded", *options, "--app", "demo-axb")
    assert (changed["weight"], changed["requests_per_s"], changed["max_live_bindings"]) == (4, None, 100)
    assert plain(service, "caller", "set", "bounded", "--app", "demo-axb").returncode == 2
    assert "no live key" in ask(service, "key", "rotate", "bounded", "--app", "demo-axb", code=1)
    old = ask(service, "key", "create", "bounded", "--scope", "read", "--app", "demo-axb")
    new = ask(service, "key", "rotate", "bounded", "--app", "demo-axb")
    assert (new["scopes"], new["replaces"]) == (["read"], old["hint"])
    assert "revoke one" in ask(service, "key", "rotate", "bounded", "--app", "demo-axb", code=1)


async def test_a_workbook_is_imported_and_its_numbers_move(service: Service, tmp_path: Path) -> None:
    """All mistakes of a workbook by line; then all lines; a frozen number moves, an open one does not."""
    tenant = await add_app(service, "sheet", pools=[("east", "021", ["+8617921000000"]), ("west", "028", [])])
    assert tenant.app_id
    file = tmp_path / "numbers.xlsx"
    file.write_bytes(
        book(
            ("number", "pool", "area_code", "carrier", "rent"), ("+8617921000001", "east", "021", "V", 8.5),
            (8617921000002, "east"), ("+8617921000001", "east"), ("+8617010000001", "east"),
            ("+8617921000003", "north"), ("+8617921000004", "east", "010"),
            ("+8617921000005", "east", None, None, "much"), (),
            ("+8617921000000", "west"),
        )
    )  # fmt: skip
    refused = plain(service, "numbers", "import", str(file), "--app", "sheet")
    assert refused.returncode == 1
    assert [line.strip().partition(":")[0] for line in refused.stderr.splitlines()] == [
        "Nothing was imported", "line 3, number", "line 4, number", "line 5, number", "line 6, pool",
        "line 7, area_code", "line 8, rent", "line 9, number", "line 9, pool", "line 10, number",
    ]  # fmt: skip
    assert len(ask(service, "numbers", "list", "--app", "sheet")["items"]) == 1
    file.write_bytes(book(("number", "pool", "rent"), ("+8617921000001", "east", 8.5), ("+8617921000002", "east", 9)))
    assert ask(service, "numbers", "import", str(file), "--app", "sheet")["added"] == 2
    assert ask(service, "numbers", "import", str(file), "--app", "sheet")["unchanged"] == 2
    to_west = ("numbers", "move", "+8617921000001", "--to", "west", "--app", "sheet")
    assert "freeze or drain it first" in ask(service, *to_west, code=1)
    ask(service, "numbers", "freeze", "+8617921000001", "--app", "sheet")
    assert "a moment ago" in ask(service, *to_west, code=1)
    await old_enough(service, "+8617921%")
    (moved,) = ask(service, *to_west)["items"]
    assert (moved["pool"], moved["area_code"], moved["state"], moved["rent"]) == ("west", "028", "frozen", "8.50")
    assert len(ask(service, "numbers", "list", "--app", "sheet")["items"]) == 3
    assert ask(service, "pool", "list", "--app", "sheet")["items"][0]["numbers"] == 2


async def test_clear_ends_each_binding_at_the_platform(service: Service) -> None:
    """Two live bindings on one X: the running service unbinds both, one by one, and the platform holds nothing on X."""
    x = "+8617931000001"
    async with client_of(service) as client:
        fields = {"secret": "secret", "mode": "axb", "rate": 0, "burst": None}
        await client.emulator("PUT", "apps/key-of-clear", fields)
        await client.emulator("PUT", "apps/key-of-clear/numbers", [{"number": x, "area_code": "021"}])
        tenant = await add_app(service, "clear", pools=[("east", "021", [x])])
        key = tenant.keys["main"]
        await settled_config(service, client, key)
        made = [await client.bind(key=key) for _ in range(2)]
        assert [one.body["x"] for one in made] == [x, x]
        ask(service, "numbers", "freeze", x, "--app", "clear")
        before = max(row["seq"] for row in await client.ledger())
        cleared = ask(service, "numbers", "clear", x, "--yes", "--app", "clear")["items"]
        assert {row["id"]: row["state"] for row in cleared} == {one.body["id"]: "released" for one in made}
        assert [held for held in await client.platform_bindings() if held["x"] == x] == []
        unbinds = [row for row in await client.ledger(before) if row["op"] == "unbind"]
        assert len({(row["request"], row["subscription_id"]) for row in unbinds if row["x"] == x}) == 2
        for one in made:
            shown = (await client.ask("GET", f"/v1/bindings/{one.body['id']}", key=key)).body
            assert (shown["state"], shown["reason"]) == ("released", "cleared")
        assert ask(service, "numbers", "clear", x, "--yes", "--app", "clear") == {"items": []}
        (listed,) = ask(service, "numbers", "list", "--app", "clear")["items"]
        assert (listed["state"], listed["live_lines"]) == ("frozen", 0)


async def test_clear_says_when_the_platform_has_not_answered(service: Service) -> None:
    """With unbinds failing the release is committed and told as releasing with exit 1; asked again it ends."""
    x = "+8617932000001"
    async with client_of(service) as client:
        fields = {"secret": "secret", "mode": "axb", "rate": 0, "burst": None}
        await client.emulator("PUT", "apps/key-of-later", fields)
        await client.emulator("PUT", "apps/key-of-later/numbers", [{"number": x, "area_code": "021"}])
        tenant = await add_app(service, "later", pools=[("east", "021", [x])])
        await settled_config(service, client, tenant.keys["main"])
        bound = (await client.bind(key=tenant.keys["main"])).body["id"]
        await client.fault("unbind", "reset")
        asked = plain(service, "numbers", "clear", x, "--wait", "0", "--yes", "--app", "later")
        assert (asked.returncode, asked.stdout) == (1, f"id\tstate\n{bound}\treleasing\n")
        assert asked.stderr.startswith("Not all have ended yet")
        await client.emulator("DELETE", "faults")
        again = ask(service, "numbers", "clear", x, "--yes", "--app", "later")["items"]
        assert again in ([], [{"id": bound, "state": "released"}])
        assert [held for held in await client.platform_bindings() if held["x"] == x] == []


def test_progress_is_shown_at_a_terminal(service: Service, tmp_path: Path) -> None:
    """Reading a file and ending bindings have progress bars for people; nobody else ever sees one."""
    file = tmp_path / "numbers.csv"
    lines = "".join(f"+8617951{place:06},beijing\n" for place in range(2000))
    file.write_text("number,pool\n" + lines, encoding="utf-8")
    code, shown = on_terminal(service, "numbers", "import", str(file), "--app", "demo-axb")
    assert (code, "Reading" in shown, "100%" in shown, "2000" in shown) == (0, True, True, True)
    code, shown = on_terminal(service, "numbers", "clear", "+8617951000000", "--yes", "--app", "demo-axb")
    assert (code, "Ending" in shown) == (0, True)

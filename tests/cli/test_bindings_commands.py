"""``broker bindings``: list, search, the story, release by hand."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from tests.cli.test_commands import run
from tests.contract.service import CHECKOUT, Service, client_of, command, environment, memory, phone, rows, up
from tests.pg import state_folder


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """One `broker up` for all tests of the module."""
    with state_folder(memory()) as folder, up(folder, "--workers", "1") as running:
        yield running


def ask(service: Service, *arguments: str, code: int = 0) -> Any:
    """Run `broker bindings …` on the service's folder and return its JSON; refused: its words."""
    app = ("--app", "demo-axb") if arguments[0] in {"list", "search"} else ()
    ended = run("bindings", *arguments, *app, "--json", "--state-dir", str(service.folder))
    assert ended.returncode == code, ended.stderr
    return orjson.loads(ended.stdout) if code == 0 else ended.stderr


def from_stdin(service: Service, text: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command as the end of a pipe."""
    return subprocess.run(
        command(*arguments, "--state-dir", str(service.folder)), input=text, env=environment(),
        cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def ids(listed: Any) -> list[str]:
    """The ids of a list."""
    return [item["id"] for item in listed["items"]]


async def test_list_and_search_find_by_order_x_state_and_party(service: Service) -> None:
    """Newest first, phones masked; a party is read from standard input as well."""
    a, b, order = phone(), phone(), "cli-order-1"
    async with client_of(service) as client:
        first = (await client.bind(a=a, b=b, order_id=order)).body
        second = (await client.bind(a=a, b=phone(), order_id=order)).body
        third = (await client.bind()).body
    assert ids(ask(service, "list", "--order", order)) == [second["id"], first["id"]]
    assert ids(ask(service, "list", "--limit", "1")) == [third["id"]]
    assert first["id"] in ids(ask(service, "list", "--x", first["x"], "--state", "active"))
    assert ids(ask(service, "list", "--order", order, "--state", "released")) == []
    assert ids(ask(service, "list", "--x", "+8619999999999")) == []
    found = ask(service, "search", b)
    assert ids(found) == [first["id"]]
    assert found["items"][0]["b"] == first["b"]
    piped = from_stdin(service, f"{a}\n", "bindings", "search", "-", "--app", "demo-axb")
    assert piped.returncode == 0, piped.stderr
    assert piped.stdout.splitlines()[0].split("\t")[:2] == ["id", "state"]
    assert {line.split("\t")[0] for line in piped.stdout.splitlines()[1:]} == {first["id"], second["id"]}
    assert a not in piped.stdout + piped.stderr


async def test_the_story_has_every_platform_call_and_who_released(service: Service) -> None:
    """Bind and unbind with attempt and outcome, the release by hand with who did it, the rests; nothing revealed."""
    a, b = phone(), phone()
    async with client_of(service) as client:
        bound = (await client.bind(a=a, b=b, order_id="cli-order-2", ttl_s=3600)).body
        before = ask(service, "show", bound["id"])
        released = ask(service, "release", bound["id"], "--yes")
        assert released["items"] == [{"id": bound["id"], "state": "released", "reason": "released"}]
        assert (await client.show(bound["id"]))["state"] == "released"
        assert await client.platform_of(a) == []
    told = ask(service, "show", bound["id"])
    assert [event["event"] for event in before["story"]] == ["asked", "chosen", "bind_begun", "bind_settled", "active"]
    events = {event["event"]: event for event in told["story"]}
    assert (events["bind_settled"]["outcome"], events["bind_settled"]["attempt"]) == ("done", 1)
    assert (events["unbind_settled"]["no"], events["unbind_settled"]["outcome"]) == (2, "done")
    assert "@" in events["release"]["who"]
    assert events["released"]["reason"] == "released"
    assert events["chosen"]["x"] == bound["x"]
    assert sum(event["event"] == "rested" for event in told["story"]) == 2
    assert [event["at"] for event in told["story"]] == sorted(event["at"] for event in told["story"])
    assert (told["a"], told["b"]) == (bound["a"], bound["b"])
    assert not {a, b} & set(str(told).split("'"))
    again = ask(service, "release", bound["id"], "--yes")
    assert again["items"][0]["state"] == "released"


async def test_a_refused_x_is_part_of_the_story(service: Service) -> None:
    """The platform refuses the first X: the story shows that call with its code, and the X chosen after it."""
    async with client_of(service) as client:
        await client.fault("bind", "code", code="1012010", count=1)
        bound = (await client.bind(ttl_s=3600)).body
        assert bound["state"] == "active", bound
    told = ask(service, "show", bound["id"])
    settled = [event for event in told["story"] if event["event"] == "bind_settled"]
    assert [event["code"] for event in settled] == ["1012010", None]
    chosen = [event["x"] for event in told["story"] if event["event"] == "chosen"]
    assert len(set(chosen)) == 2
    assert chosen[-1] == bound["x"]


async def test_revealing_shows_the_numbers_and_notes_who(service: Service) -> None:
    """The real numbers, only with --reveal; the note is in the database and in the story, without a number."""
    a, b = phone(), phone()
    async with client_of(service) as client:
        bound = (await client.bind(a=a, b=b)).body
    told = ask(service, "show", bound["id"], "--reveal")
    assert (told["a"], told["b"]) == (a, b)
    noted = [event for event in ask(service, "show", bound["id"])["story"] if event["event"] == "reveal"]
    assert len(noted) == 1
    assert noted[0]["who"] in noted[0]["text"]
    stored = await rows(service, "SELECT who, what FROM audit WHERE what = 'reveal'")
    assert [row["who"] for row in stored] == [noted[0]["who"]]
    assert a not in service.log.read_text(encoding="utf-8")
    assert a not in str(stored)


async def test_people_see_a_head_and_the_story_as_lines(service: Service) -> None:
    """On a pipe: name, tab, value; then one event a line."""
    async with client_of(service) as client:
        bound = (await client.bind(order_id="cli-order-3")).body
    ended = run("bindings", "show", bound["id"], "--state-dir", str(service.folder))
    head, _, events = ended.stdout.partition("\n\n")
    assert "order_id\tcli-order-3" in head.splitlines()
    assert events.splitlines()[0] == "at\tevent\ttext"
    assert any("\tactive\tthe platform has confirmed" in line for line in events.splitlines())


def test_what_is_refused_is_said_in_a_sentence(service: Service) -> None:
    """Unknown and impossible ids, a number that is none, a release that nobody confirms."""
    nothing = "bnd_" + "0" * 32
    assert ask(service, "show", nothing, code=1) == f"There is no binding {nothing}.\n"
    assert "must be bnd_ and 32 characters" in ask(service, "show", "order-1", code=1)
    assert ask(service, "release", nothing, "--yes", code=1) == f"There is no binding {nothing}.\n"
    assert "party: must be E.164" in ask(service, "search", "13900000001", code=1)
    assert "--yes" in ask(service, "release", nothing, code=2)
    assert "--state" in ask(service, "list", "--state", "gone", code=2)


async def test_reach_tells_who_is_reached(service: Service) -> None:
    """Now and before, masked; with --reveal in clear, noted before; a phone may come from standard input."""
    a, b = phone(), phone()
    async with client_of(service) as client:
        made = (await client.bind(a=a, b=b)).body
    folder = ("--state-dir", str(service.folder))
    ended = run("reach", made["x"], a, "--json", *folder)
    assert ended.returncode == 0, ended.stderr
    told = orjson.loads(ended.stdout)
    assert (told["reached"], told["party"], told["bindings"]) == (True, made["b"], [made["id"]])
    piped = from_stdin(service, f"{a}\n", "reach", made["x"], "-", "--at", "2001-01-01T00:00:00Z")
    assert "why\tnot_kept" in piped.stdout, piped.stderr
    assert a not in piped.stdout
    revealed = orjson.loads(run("reach", made["x"], a, "--reveal", "--json", *folder).stdout)
    assert revealed["party"] == b
    ((who, line),) = await rows(service, "SELECT who, line_id FROM audit WHERE line_id IS NOT NULL")
    assert "@" in who
    assert line.hex == made["line"]
    assert run("reach", "+8619999999999", a, *folder).returncode == 1
    assert "caller: must be E.164" in run("reach", made["x"], "139", *folder).stderr

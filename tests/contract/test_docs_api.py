"""``docs/api.md``: every example in it is run, so that the page cannot rot."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import orjson
import pytest

from broker.api import problems
from broker.api.operations import OPEN
from broker.api.routes import ROUTES
from tests.contract.service import (
    CHECKOUT,
    Client,
    add_key,
    client_of,
    eventually,
    memory,
    phone,
    rows,
    settled_config,
    up,
)
from tests.edge.rig import event, fee, fees, headers, message, session_id
from tests.pg import state_folder

_PAGE = (CHECKOUT / "docs" / "api.md").read_text()
_EXAMPLE = re.compile(r"```sh\n(?P<asked>[^`]*)\n```\n\n```http\n(?P<told>.*?)\n```", re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Example:
    """A request as curl would send it, and the answer that the page shows."""

    method: str
    path: str
    headers: dict[str, str]
    body: str | None
    status: int
    shown_headers: dict[str, str]
    shown: Any


def _example(asked: str, told: str) -> _Example:
    words = iter(shlex.split(asked.replace("\\\n", " ")))
    assert next(words) == "curl"
    method, path, body = "", "", None
    headers: dict[str, str] = {}
    for word in words:
        match word:
            case "-i":
                pass
            case "-X":
                method = next(words)
            case "-H":
                name, _, value = next(words).partition(": ")
                headers[name] = value
            case "-d":
                body = next(words)
            case _:
                assert word.startswith("$API/"), f"curl is given something the test does not know: {word}"
                path = word.removeprefix("$API")
    head, _, answer = told.partition("\n\n")
    first, *lines = head.split("\n")
    shown_headers = dict(line.split(": ", 1) for line in lines)
    return _Example(method or "GET", path, headers, body, int(first.split()[1]), shown_headers, orjson.loads(answer))


_EXAMPLES = [_example(found["asked"], found["told"]) for found in _EXAMPLE.finditer(_PAGE)]


def _form(value: Any) -> Any:
    """Return the members of a JSON value, with the kind of each."""
    match value:
        case dict():
            return {name: _form(item) for name, item in value.items()}
        case list():
            return [_form(item) for item in value]
        case _:
            return type(value).__name__


def _fits(shown: str, real: str) -> bool:
    """Tell whether the text shown, with … for anything, is the real one."""
    return re.fullmatch(".*".join(map(re.escape, shown.split("…"))), real) is not None


async def _known(client: Client) -> dict[str, str]:
    """What the page's variables stand for: keys, a call that lasts, and a recording of one that is over."""
    service = client.service
    (app,) = await rows(service, "SELECT id FROM app WHERE name = 'demo-axb'")
    # Without addresses the platform tells nothing: what the page shows is told below.
    mute = next(one for one in service.ready["apps"] if one["mode"] == "axb")
    silent = {"secret": mute["app_secret"], "mode": "axb", "rate": 0}
    await client.emulator("PUT", f"apps/{mute['app_key']}", silent)
    listening = await add_key(service, app["id"], "listener", ("reveal",))
    await settled_config(service, client, listening)
    a = phone()
    b = phone()
    bound = (await client.bind(a=a, b=b, area_code="0755", recording={"enabled": True})).body
    x = bound["x"]
    over, lasting = [(await client.call(a, x))["session_id"] for _ in range(2)]
    await client.emulator("POST", "clock", {"advance_s": 4})
    await client.ask("POST", f"/v1/calls/{quote(over, safe='')}:stop")
    (recording,) = (await client.emulator("GET", "recordings"))["items"]
    await _tell(client, bound, a, b, recording)
    return {
        **{f"$KEY_{app['mode'].upper()}": app["api_key"] for app in service.ready["apps"]},
        "$KEY": service.key,
        "$REVEAL_KEY": listening,
        "$SESSION": quote(lasting, safe=""),
        "$FILE": recording["record_object_name"],
        "$DOMAIN": recording["record_domain"],
    }


async def _tell(client: Client, bound: Any, a: str, b: str, recording: Any) -> None:
    """Push an answered call, its record and a message through the binding, as the platform would."""
    service, session = client.service, session_id()
    told: dict[str, Any] = {"caller": a, "called": b, "userData": bound["line"].replace("-", "")}
    names = {"recordObjectName": recording["record_object_name"], "recordDomain": recording["record_domain"]}
    record = fee(
        session, callerNum=a, fwdDstNum=b, bindNum=bound["x"], userData=told["userData"], recordFlag=1, **names
    )
    pushes = [
        ("events", event("callin", session, **(told | {"called": bound["x"]}))),
        ("events", event("answer", session, **told)),
        ("events", event("disconnect", session, stateCode=0, **told)),
        ("cdr", fees(record)),
        ("sms", message(bound["x"], a, called=b, userData=told["userData"])),
    ]
    app = next(one for one in service.ready["apps"] if one["mode"] == "axb")
    for kind, body in pushes:
        signed = headers(key=app["app_key"], secret=app["app_secret"])
        url = f"{service.ready['edge']}/n/{app['name']}/{kind}"
        async with client.http.post(url, data=orjson.dumps(body), headers=signed) as answer:
            assert answer.status == 200

    async def projected() -> bool:
        return len(await rows(service, "SELECT 1 FROM inbox WHERE state = 'done'")) == len(pushes)

    await eventually(projected, "everything that was pushed is there")


def _filled(text: str, known: Mapping[str, str]) -> str:
    return re.sub(r"[$][A-Z_]+", lambda name: known[name[0]], text)


async def _check(client: Client, example: _Example, known: dict[str, str]) -> None:
    """Run one example and remember the ids of the binding and the peer that `$ID` and `$PEER` now stand for."""
    headers = {name: _filled(value, known) for name, value in example.headers.items()}
    body = _filled(example.body, known) if example.body is not None else None
    answer = await client.ask(example.method, _filled(example.path, known), data=body, headers=headers, key=None)
    where = f"{example.method} {example.path}: {answer.raw.decode()}"
    assert answer.status == example.status, where
    assert _form(answer.body) == _form(example.shown), where
    for name, value in example.shown_headers.items():
        assert _fits(value, answer.headers[name].split(";")[0]), f"{name} of {where}"
    for name in {"state", "reason", "code", "title", "type", "detail", "pool", "a", "b", "ttl_s"} & set(example.shown):
        assert _fits(str(example.shown[name]), str(answer.body[name])), f"{name} of {where}"
    made = str(answer.body.get("id", ""))
    known |= {"$PEER": made} if made.startswith("per_") else {"$ID": made} if made else {}


async def test_every_example_is_what_happens() -> None:
    """In the order of the page, on a fresh broker: status, headers shown, members and their kinds, and stable words."""
    with state_folder(memory()) as folder, up(folder) as running:
        async with client_of(running) as client:
            known = await _known(client)
            for example in _EXAMPLES:
                await _check(client, example, known)


def test_no_example_is_left_out() -> None:
    """Each block of commands is followed by its answer, and each route with a key has an example."""
    assert len(_EXAMPLES) == _PAGE.count("```sh\n") == _PAGE.count("```http\n")
    for route in ROUTES:
        form = re.compile(re.sub(r"{\w+}", r"[^/?]+", route.path.replace(":", "[:]")) + r"(\?.*)?")
        shown = [one for one in _EXAMPLES if one.method == route.method and form.fullmatch(one.path)]
        assert any(one.status < 300 for one in shown), f"docs/api.md has no example of {route.method} {route.path}"
    for path in OPEN:
        assert path in _PAGE


@pytest.mark.parametrize("code", problems.CODES)
def test_every_code_is_in_the_table(code: str) -> None:
    """The table of errors has the rows of broker/api/problems.py, word for word."""
    assert error_row(code) in _PAGE.splitlines()


def test_the_table_has_no_other_codes() -> None:
    """A code that is gone is gone from the page."""
    rows = re.findall(r"^\| `([a-z_]+)` \| \d{3} \|", _PAGE, re.MULTILINE)
    assert rows == list(problems.CODES)


def error_row(code: str) -> str:
    """Return the line of the table for ``code``."""
    return f"| `{code}` | {problems.status_of(code)} | {problems.CODES[code]} |"

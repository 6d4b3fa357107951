"""Every mode keeps the same promise: both sides reach each other, changed is changed, ended rests and is nobody's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pytest

from tests.contract.service import Answer, Client, Json, eventually
from tests.modes.shapes import Ax, Axb, Axe, Axyb, Case, XOne, XPair

_QUARANTINE_S: Final = 7200
#: Mode, what it does, and what a call to an X that nobody is behind any more says (contract 8.1; in mode X our words).
_CASES: Final[Mapping[str, tuple[type[Case], int | str]]] = {
    "axb": (Axb, 8014),
    "ax": (Ax, 8018),
    "axe": (Axe, 8022),
    "axyb": (Axyb, 8030),
    "x pair": (XPair, "not_bound"),
    "x one": (XOne, "not_bound"),
}
_RESTING: Final = [name for name in _CASES if name != "axyb"]  # there the platform picks, and we cannot keep it from it


@pytest.fixture
def case(request: pytest.FixtureRequest, client: Client) -> Case:
    """A case of the mode that the test names."""
    shape, nobody = _CASES[request.param]
    mode = request.param.split()[0]
    (app,) = [app for app in client.service.ready["apps"] if app["mode"] == mode]
    return shape(client, app, nobody=nobody)


async def _advance(client: Client, seconds: float) -> None:
    clock = f"{client.service.ready['admin']}/test/clock"
    assert (await client.ask("POST", clock, {"advance_s": seconds}, key=None)).status == 200


@pytest.mark.parametrize("case", _CASES, indirect=True)
async def test_the_life_of_a_binding(case: Case) -> None:
    """Bound, each side reaches the other; changed, the new A is reached and not the old; released, nobody is."""
    made = await case.begin()
    assert (made["state"], made["mode"]) == ("active", case.app["mode"])
    assert (await case.inward()).whom == case.a
    assert (await case.outward()).whom == case.b
    old = case.a
    answer = await case.modify()
    if made["mode"] == "axyb":
        answer.problem(409, "not_modifiable")
    else:
        assert answer.status == 200, answer.raw
        assert answer.body["x"] == made["x"]
        assert answer.body["extension"] == made["extension"]
        assert case.a != old
    assert (await case.inward()).whom == case.a
    assert (await case.outward()).whom == case.b
    ended = await case.release()
    assert (ended.status, ended.body["state"], ended.body["reason"]) == (200, "released", "released")
    after = await case.inward()
    assert (after.whom, after.why) == (None, case.nobody)


@pytest.mark.parametrize("case", _CASES, indirect=True)
async def test_expiry(case: Case) -> None:
    """At the end of its lifetime a binding ends once, and nobody is reached any more."""
    made = await case.begin()
    await _advance(case.client, 3660)

    async def over() -> Answer | None:
        shown = await case.ask("GET", f"/v1/bindings/{made['id']}")
        return shown if shown.body["state"] == "released" else None

    ended = await eventually(over, "the binding has expired")
    assert ended.body["reason"] == "expired"
    after = await case.inward()
    assert after.whom is None
    assert after.why in {case.nobody, "expired"}


def _another(case: Case, place: Json) -> Any:
    """Bind for somebody else who could be given ``place`` if it were free."""
    if isinstance(case, Axe):
        return case.bind(a=_fresh(case), extension=place["extension"])
    return case.bind(a=case.a if isinstance(case, Axb | XPair) else _fresh(case), **_other_b(case))


def _fresh(case: Case) -> str:
    return type(case)(case.client, case.app).a


def _other_b(case: Case) -> Json:
    return {"b": type(case)(case.client, case.app).b} if isinstance(case, Axb | XPair) else {}


@pytest.mark.parametrize("case", _RESTING, indirect=True)
async def test_what_was_released_rests(case: Case) -> None:
    """Inside the quarantine nobody else is given it, but whoever had it may come back; afterwards anybody is."""
    first = await case.begin()
    place = case.place(first)
    await case.release()
    back = await case.bind(**({"policy": "sticky"} if isinstance(case, Axb | XPair) else {}))
    assert (back.status, case.place(back.body)) == (201, place), back.raw
    await case.release(back.body["id"])
    taken: list[Json] = []
    while (other := await _another(case, first)).status == 201:
        taken.append(other.body)
        assert case.place(other.body) != place
        assert len(taken) < 200
    assert other.body["code"] in {"pool_exhausted", "extension_taken"}, other.raw
    await _advance(case.client, _QUARANTINE_S)
    given: list[tuple[str, str | None]] = []
    while place not in given:
        other = await _another(case, first)
        assert other.status == 201, "everything else was given, and not what has rested"
        given.append(case.place(other.body))

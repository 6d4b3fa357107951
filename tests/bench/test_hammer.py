"""Hammering each mode for a moment breaks no promise, and each promise that could be broken would be noticed."""

import json
import os
import subprocess
import sys
from argparse import Namespace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from bench.hammer.__main__ import hammer
from bench.hammer.judge import Relation, from_history, from_ledger, judge, refused, relations_at, unequal
from bench.hammer.kind import KINDS
from bench.hammer.reach import Routed, misrouted
from bench.scenario import Scenario, Shape, prepare
from bench.stack import Stack

ROOT = Path(__file__).parents[2]
APP = "app"
X, Y = "+8616200000001", "+8616200000002"
A, B, C = "+8613800000001", "+8615000000001", "+8615000000002"


class _Ledger:
    """Effects of the platform, written a row at a time; times are seconds from the beginning."""

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self.rows: list[dict[str, Any]] = []

    def add(self, op: str, at: float, line: str, **fields: Any) -> None:
        when = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=at)
        row = {
            "seq": len(self.rows) + 1, "serial": 1, "op": op, "app_key": APP, "mode": self.mode, "result_code": "0",
            "at": when.isoformat(timespec="milliseconds"), "subscription_id": f"sub-{line}", "user_data": f"{line}.1",
            "x": X, "y": None, "extension": None, "a": A, "b": "", **fields,
        }  # fmt: skip
        self.rows.append(row)

    def stay(self, line: str, since: float, until: float, **fields: Any) -> None:
        """Bind and unbind; rows are put in the order of their times."""
        self.add("bind", since, line, **fields)
        self.add("unbind", until, line, **fields)
        self.rows.sort(key=lambda row: row["at"])

    def judged(self, *, rest_s: float = 1.0, most: int | None = None) -> list[str]:
        return judge(from_ledger(self.rows, APP), rest_s=rest_s, most=most)


def test_one_after_the_other_is_right() -> None:
    """A place changes hands after its rest, comes back to the same A within it, and goes on with another A."""
    ledger = _Ledger("ax")
    ledger.stay("1", 0.0, 1.0)
    ledger.stay("2", 1.1, 2.0)
    ledger.stay("3", 3.0, 9.0, a=B)
    ledger.add("modify", 4.0, "3", a=C)
    ledger.rows.sort(key=lambda row: row["at"])
    ledger.stay("4", 9.1, 9.5, a=C)
    assert ledger.judged(most=1) == []


def test_of_a_change_the_last_one_rests() -> None:
    """Who was replaced before the line ended does not come back to its X within the rest."""
    ledger = _Ledger("ax")
    ledger.stay("1", 0.0, 2.0)
    ledger.add("modify", 1.5, "1", a=B)
    ledger.rows.sort(key=lambda row: row["at"])
    ledger.stay("2", 2.5, 3.0)
    assert "quarantine cut short" in ledger.judged()[0]


def test_two_a_on_an_x() -> None:
    """An X has one A at a time."""
    ledger = _Ledger("ax")
    ledger.stay("1", 0.0, 5.0)
    ledger.stay("2", 4.0, 6.0, a=B)
    assert "held twice" in ledger.judged()[0]


def test_an_extension_twice() -> None:
    """An extension has one A at a time, and other extensions of the X have others."""
    ledger = _Ledger("axe")
    ledger.stay("1", 0.0, 5.0, extension="0011")
    ledger.stay("2", 1.0, 6.0, extension="0023", a=B)
    assert ledger.judged() == []
    ledger.stay("3", 4.0, 6.0, extension="0011", a=C)
    assert "held twice" in ledger.judged()[0]


def test_a_line_bound_anew_owes_no_rest() -> None:
    """A change of A in mode AXE is an unbind and a bind of the same line."""
    ledger = _Ledger("axe")
    ledger.stay("1", 0.0, 5.0, extension="0011")
    ledger.stay("1", 5.01, 6.0, extension="0011", a=B)
    assert ledger.judged() == []


def test_a_party_twice_on_an_x() -> None:
    """Of pairs, a party has one counterpart on an X at a time, and another one only after the rest."""
    ledger = _Ledger("axb")
    ledger.stay("1", 0.0, 5.0, b=B)
    ledger.stay("2", 4.0, 6.0, b=C)
    assert "held twice" in ledger.judged()[0]
    ledger = _Ledger("axb")
    ledger.stay("1", 0.0, 5.0, b=B)
    ledger.stay("2", 5.5, 6.0, b=C)
    (said,) = ledger.judged()
    assert "quarantine cut short" in said
    assert not any(number in said for number in (X, A, B, C))


def test_a_counterpart_that_was_replaced_rests() -> None:
    """Who leaves a line that goes on is on its X with somebody else only after the rest."""
    ledger = _Ledger("axb")
    ledger.add("bind", 0.0, "1", b=B)
    ledger.add("modify", 1.0, "1", b=C)
    ledger.add("bind", 1.5, "2", a="+8613800000002", b=B)
    assert "quarantine cut short" in ledger.judged()[0]


def test_early_use_of_a_place() -> None:
    """A place rests a second for everybody else."""
    ledger = _Ledger("ax")
    ledger.stay("1", 0.0, 5.0)
    ledger.stay("2", 5.99, 6.0, a=B)
    assert "quarantine cut short" in ledger.judged()[0]
    assert ledger.judged(rest_s=0.5) == []


def test_a_sixth_x() -> None:
    """An A has five X at a time; what has ended does not count."""
    ledger = _Ledger("ax")
    for number in range(5):
        ledger.stay(str(number), number, 10.0, x=f"{X}{number}")
    ledger.stay("5", 10.0, 12.0, x=f"{X}5")
    assert ledger.judged(most=5) == []
    ledger.stay("6", 9.0, 12.0, x=f"{X}6")
    assert "limit exceeded" in ledger.judged(most=5)[0]


def test_a_y_twice() -> None:
    """Two B of one X do not share a Y."""
    ledger = _Ledger("axyb")
    ledger.add("bind", 0.0, "1")
    ledger.add("bind", 1.0, "1", subscription_id="sub-b", b=B, y=Y)
    assert ledger.judged(rest_s=0.0, most=5) == []
    ledger.add("bind", 2.0, "1", subscription_id="sub-c", b=C, y=Y)
    assert "held twice" in ledger.judged(rest_s=0.0)[0]


def test_a_refusal_where_we_choose() -> None:
    """The platform refuses nothing that we have chosen; queries and others' requests do not count."""
    ledger = _Ledger("ax")
    ledger.add("bind", 0.0, "1", result_code="1011005", app_key="other")
    ledger.add("query", 0.0, "1", result_code="1016001")
    assert refused(ledger.rows, APP) == []
    ledger.add("bind", 0.0, "1", result_code="1011005")
    assert refused(ledger.rows, APP) == ["the platform refused to bind line 1 with 1011005"]


def test_relations_that_one_side_knows() -> None:
    """What is active here and what the platform holds are the same relations; no number is said."""
    held = {"app_key": APP, "x": X, "y": Y, "b": B}
    at_platform = relations_at([held, {**held, "y": None}, {**held, "app_key": "other", "b": C}], APP)
    assert at_platform == {Relation(X, Y, B)}
    assert unequal(at_platform, at_platform) == []
    found = unequal({Relation(X, Y, C)}, at_platform)
    assert ["does not hold it" in found[0], "no active peer" in found[1]] == [True, True]
    assert not any(number in "".join(found) for number in (X, Y, B, C))


@pytest.mark.parametrize("b", [None, 7])
def test_our_own_history(b: int | None) -> None:
    """Lines that overlap in our own books are found, of one party and of two."""
    day = datetime(2026, 1, 1, tzinfo=UTC)

    def row(a: int, since: int, until: int | None) -> dict[str, Any]:
        end = day + timedelta(seconds=until) if until is not None else None
        since_at = day + timedelta(seconds=since)
        return {"line_id": uuid4(), "x": X, "extension": 0, "a_key": a, "b_key": b, "since": since_at, "until": end}

    rows = [row(1, 0, 5), row(2, 6, 8), row(3, 9, None)]
    assert judge(from_history(rows), rest_s=1.0, most=5) == []
    assert "held twice" in judge(from_history([*rows, row(4, 20, None)]), rest_s=1.0, most=5)[0]


def test_routing_that_differs_from_the_lines() -> None:
    """Whoever is named and should not be, or is not and should, is said in words without numbers."""
    right = [Routed(X, A, B, "+86*******0001"), Routed(X, C, None, None)]
    assert misrouted(right) == []
    wrong = [Routed(X, A, B, None), Routed(X, A, C, "+86*******0001"), Routed(X, C, None, "+86*******0001")]
    found = misrouted(wrong)
    assert len(found) == 3
    assert not any(number in "".join(found) for number in (X, A, B, C))


@pytest.mark.parametrize("kind", KINDS)
def test_a_moment_of_hammering(kind: str) -> None:
    """Sixteen clients of two processes bind, change, release and are refused; every book agrees in the end."""
    mode, _, routing = kind.partition("-")
    command = [sys.executable, "-m", "bench.hammer", "--mode", mode, "--seconds", "5", "--clients", "16", "--json"]
    options = ["--routing", routing] if routing else []
    done = subprocess.run(
        [*command, *options], cwd=ROOT, capture_output=True, text=True, timeout=240, check=False, env=os.environ
    )
    assert done.returncode == 0, done.stderr + done.stdout[-4000:]
    told = json.loads(done.stdout)
    assert told["violations"] == []
    assert told["binds"] > 0
    assert told["releases"] > 0
    assert (told["changes"] > 0) is KINDS[kind].changes_a


async def test_the_hammer_finds_a_planted_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker whose places hardly rest is convicted by the platform's ledger and by its own history."""

    async def prepare_badly(stack: Stack, shape: Shape) -> Scenario:
        scenario = await prepare(stack, shape)
        db = await asyncpg.connect(stack.database)
        try:
            source = str(await db.fetchval("SELECT pg_get_functiondef('settle_ended'::regproc)"))
            spoilt = source.replace("make_interval(secs => e.rest_s)", "make_interval(secs => 0.1)")
            assert spoilt != source
            await db.execute(spoilt)
        finally:
            await db.close()
        return scenario

    monkeypatch.setattr("bench.hammer.__main__.prepare", prepare_badly)
    options = Namespace(mode="ax", routing="pair", seconds=5.0, clients=64, workers=2, kill_every=0.0)
    told = await hammer(options)
    said = "\n".join(told["violations"])
    assert "platform: quarantine cut short" in said
    assert told["violations_in_all"] > 2

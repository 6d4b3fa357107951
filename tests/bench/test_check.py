"""The books checker finds what was spoilt by hand in a database and at an emulator that agree."""

import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from bench.check import Books, compare, effects, replay, within
from broker.store.crypto import DataKey, Vault

VAULT = Vault((DataKey(1, os.urandom(32)),), os.urandom(32))
A, B, C, X = "+8613800000001", "+8615000000001", "+8615000000002", "+8616200000001"
POOL, LINE, BINDING = 1, uuid4(), uuid4()
APP = "app"


class _World:
    """One confirmed line in all three books; tests spoil one of them."""

    def __init__(self) -> None:
        a, b = VAULT.party_key(A), VAULT.party_key(B)
        self.line: dict[str, Any] = {
            "pool_id": POOL, "id": LINE, "state": "active", "seat": 3, "x_id": 7, "number": X, "a_key": a, "b_key": b,
            "a_sealed": VAULT.seal("line", "a", POOL, LINE, A), "b_sealed": VAULT.seal("line", "b", POOL, LINE, B),
            "subscription_id": "sub-1", "confirmed_at": datetime.now(UTC), "expires_at": None, "cap": 10,
            "direction": "both", "options": None, "calls": 1, "mode": "axb", "extension": None,
            "kept_until": None,
        }  # fmt: skip
        self.slots = [
            {"pool_id": POOL, "x_id": 7, "party_key": own, "counterpart_key": other, "line_id": LINE}
            for own, other in ((a, b), (b, a))
        ]
        self.binding = {"pool_id": POOL, "id": BINDING, "line_id": LINE, "state": "active"}
        self.live = [self.at_platform()]
        self.ledger = [self.row(1, "bind")]
        self.more_lines: dict[UUID, dict[str, Any]] = {}

    def at_platform(self, **other: Any) -> dict[str, Any]:
        held = {
            "subscription_id": "sub-1",
            "x": X,
            "mode": "axb",
            "y": None,
            "extension": None,
            "a": A,
            "b": B,
            "app_key": APP,
            "user_data": f"{LINE.hex}.1",
            "call_direction": 0,
            "max_duration": 0,
            "extras": None,
        }
        return {**held, **other}

    def row(self, seq: int, op: str, **other: Any) -> dict[str, Any]:
        return {**self.at_platform(), "seq": seq, "op": op, "result_code": "0", "serial": seq, **other}

    def violations(self) -> list[str]:
        lines: Mapping[UUID, Any] = {LINE: self.line, **self.more_lines}
        books = Books(
            now=datetime.now(UTC), apps=frozenset({APP}), lines=lines, slots=self.slots,  # type: ignore[arg-type]
            bindings={(POOL, BINDING): self.binding}, open_calls=0,  # type: ignore[dict-item]
        )  # fmt: skip
        found = within(books) + compare(books, VAULT, self.live)
        return found + replay(self.ledger, self.live) + effects(books, self.ledger)


@pytest.fixture
def world() -> _World:
    """Return books that agree."""
    return _World()


def test_books_that_agree_pass(world: _World) -> None:
    """One line, two slots, one binding, one subscription, one effective bind."""
    assert world.violations() == []


def test_a_line_in_grace_needs_no_binding(world: _World) -> None:
    """Released with grace it stands until then; long after that it has been forgotten."""
    world.binding.update(state="released")
    world.line.update(kept_until=datetime.now(UTC) + timedelta(minutes=5))
    assert world.violations() == []
    world.line.update(kept_until=datetime.now(UTC) - timedelta(minutes=5))
    assert "without a live binding" in "\n".join(world.violations())


def test_a_released_line_in_all_books_passes(world: _World) -> None:
    """Nothing live is left anywhere."""
    world.line |= {"state": "released", "seat": None}
    world.binding["state"] = "released"
    world.slots, world.live = [], []
    world.ledger.append(world.row(2, "unbind", serial=1))
    assert world.violations() == []


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        pytest.param(
            lambda w: w.live.clear() or w.ledger.append(w.row(2, "unbind", serial=1)),
            "does not hold sub-1",
            id="lost at the platform",
        ),
        pytest.param(lambda w: w.live[0].update(call_direction=1), "is to have", id="another direction"),
        pytest.param(lambda w: w.live[0].update(extras={"recordFlag": "true"}), "is to have", id="other options"),
        pytest.param(
            lambda w: w.live[0].update(b=C) or w.ledger[0].update(b=C), "bound differently", id="a stranger behind X"
        ),
        pytest.param(
            lambda w: w.live[0].update(x="+8616200000002") or w.ledger[0].update(x="+8616200000002"),
            "bound differently",
            id="another X",
        ),
        pytest.param(lambda w: w.line.update(state="released", seat=None), "slot leaked", id="slot of an ended line"),
        pytest.param(lambda w: w.line.update(state="released"), "seat leaked", id="seat of an ended line"),
        pytest.param(lambda w: w.slots.pop(), "holds 1 live slots", id="slot missing"),
        pytest.param(lambda w: w.slots[0].update(x_id=8), "not one for each", id="slot on another X"),
        pytest.param(lambda w: w.line.update(seat=None), "with seat None", id="no seat"),
        pytest.param(lambda w: w.line.update(seat=10), "with seat 10", id="seat beyond the cap"),
        pytest.param(
            lambda w: w.more_lines.update({UUID(int=1): {**w.line, "id": UUID(int=1)}}),
            "is taken 2 times",
            id="seat taken twice",
        ),
        pytest.param(lambda w: w.binding.update(state="releasing"), "but its line is active", id="states differ"),
        pytest.param(
            lambda w: w.binding.update(state="released"), "without a live binding", id="line outlives its binding"
        ),
        pytest.param(lambda w: w.line.update(a_sealed=w.line["b_sealed"]), "does not open", id="sealed value moved"),
        pytest.param(lambda w: w.line.update(a_key=5), "indexed under other parties", id="wrong index"),
        pytest.param(
            lambda w: w.live.append(w.at_platform(subscription_id="sub-2")), "holds sub-2", id="leaked at the platform"
        ),
        pytest.param(
            lambda w: w.ledger.append(w.row(2, "bind", subscription_id="sub-2")), "bound 2 times", id="bound twice"
        ),
        pytest.param(
            lambda w: w.ledger.append(w.row(2, "bind", subscription_id="sub-2")),
            "for one party on one X",
            id="register doubled at the platform",
        ),
        pytest.param(lambda w: w.ledger.clear(), "no bind", id="confirmed without an effect"),
        pytest.param(
            lambda w: w.ledger.append(w.row(2, "unbind", serial=1, subscription_id="sub-9")),
            "which was not bound",
            id="ended but never bound",
        ),
        pytest.param(
            lambda w: w.ledger[0].update(user_data="x.1"), "a line that we do not know", id="bind of nobody's line"
        ),
    ],
)
def test_each_kind_of_disagreement_is_found(world: _World, spoil: Any, word: str) -> None:
    """Whatever is wrong in one book is said in words, without full numbers."""
    spoil(world)
    found = "\n".join(world.violations())
    assert word in found
    assert not any(number in found for number in (A, B, C))

"""What the workers make of each class of outcome, for every operation of every mode.

One fault at a platform that is well again afterwards, through the real driver. That every row of the contract and every
lost answer belongs to its class is walked through in ``tests/platform/test_outcomes.py``.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from broker.clock import boottime
from broker.domain.change import Callee, LineChange
from broker.domain.options import CallOptions
from broker.domain.phone import PhoneNumber
from broker.errors import Problem
from broker.flows.bind import Accepted
from broker.flows.peers import Peers, Wanted
from broker.store.bindings import Binding
from broker.store.peers import Peer
from tests.emulator.support import Emulated
from tests.workers.axyb import bind_a
from tests.workers.rig import effects, eventually, requests
from tests.workers.sole import Sole, sole, world

A, B, C = "+8613900000001", "+8613900000002", "+8613900000003"

pytestmark = pytest.mark.timeout(60)

#: One fault of each class, as the emulator makes it.
FAULTS: dict[str, dict[str, Any]] = {
    "unknown": {"kind": "code", "http": 500, "code": "1023002"},
    "reset": {"kind": "reset"},
    "done unheard": {"kind": "drop_answer"},
    "done late": {"kind": "late_commit", "ms": 100},
    **{
        name: {"kind": "code", "http": http, "code": code}
        for name, http, code in (
            ("flow_control", 403, "1010010"),
            ("clock_skew", 401, "1010013"),
            ("bad_digest", 401, "1010010"),
            ("source_blocked", 403, "1020176"),
            ("bad_request", 403, "1010002"),
            ("configuration", 403, "1010003"),
            ("app_suspended", 403, "1010029"),
            ("party_limit", 403, "1011003"),
            ("number_refused", 403, "1012102"),
            ("capacity", 403, "1012008"),
            ("conflict", 403, "1012010"),
            ("not_found", 403, "1016001"),
        )
    },
}
LOST = ("unknown", "reset", "done unheard", "done late")
#: Certainly not done, and nothing to do with the request: it is sent again.
AGAIN = ("flow_control", "clock_skew", "bad_digest", "source_blocked")
REFUSED = ("bad_request", "configuration", "app_suspended", "party_limit", "number_refused", "capacity", "conflict")

every_fault = pytest.mark.parametrize("fault", FAULTS)


@contextlib.asynccontextmanager
async def at(dsn: str, folder: Path, mode: str) -> AsyncIterator[Sole]:
    """An instance before a platform of that mode."""
    async with world(dsn, folder, mode) as emu, sole(dsn, emu) as one:
        yield one


async def bind(one: Sole) -> Accepted:
    """Bind A (and B) as the API does in this mode."""
    match one.app.mode:
        case "axb":
            return await one.bind(A, B, within_s=30.0)
        case "axyb":
            return await bind_a(one, A, within_s=30.0)
        case _:
            return await one.take(A)


async def sent(emu: Emulated, op: str) -> list[str]:
    """The operations that left, from the first ``op`` on."""
    rows = [row["op"] for row in requests(await emu.ledger(), "bind", "unbind", "modify", "query", "callee")]
    return rows[rows.index(op) :]


async def over(one: Sole, made: Accepted) -> Binding:
    """Wait until the binding is bound, or over."""
    return await one.state(made, "active", "failed", "released", within_s=30.0)


@every_fault
@pytest.mark.parametrize("mode", ["axb", "ax", "axe"])
async def test_bind(database_url: str, tmp_path: Path, mode: str, fault: str) -> None:
    """Looked up and sent again or adopted; sent again; refused with its reason; or bound elsewhere."""
    reasons = {
        "bad_request": "platform_rejected_request",
        "configuration": "platform_refused",
        "app_suspended": "app_suspended",
        "party_limit": "party_limit",
    }
    async with at(database_url, tmp_path, mode) as one:
        await one.emu.fault(interface="bind", count=1, **FAULTS[fault])
        shown = await over(one, await bind(one))
        asked, lines = await sent(one.emu, "bind"), await one.lines()
        held = await one.emu.bindings()
        assert (shown.state, shown.reason) == (("failed", reasons[fault]) if fault in reasons else ("active", None))
        assert [(row["a"], row["x"]) for row in held] == ([] if fault in reasons else [(A, shown.x)])
        if fault == "done late":
            assert len(effects(await one.emu.ledger(), "bind")) == 1
        elif fault in {"unknown", "reset"}:
            assert (asked, len(lines)) == (["bind", "query", "bind"], 1)
        elif fault == "done unheard":
            assert (asked, len(lines)) == (["bind", "query"], 1)
        elif fault in AGAIN:
            assert (asked, len(lines)) == (["bind", "bind"], 1)
        elif fault in reasons:
            assert (asked, len(lines)) == (["bind"], 1)
        else:
            # Another X, or extension: a conflict is looked into first.
            assert asked == (["bind", "query", "bind"] if fault == "conflict" else ["bind", "bind"])
            assert [line["state"] for line in lines] == ["failed", "active"]
            assert len({(line["number"], line["extension"]) for line in lines}) == 2


@every_fault
async def test_bind_of_a_platform_that_picks(database_url: str, tmp_path: Path, fault: str) -> None:
    """Never sent twice once it may have arrived: searched for, and found or given up."""
    reasons = {
        "unknown": "outcome_unknown",
        "reset": "outcome_unknown",
        "bad_request": "platform_rejected_request",
        "app_suspended": "app_suspended",
        "party_limit": "party_limit",
        "capacity": "pool_exhausted",
        **dict.fromkeys(("configuration", "number_refused", "conflict", "not_found"), "platform_refused"),
    }
    async with at(database_url, tmp_path, "axyb") as one:
        await one.emu.fault(interface="bind", count=1, **FAULTS[fault])
        shown = await over(one, await bind(one))
        assert (shown.state, shown.reason) == (("failed", reasons[fault]) if fault in reasons else ("active", None))
        assert len(requests(await one.emu.ledger(), "bind")) == (2 if fault in AGAIN else 1)
        assert [row["x"] for row in await one.emu.bindings()] == ([] if fault in reasons else [shown.x])


@every_fault
@pytest.mark.parametrize("mode", ["axb", "ax", "axe", "axyb"])
async def test_unbind(database_url: str, tmp_path: Path, mode: str, fault: str) -> None:
    """Sent until it is done, or nothing is there; a refusal is none: the X is held until then."""
    async with at(database_url, tmp_path, mode) as one:
        made = await bind(one)
        await one.emu.fault(interface="unbind", count=1, **FAULTS[fault])
        assert (await one.release(made, within_s=30.0)).state == "released"
        unbinds = [row["result_code"] for row in requests(await one.emu.ledger(), "unbind")]
        if fault == "not_found":
            assert unbinds == ["1016001"]
            return
        assert len(unbinds) == 2 or (fault == "done late" and len(unbinds) <= 3)
        assert len(effects(await one.emu.ledger(), "unbind")) == 1
        assert await one.emu.bindings() == []


CHANGES = {
    "axb": LineChange(b=PhoneNumber(C)),
    "ax": LineChange(a=PhoneNumber(C)),
    "axe": LineChange(options=CallOptions(display="caller")),
    "callee": LineChange(callee=Callee(PhoneNumber(C), 600)),
}


@every_fault
@pytest.mark.parametrize("kind", CHANGES)
async def test_modify(database_url: str, tmp_path: Path, kind: str, fault: str) -> None:
    """Sent again, and the platform asked what holds once none can come late; refused; or the line is gone."""
    reasons = dict.fromkeys(REFUSED, "platform_refused") | {
        "bad_request": "platform_rejected_request",
        "app_suspended": "app_suspended",
        "party_limit": "platform_refused" if kind == "callee" else "party_limit",
        "conflict": "platform_refused" if kind == "callee" else "party_barred",
    }
    op = "callee" if kind == "callee" else "modify"
    async with at(database_url, tmp_path, "ax" if kind == "callee" else kind) as one:
        made = await bind(one)
        await one.emu.fault(interface=op, count=1, **FAULTS[fault])
        with contextlib.suppress(Problem):  # what an order system is told is another matter
            await one.change(made, CHANGES[kind])
        await one.idle()
        asked, shown = await sent(one.emu, op), await one.show(made)
        (line,) = await one.rows("SELECT change_failed, changing FROM line")
        if fault == "not_found":
            assert (shown.state, shown.reason, asked) == ("failed", "platform_lost", [op])
            return
        assert shown.state == "active"
        assert line == {"change_failed": reasons.get(fault), "changing": False}
        if fault in reasons:
            assert asked == [op]
        elif fault in AGAIN:
            assert asked == [op, op]
        else:
            assert asked[:2] == [op, op]
            assert "query" in asked
        assert bool(effects(await one.emu.ledger(), op)) == (fault not in reasons)
        if kind in {"axb", "ax"}:
            (held,) = await one.emu.bindings()
            assert (held["b"] if kind == "axb" else held["a"]) == (
                (B if kind == "axb" else A) if fault in reasons else C
            )


async def _peer(one: Sole, made: Accepted) -> tuple[Peers, Peer]:
    """Ask for a Y for B and wait for what becomes of it."""
    peers = Peers(one.db, one.vault, one.dispatcher, one.sender, lease_s=one.timing.lease_s)
    with contextlib.suppress(Problem):
        wanted = Wanted(PhoneNumber(B), 0)
        await peers.add(one.app, await one.show(made), wanted, deadline=boottime() + 30, wait=True)
    (row,) = await one.rows("SELECT pool_id, id FROM peer")

    async def settled() -> Peer | None:
        found = await peers.one((row["pool_id"], row["id"]))
        return found if found is not None and found.state in {"active", "failed"} else None

    found = await eventually(settled, within_s=30.0)
    assert found is not None
    return peers, found


@every_fault
async def test_bind_peer(database_url: str, tmp_path: Path, fault: str) -> None:
    """Looked up and sent again only if B is missing well after; sent again; or refused with its reason."""
    reasons = dict.fromkeys(REFUSED, "platform_refused") | {
        "bad_request": "platform_rejected_request",
        "app_suspended": "app_suspended",
        "party_limit": "party_limit",
        "capacity": "pool_exhausted",
        "not_found": "binding_ended",
    }
    async with at(database_url, tmp_path, "axyb") as one:
        made = await bind(one)
        await one.emu.fault(interface="bind", count=1, **FAULTS[fault])
        _, peer = await _peer(one, made)
        assert (peer.state, peer.reason) == (("failed", reasons[fault]) if fault in reasons else ("active", None))
        # One of them is A's own.
        done = [row for row in effects(await one.emu.ledger(), "bind") if row["b"] == B or row["a"] == B]
        assert len(done) == (0 if fault in reasons else 1)
        if fault in LOST:
            assert "query" in await sent(one.emu, "bind")


@every_fault
async def test_unbind_peer(database_url: str, tmp_path: Path, fault: str) -> None:
    """Sent until it is done, or nothing is there."""
    async with at(database_url, tmp_path, "axyb") as one:
        made = await bind(one)
        peers, peer = await _peer(one, made)
        assert peer.state == "active"
        await one.emu.fault(interface="unbind", count=1, **FAULTS[fault])
        gone = await peers.drop(await one.show(made), peer, deadline=boottime() + 30, wait=True)
        assert gone.state == "released"
        unbinds = requests(await one.emu.ledger(), "unbind")
        assert len(effects(await one.emu.ledger(), "unbind")) == (0 if fault == "not_found" else 1)
        # What is carried out late may not be in the ledger yet.
        assert len(unbinds) == (1 if fault == "not_found" else 2) or fault == "done late"
        assert (await one.show(made)).state == "active"

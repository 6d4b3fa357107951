"""A bind's story when the platform answers: what is sent, what becomes of the line, what the books say."""

from __future__ import annotations

from datetime import timedelta

import pytest

from broker.errors import PoolExhausted
from broker.flows.calls import Active, Failed
from tests.emulator.support import Emulated
from tests.workers.rig import Instance, effects, requests

A, B, C, D = "+8613900000001", "+8613900000002", "+8613900000003", "+8613900000004"


async def test_done_is_active_with_one_effect(one: Instance) -> None:
    """A confirmed bind is active; the platform holds exactly one binding, under our token and the chosen X."""
    made = await one.bind(A, B)
    assert isinstance(made.outcome, Active)
    (row,) = effects(await one.emu.ledger(), "bind")
    (call,) = await one.calls()
    assert (row["x"], row["a"], row["b"], row["subscription_id"]) == (
        made.outcome.x,
        A,
        B,
        made.outcome.subscription_id,
    )
    assert row["user_data"] == f"{call['line_id'].hex}.{call['attempt']}"
    assert (call["state"], call["outcome"]) == ("settled", "done")
    assert len(await one.emu.bindings()) == 1


async def test_lifetime_counts_from_the_confirmation(one: Instance) -> None:
    """``expires_at`` is the confirmation plus ttl; the platform gets that very ttl."""
    made = await one.bind(A, B, ttl_s=77)
    (line,) = await one.lines()
    (row,) = effects(await one.emu.ledger(), "bind")
    assert line["expires_at"] == line["confirmed_at"] + timedelta(seconds=77)
    assert (await one.show(made)).expires_at == line["expires_at"]
    assert row["duration"] == 77


async def test_zero_means_no_expiry_and_is_sent_only_then(one: Instance) -> None:
    """A ttl of 0 is sent as 0 and never expires."""
    made = await one.bind(A, B, ttl_s=0)
    (row,) = effects(await one.emu.ledger(), "bind")
    assert row["duration"] == 0
    assert (await one.show(made)).expires_at is None


async def test_ttl_does_not_shrink_in_the_queue(one: Instance) -> None:
    """After a second of refusals by flow control the platform still gets the whole ttl."""
    await one.emu.fault(interface="bind", kind="code", http=403, code="1011006", count=2)
    await one.bind(A, B, ttl_s=60)
    (row,) = effects(await one.emu.ledger(), "bind")
    assert row["duration"] == 60


@pytest.mark.parametrize("code", ["1012008", "1012102", "1012001"])
async def test_a_refused_x_is_replaced(one: Instance, code: str) -> None:
    """X full, X blacklisted, X not ours: the same binding gets another X, and the first line has failed."""
    await one.emu.fault(interface="bind", kind="code", http=403, code=code, count=1)
    made = await one.bind(A, B)
    assert isinstance(made.outcome, Active)
    first, second = await one.lines()
    assert (first["state"], second["state"]) == ("failed", "active")
    assert first["number"] != second["number"] == made.outcome.x
    assert len(effects(await one.emu.ledger(), "bind")) == 1


async def test_all_x_refused_is_pool_exhausted(one: Instance) -> None:
    """When the platform refuses every X of the pool, the bind fails with pool_exhausted."""
    await one.emu.fault(interface="bind", kind="code", http=403, code="1012008")
    made = await one.bind(A, B)
    assert isinstance(made.outcome, Failed)
    assert made.outcome.reason == "pool_exhausted"
    binding = await one.show(made)
    assert (binding.state, binding.reason) == ("failed", "pool_exhausted")
    tried = [row["x"] for row in requests(await one.emu.ledger(), "bind")]
    assert len(tried) == len(set(tried)) == 3
    assert not [x for x, live in await one.held() if live]
    with pytest.raises(PoolExhausted):
        await one.bind(A, B)
    assert len(requests(await one.emu.ledger(), "bind")) == 3


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("1010002", "platform_rejected_request"),
        ("1010003", "platform_refused"),
        ("1010029", "app_suspended"),
        ("1010008", "app_suspended"),
        ("1010040", "platform_refused"),
    ],
)
async def test_refusals_that_no_other_x_would_mend(one: Instance, code: str, reason: str) -> None:
    """They end the bind after one request, with a stable reason, and both parties may have the X at once."""
    await one.emu.fault(interface="bind", kind="code", http=403, code=code, count=1)
    made = await one.bind(A, B)
    assert isinstance(made.outcome, Failed)
    assert (made.outcome.reason, made.outcome.http, made.outcome.code) == (reason, 403, code)
    assert (await one.show(made)).reason == reason
    assert await one.held() == []
    assert len(requests(await one.emu.ledger(), "bind")) == 1
    assert isinstance((await one.bind(A, C)).outcome, Active)


async def test_skewed_clock_is_corrected_once(one: Instance) -> None:
    """When the platform's clock is two hours ahead, one refusal corrects ours, and what follows needs none."""
    assert (await one.emu.ask("POST", "clock", {"advance_s": 7200})).http == 200
    made = await one.bind(A, B)
    assert isinstance(made.outcome, Active)
    await one.bind(C, D)
    answers = (await one.emu.ask("GET", "health")).body["answers"]
    assert answers == {"401/1010013": 1, "200/0": 2}


async def test_a_clock_that_cannot_be_corrected_ends_the_bind(one: Instance, emu: Emulated) -> None:
    """A second refusal for the clock in one bind is a matter for an operator."""
    await emu.fault(interface="bind", kind="code", http=401, code="1010013")
    made = await one.bind(A, B)
    assert isinstance(made.outcome, Failed)
    assert made.outcome.reason == "platform_refused"
    assert len(requests(await emu.ledger(), "bind")) == 2

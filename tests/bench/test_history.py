"""The history checker finds each kind of violation and accuses nobody it cannot convict."""

import random

import pytest

from bench.history import Operation, Outcome, check_history

X1, X2 = "+8616200000001", "+8616200000002"
A, B, C, D = (f"+861380000000{n}" for n in range(4))
REST = 10.0


def bind(name: str, at: float, a: str = A, b: str = B, x: str | None = X1, **more: object) -> Operation:
    """A bind answered 201 half a second after it was sent."""
    fields: dict[str, object] = {"outcome": "ok", "invoked": at, "done": at + 0.5, "status": 201, **more}
    return Operation("bind", binding=name, a=a, b=b, x=x, **fields)  # type: ignore[arg-type]


def release(name: str, at: float, outcome: str = "ok") -> Operation:
    """A release answered half a second after it was sent."""
    return Operation("release", outcome, at, at + 0.5, binding=name)  # type: ignore[arg-type]


def _check(*events: Operation, cap: int = 500, quarantine_s: float = REST, sharing: bool = False) -> list[str]:
    return check_history(events, quarantine_s=quarantine_s, cap=cap, sharing=sharing)


def test_two_live_bindings_of_one_party_on_one_x_are_found() -> None:
    """A is reachable through X1 by B and by C: whoever calls reaches a stranger."""
    (found,) = _check(bind("one", 0.0), bind("two", 5.0, b=C))
    assert found.startswith("held twice")
    assert "one" in found
    assert "two" in found


def test_the_party_may_stand_on_either_side() -> None:
    """B of one binding is A of the other: the same register."""
    assert _check(bind("one", 0.0, A, B), bind("two", 5.0, B, C))


def test_bindings_whose_requests_ran_at_the_same_time_are_found() -> None:
    """Both answered 201 and nobody released: no order makes that right."""
    assert _check(bind("one", 0.0), bind("two", 0.1, b=C))


def test_a_rest_cut_short_is_found() -> None:
    """Another counterpart within the quarantine after the release."""
    (found,) = _check(bind("one", 0.0), release("one", 2.0), bind("two", 6.0, b=C))
    assert found.startswith("quarantine cut short")


def test_a_violation_behind_a_correct_neighbour_is_found() -> None:
    """The nearest earlier binding of the register is not the only one that counts."""
    events = [bind("long", 0.0, A, B), bind("pair", 3.0, A, B), release("pair", 4.0), bind("other", 20.0, A, C)]
    assert any("long" in found and "other" in found for found in _check(*events))


def test_a_cap_exceeded_is_found() -> None:
    """Three pairs at once on an X whose cap is two."""
    pairs = [(f"+8613900000{n:03}", f"+8615000000{n:03}") for n in range(3)]
    events = [bind(f"b{n}", float(n), a, b) for n, (a, b) in enumerate(pairs)]
    assert _check(*events, cap=3) == []
    (found,) = _check(*events, cap=2)
    assert found.startswith("cap exceeded")


def test_an_id_answered_with_two_numbers_is_found() -> None:
    """A repeat must tell the same X as the first answer."""
    assert any("two different X" in found for found in _check(bind("one", 0.0), bind("one", 1.0, x=X2)))


def test_the_same_pair_twice_on_one_x_is_a_violation_unless_lines_are_shared() -> None:
    """Two live bindings of one pair on one X are one line or a fault."""
    events = bind("one", 0.0), bind("two", 5.0)
    assert _check(*events)
    assert _check(*events, sharing=True) == []


@pytest.mark.parametrize(
    "events",
    [
        pytest.param((bind("one", 0.0), bind("two", 1.0, x=X2, b=C)), id="another X"),
        pytest.param((bind("one", 0.0), bind("two", 1.0, a=C, b=D)), id="other parties"),
        pytest.param((bind("one", 0.0), release("one", 1.0), bind("two", 11.0, b=C)), id="rested"),
        pytest.param((bind("one", 0.0), release("one", 1.0), bind("two", 2.0)), id="the same pair need not rest"),
        pytest.param((bind("one", 0.0), release("one", 1.0, "unknown"), bind("two", 11.5, b=C)), id="unknown release"),
        pytest.param(
            (bind("one", 0.0), bind("two", 0.0, b=C, outcome="unknown", x=None)), id="an unknown bind holds nothing"
        ),
        pytest.param((bind("one", 0.0, ttl_s=60.0), bind("two", 70.0, b=C)), id="expired and rested"),
        pytest.param(
            (bind("one", 0.0), release("one", 1.0), bind("two", 1.2, b=C, done=11.5)),
            id="asked for early, allocated when the rest was over",
        ),
        pytest.param((bind("one", 0.0), bind("one", 3.0)), id="a replayed answer"),
        pytest.param(
            (
                Operation("bind", "unknown", -70.0, -60.0, a=A, b=B, ttl_s=60.0, key="k"),
                bind("one", 0.0, key="k", ttl_s=60.0),
                bind("two", 2.0, b=C),
            ),
            id="its lifetime began with a first try that got no answer",
        ),
    ],
)
def test_correct_histories_pass(events: tuple[Operation, ...]) -> None:
    """Nothing that may have been correct is reported."""
    assert _check(*events) == []


def test_a_refused_release_ends_nothing() -> None:
    """404 or 409 to a release leaves the binding in place."""
    assert _check(bind("one", 0.0), release("one", 1.0, "refused"), bind("two", 20.0, b=C))


def test_messages_hide_phone_numbers() -> None:
    """No full number of a party in any message."""
    found = "\n".join(_check(bind("one", 0.0), bind("two", 5.0, b=C), bind("three", 6.0, a=D, b=C), cap=1))
    assert found
    assert not any(party in found for party in (A, B, C, D))


def _simulate(seed: int) -> list[Operation]:
    """A correct allocator with random delays, lost answers and releases of unknown outcome."""
    dice = random.Random(seed)  # noqa: S311 - repeatable
    parties = [f"+86139000000{n:02}" for n in range(6)]
    numbers = [f"+86162000000{n:02}" for n in range(6)]
    slots: dict[tuple[str, str], tuple[float, str]] = {}  # end of life and counterpart
    events: list[Operation] = []
    now = 0.0
    for n in range(300):
        now += dice.random()
        a, b = dice.sample(parties, 2)

        def usable(x: str, a: str = a, b: str = b, at: float = now) -> bool:
            states = (*slots.get((a, x), (-REST, b)), b), (*slots.get((b, x), (-REST, a)), a)
            return all(end + (0.0 if last == other else REST) <= at for end, last, other in states)

        x = next((x for x in numbers if usable(x)), None)
        if x is None:
            continue
        known = dice.random() < 0.8
        done = now + dice.random() * 0.3
        outcome: Outcome = "ok" if known else "unknown"
        invoked = now - dice.random()
        events.append(Operation("bind", outcome, invoked, done, str(n) if known else None, a, b, x if known else None))
        ended = done + dice.random() * 5
        if known:
            told: Outcome = "ok" if dice.random() < 0.7 else "unknown"
            events.append(Operation("release", told, ended - 0.1, ended + 0.2, str(n)))
        slots[a, x], slots[b, x] = (ended, b), (ended, a)
    return events


@pytest.mark.parametrize("seed", range(20))
def test_simulated_correct_histories_with_unknown_outcomes_pass(seed: int) -> None:
    """Random but correct allocation is never accused."""
    events = _simulate(seed)
    assert sum(event.outcome == "unknown" for event in events) > 5
    assert _check(*events) == []
    assert _check(*events, quarantine_s=REST * 3), "the same history breaks a longer quarantine"

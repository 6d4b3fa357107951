from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st

from broker.domain.choice import Choice, PartyView, Policy, Prefix, choose, refusal
from tests.properties.reference import Party, Scene, answers, mask

_PHONES = st.integers(-3, 3)
_SIZE = 24


@st.composite
def parties(draw: st.DrawFn, size: int) -> Party:
    """Any history of one party."""
    party = Party()
    for x in range(size):
        match draw(st.sampled_from(["new", "new", "live", "resting", "rested"])):
            case "live":
                party.live.add(x)
            case "resting":
                party.resting[x] = draw(_PHONES)
                party.left[x] = float(draw(st.integers(100, 104)))
                party.last_with[x] = party.resting[x]
            case "rested":
                party.left[x] = float(draw(st.integers(0, 4)))
                party.last_with[x] = draw(_PHONES)
    return party


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    """Any question."""
    size = draw(st.integers(0, _SIZE))
    numbers = st.integers(0, size - 1) if size else st.nothing()
    closed = draw(st.frozensets(numbers, max_size=size // 2))
    return Scene(
        size=size,
        open=frozenset(range(size)) - closed,
        full=draw(st.frozensets(numbers, max_size=size // 2)),
        a=draw(parties(size)),
        b=draw(parties(size)),
        a_key=draw(_PHONES),
        b_key=draw(_PHONES),
        heat=tuple(draw(st.lists(st.integers(0, 3), min_size=size, max_size=size))),
        prefix=draw(st.integers(0, size + 2)),
        hot=draw(st.frozensets(numbers)),
    )


def _asked(policy: Policy, scene: Scene) -> Choice | None:
    a, b = scene.a.view(), scene.b.view()
    return choose(
        policy,
        usable=mask(scene.open) & ~mask(scene.full) & ~a.barred(scene.b_key) & ~b.barred(scene.a_key),
        prefix=scene.prefix,
        a=a,
        b=b,
        b_key=scene.b_key,
        heat=scene.heat,
        hot=mask(scene.hot),
    )


@given(st.sampled_from(Policy), scenes())
def test_every_policy_answers_as_the_slow_model(policy: Policy, scene: Scene) -> None:
    """A policy answers one of the X numbers that the model allows, and nothing exactly when the model has nothing."""
    choice = _asked(policy, scene)
    allowed = answers(policy, scene)
    assert (choice is None) == (not allowed)
    if choice is not None:
        assert choice.x in allowed


@given(st.sampled_from(Policy), scenes())
def test_a_chosen_x_may_be_used(policy: Policy, scene: Scene) -> None:
    """Whatever is chosen is open, not full, free of both parties, and rests at most for this very pair."""
    choice = _asked(policy, scene)
    usable = scene.usable()
    assert (choice is None) == (not usable)
    if choice is not None:
        assert choice.x in usable
        assert choice.first_fit == min(usable - scene.hot or usable)


@given(scenes())
def test_pack_stays_inside_the_prefix(scene: Scene) -> None:
    """Pack leaves the prefix only if nothing inside serves, and then takes the very next number that is not hot."""
    choice = _asked(Policy.PACK, scene)
    assume(choice is not None)
    assert choice is not None
    usable = scene.usable() - scene.hot or scene.usable()
    assert choice.x in usable
    if min(usable) < scene.prefix:
        assert choice.x < scene.prefix
    else:
        assert choice.x == choice.first_fit


@given(parties(_SIZE), _PHONES)
def test_barred_is_live_or_resting_for_somebody_else(party: Party, counterpart: int) -> None:
    """A party's barred X: those it is behind, and those that rest from another counterpart."""
    assert party.view().barred(counterpart) == mask(party.barred(counterpart))


@given(st.data(), scenes())
def test_refusal_counts_every_x_once(data: st.DataObject, scene: Scene) -> None:
    """Every X of the pool is counted under the first reason that fits; with nothing usable they sum to the size."""
    beyond = data.draw(st.integers(0, 2**4)) << scene.size
    reasons = refusal(
        size=scene.size,
        open_=mask(scene.open) | beyond,
        full=mask(scene.full) | beyond,
        a_barred=scene.a.view().barred(scene.b_key),
        b_barred=scene.b.view().barred(scene.a_key),
        a_live=mask(scene.a.live),
        b_live=mask(scene.b.live),
    ).counts()
    slow = dict.fromkeys(("not_open", "full", "a_busy", "b_busy", "resting", "usable"), 0)
    barred = scene.a.barred(scene.b_key) | scene.b.barred(scene.a_key)
    for x in range(scene.size):
        if x not in scene.open:
            slow["not_open"] += 1
        elif x in scene.full:
            slow["full"] += 1
        elif x in scene.a.live:
            slow["a_busy"] += 1
        elif x in scene.b.live:
            slow["b_busy"] += 1
        elif x in barred:
            slow["resting"] += 1
        else:
            slow["usable"] += 1
    assert slow.pop("usable") == len(scene.usable())
    assert reasons == slow
    if not scene.usable():
        assert sum(reasons.values()) == scene.size


def test_nothing_usable_is_refused_by_every_policy() -> None:
    """Without a usable X every policy answers nothing."""
    for policy in Policy:
        assert choose(policy, usable=0, prefix=3, a=PartyView(), b=PartyView(), b_key=1, heat=[0, 0, 0]) is None


_WINDOW_S = 10.0


@given(st.lists(st.tuples(st.floats(0.0, 25.0), st.integers(0, 50) | st.none()), max_size=40))
def test_the_prefix_remembers_one_window_and_forgets_after_three(steps: list[tuple[float, int | None]]) -> None:
    """The prefix covers every need of the last window, and none that is three windows old."""
    prefix = Prefix(window_s=_WINDOW_S)
    now = 1_000_000.0
    needs: list[tuple[float, int]] = []
    for passed, first_fit in steps:
        now += passed
        if first_fit is not None:
            prefix.note(first_fit, now)
            needs.append((now, first_fit + 1))
        recent = [need for at, need in needs if now - at < _WINDOW_S]
        remembered = [need for at, need in needs if now - at < 3 * _WINDOW_S]
        assert max(recent, default=0) <= prefix.length(now) <= max(remembered, default=0)

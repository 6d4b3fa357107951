"""Changes of lines: who is behind X while a modify is open, and after it was done, refused or given up."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from datetime import timedelta

import pytest

from broker.domain.change import LineChange
from broker.domain.options import CallOptions
from broker.domain.phone import PhoneNumber
from broker.store import calls
from broker.store.allocation import Claim
from broker.store.bindings import Binding
from broker.store.changes import OwnChange
from tests.store.pairs import GRACE_S, VAULT, A, B, C, D, Pairs, b_becomes, key
from tests.store.shop import LEASE_S, QUARANTINE_S, Shop
from tests.store.test_sharing import held_up, started

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def pairs(shop: Shop) -> Pairs:
    """Words for orders of a pair."""
    return Pairs(shop)


_PHONES = [f"+86139000001{n:02d}" for n in range(6)]


def _two(dice: random.Random, phones: list[str]) -> tuple[str, str]:
    a, b = dice.sample(phones, 2)
    return a, b


def _seen(binding: Binding) -> tuple[str, str, str]:
    assert binding.b is not None
    return binding.a.reveal(), binding.b.reveal(), binding.state


async def test_old_and_new_party_hold_the_x_until_it_is_settled(pairs: Pairs) -> None:
    """Neither of three is free on the X while the modify is open; afterwards the replaced one rests, alone."""
    shop = pairs.shop
    claim = await pairs.active()
    no = await pairs.begun(claim, b_becomes(C))
    assert await shop.slots_of(claim) == {key(A): None, key(B): None, key(C): None}
    for stranger in (A, B, C):
        assert await shop.reserve(pairs.claim(stranger, D)) == ["barred"]
    shown = await pairs.show(claim)
    assert _seen(shown) == (A, B, "active")
    assert shown.pending is not None
    assert shown.pending.b == PhoneNumber(C)
    assert await shop.wrong_books() == []
    assert await pairs.settle(claim, no, done=True) == "active"
    after = await pairs.show(claim)
    assert (_seen(after), after.pending, after.version) == ((A, C, "active"), None, shown.version + 1)
    slots = await shop.slots_of(claim)
    assert (slots[key(A)], slots[key(C)]) == (None, None)
    assert slots[key(B)] is not None
    assert QUARANTINE_S - 5 < slots[key(B)] <= QUARANTINE_S  # type: ignore[operator]
    assert await shop.reserve(pairs.claim(B, D)) == ["barred"]
    assert await shop.wrong_books() == []


async def test_refused_everything_is_as_it_was(pairs: Pairs) -> None:
    """The new party was never behind X: it is free again, or barred for as long as told."""
    shop = pairs.shop
    claim = await pairs.active()
    no = await pairs.begun(claim, b_becomes(C))
    assert await pairs.settle(claim, no, done=False) == "active"
    shown = await pairs.show(claim)
    assert (_seen(shown), shown.pending, shown.change_failed) == ((A, B, "active"), None, "platform_refused")
    await shop.active(pairs.claim(C, D))
    no = await pairs.begun(claim, LineChange(a=PhoneNumber("+8613900000009")))
    assert await pairs.settle(claim, no, done=False, bar_s=60.0) == "active"
    assert await shop.reserve(pairs.claim("+8613900000009", "+8613900000010")) == ["barred"]
    assert await shop.wrong_books() == []


async def test_a_party_that_may_not_have_the_x_is_barred(pairs: Pairs) -> None:
    """Live there with somebody else, or resting from somebody else; nothing is changed; else it may return."""
    shop = pairs.shop
    claim, other = await pairs.active(), await pairs.active(C, D)
    before = await shop.contents()
    assert (await pairs.begin(claim, b_becomes(C))).outcome == "barred"
    assert await shop.contents() == before
    await pairs.release(other)
    await pairs.end(other, 2)
    before = await shop.contents()
    assert (await pairs.begin(claim, b_becomes(C))).outcome == "barred"
    assert await shop.contents() == before
    third = "+8613900000007"
    await pairs.settle(claim, await pairs.begun(claim, b_becomes(third)), done=True)
    await pairs.settle(claim, await pairs.begun(claim, b_becomes(B)), done=True)
    assert _seen(await pairs.show(claim)) == (A, B, "active")
    assert await shop.wrong_books() == []


async def test_a_broken_off_rest_goes_on_after_a_refusal(pairs: Pairs) -> None:
    """B rested after it was replaced; a refused return does not shorten that."""
    shop = pairs.shop
    claim = await pairs.active()
    await pairs.settle(claim, await pairs.begun(claim, b_becomes(C)), done=True)
    await pairs.settle(claim, await pairs.begun(claim, b_becomes(B)), done=False)
    assert await shop.reserve(pairs.claim(B, D)) == ["barred"]
    assert await shop.wrong_books() == []


async def test_of_a_shared_line_parties_change_as_a_whole_only(pairs: Pairs) -> None:
    """Shared: options yes, parties and direction no, unless all of its orders are meant; who has ended counts not."""
    claim = await pairs.active()
    other = await pairs.joined(claim, flipped=True)
    assert (await pairs.begin(claim, b_becomes(C))).outcome == "shared"
    assert (await pairs.begin(claim, LineChange(direction="a_to_b"))).outcome == "shared"
    no = await pairs.begun(claim, LineChange(options=CallOptions(recording=True)))
    await pairs.settle(claim, no, done=True)
    assert (await pairs.show(other)).options.recording
    begun = await pairs.begin(other, LineChange(a=PhoneNumber(C)), whole=True)
    assert begun.no == no + 1
    await pairs.settle(claim, begun.no, done=True)
    assert (_seen(await pairs.show(claim)), _seen(await pairs.show(other))) == ((A, C, "active"), (C, A, "active"))
    await pairs.release(other)
    assert (await pairs.begin(claim, b_becomes(D))).outcome == "begun"
    assert _seen(await pairs.show(other)) == (C, A, "released")
    assert await pairs.shop.wrong_books() == []


async def test_what_has_ended_keeps_the_parties_that_it_had(pairs: Pairs) -> None:
    """A binding released before the change is still of the old pair, and nothing of it is live."""
    claim = await pairs.active()
    over = await pairs.joined(claim)
    await pairs.release(over)
    await pairs.settle(claim, await pairs.begun(claim, b_becomes(C)), done=True)
    assert _seen(await pairs.show(over)) == (A, B, "released")
    assert _seen(await pairs.show(claim)) == (A, C, "active")
    assert await pairs.shop.wrong_books() == []


async def test_one_change_at_a_time(pairs: Pairs) -> None:
    """While a modify is open: no other change, no move; what is the binding's own changes at once."""
    claim = await pairs.active()
    await pairs.begun(claim, b_becomes(C))
    assert (await pairs.begin(claim, b_becomes(D))).outcome == "changing"
    assert (await pairs.move(claim, 1))[0] == "changing"
    own = OwnChange(frozenset({"user_data", "ttl_s"}), 60, "new words", None)
    assert (await pairs.begin(claim, None, own=own)).outcome == "changed"
    shown = await pairs.show(claim)
    assert (shown.user_data, shown.ttl_s) == ("new words", 60)
    assert await pairs.shop.wrong_books() == []


async def test_a_pending_or_ended_binding_is_not_changed(pairs: Pairs) -> None:
    """Pending: changing; released: over; and what somebody has changed since it was read: stale."""
    claim = await pairs.shop.won(pairs.claim(A, B))
    assert (await pairs.begin(claim, b_becomes(C))).outcome == "changing"
    await pairs.shop.bind(claim)
    seen = await pairs.show(claim)
    own = OwnChange(frozenset({"user_data"}), None, "x", None)
    assert (await pairs.begin(claim, None, own=own)).outcome == "changed"
    assert (await pairs.begin(claim, b_becomes(C), seen=seen)).outcome == "stale"
    assert (await pairs.move(claim, 1, seen=seen))[0] == "stale"
    await pairs.release(claim)
    assert (await pairs.begin(claim, b_becomes(C))).outcome == "over"
    assert (await pairs.move(claim, 1))[0] == "over"


@pytest.mark.parametrize("known", [True, False, None], ids=["done", "refused", "given up"])
async def test_released_while_it_changes(pairs: Pairs, *, known: bool | None) -> None:
    """The settling sends the one unbind; who may have been behind X rests, the third too unless it surely was not."""
    shop = pairs.shop
    claim = await pairs.active()
    no = await pairs.begun(claim, b_becomes(C))
    (told,) = await pairs.release(claim)
    assert told is not None
    assert not told.to_send
    assert await pairs.open_calls(claim) == [(no, "modify")]
    assert await shop.wrong_books() == []
    assert await pairs.settle(claim, no, done=known) == "releasing"
    assert await pairs.open_calls(claim) == [(no + 1, "unbind")]
    assert await shop.wrong_books() == []
    assert await pairs.end(claim, no + 1)
    slots = await shop.slots_of(claim)
    resting = {party for party, left in slots.items() if left is not None and left > QUARANTINE_S - 5}
    assert resting == ({key(A), key(B)} if known is False else {key(A), key(B), key(C)})
    assert await shop.wrong_books() == []


async def test_a_line_that_is_lost_while_it_changes_rests_all_three(pairs: Pairs) -> None:
    """The platform does not know it any more: its bindings fail, and none of three meets a stranger there."""
    claim = await pairs.active()
    other = await pairs.joined(claim)
    begun = await pairs.begin(claim, b_becomes(C), whole=True)
    assert await pairs.end(claim, begun.no or 0, state="failed", reason="platform_lost")
    assert all(left is not None and left > QUARANTINE_S - 5 for left in (await pairs.shop.slots_of(claim)).values())
    assert len(await pairs.shop.slots_of(claim)) == 3
    assert [(await pairs.show(one)).reason for one in (claim, other)] == ["platform_lost"] * 2
    assert await pairs.shop.wrong_books() == []


async def test_who_lost_the_call_settles_nothing(pairs: Pairs) -> None:
    """An old token changes nothing, before and after the new owner has settled."""
    shop = pairs.shop
    claim = await pairs.active()
    no = await pairs.begun(claim, b_becomes(C))
    await shop.run("UPDATE platform_call SET claimable_at = clock_timestamp() WHERE state = 'open'")
    (taken,) = await calls.claim(shop.db, limit=5, lease_s=LEASE_S)
    assert (taken.op, taken.key.token) == ("modify", 2)
    assert taken.wanted is not None
    before = await shop.contents()
    assert await pairs.settle(claim, no, done=True) is None
    assert not await pairs.end(claim, no)
    assert await shop.contents() == before
    assert await pairs.settle(claim, no, done=True, token=2) == "active"
    before = await shop.contents()
    assert await pairs.settle(claim, no, done=False, token=2) is None
    assert await shop.contents() == before


async def test_a_move_takes_its_binding_only(pairs: Pairs) -> None:
    """It keeps its X until the new one is confirmed. Shared: the others stay; alone: the old line ends then."""
    shop = pairs.shop
    claim = await pairs.active()
    other = await pairs.joined(claim)
    moved, new = await pairs.move(claim, 1, b=C)
    assert moved == "won"
    before_it = await pairs.show(claim)
    assert (_seen(before_it), before_it.x_id, before_it.moving) == ((A, B, "active"), 0, True)
    assert (await pairs.begin(claim, b_becomes(D))).outcome == "changing"
    assert await shop.wrong_books() == []
    assert await shop.bind(new) is not None
    after_it = await pairs.show(claim)
    assert (_seen(after_it), after_it.x_id, after_it.moving) == ((A, C, "active"), 1, False)
    assert after_it.expires_at == before_it.expires_at
    assert (_seen(await pairs.show(other)), await pairs.open_calls(claim)) == ((A, B, "active"), [])
    await pairs.active(B, D, x=2)
    before = await shop.contents()
    assert (await pairs.move(other, 2))[0] == "barred"
    assert await shop.contents() == before
    moved, new = await pairs.move(other, 3)
    assert moved == "won"
    assert await shop.bind(new) is not None
    assert await pairs.open_calls(claim) == [(2, "unbind")]
    assert await shop.wrong_books() == []
    assert await pairs.end(claim, 2)
    assert await shop.wrong_books() == []


async def test_a_move_that_the_platform_refuses_changes_nothing(pairs: Pairs) -> None:
    """The binding stays behind its X, and may be moved again."""
    claim = await pairs.active()
    moved, new = await pairs.move(claim, 1, b=C)
    assert moved == "won"
    assert await pairs.end(new, 1, state="failed", reason="platform_rejected_request")
    stays = await pairs.show(claim)
    assert (_seen(stays), stays.x_id, stays.moving) == ((A, B, "active"), 0, False)
    assert (await pairs.move(claim, 2))[0] == "won"
    assert await pairs.shop.wrong_books() == []


async def test_a_binding_that_ends_on_its_way_leaves_nothing(pairs: Pairs) -> None:
    """Released while it moves: both lines are unbound."""
    claim = await pairs.active()
    _, new = await pairs.move(claim, 1, b=C)
    assert await pairs.release(claim) != [None]
    assert await pairs.open_calls(claim) == [(2, "unbind")]
    assert await pairs.shop.bind(new) is not None
    assert await pairs.open_calls(new) == [(2, "unbind")]
    assert await pairs.end(claim, 2)
    assert await pairs.end(new, 2)
    assert await pairs.shop.value("SELECT count(*) FROM line WHERE seat IS NOT NULL") == 0
    assert await pairs.shop.wrong_books() == []


async def test_a_line_may_change_for_ever(pairs: Pairs) -> None:
    """However many calls a line has had: it is renewed and released, and holds up nobody else's end."""
    shop = pairs.shop
    await shop.test_clock()
    claim = await pairs.active(ttl_s=60)
    await pairs.joined(claim)
    other = await pairs.active(C, D, x=1, ttl_s=60)
    await shop.run("UPDATE line SET calls = 40000 WHERE id = $1", claim.line_id)
    await shop.advance(60 + GRACE_S + 1)
    await pairs.sweep()
    assert (await pairs.show(other)).state == "released"
    assert [no for no, _ in await pairs.open_calls(claim)] == [40001]


async def test_a_life_prolonged_at_the_last_moment_is_told_at_once(pairs: Pairs) -> None:
    """In a line's last 30 seconds a longer ttl_s is a modify of the request's own; before, the sweep has time."""
    shop = pairs.shop
    await shop.test_clock()
    claim = await pairs.active(ttl_s=3600)
    longer = OwnChange(frozenset({"ttl_s"}), ttl_s=7200)
    assert (await pairs.begin(claim, None, own=longer)).outcome == "changed"
    await shop.advance(3600 - 20)
    begun = await pairs.begin(claim, None, own=longer)
    assert (begun.outcome, begun.renewal_s) == ("begun", 7200)
    assert await pairs.settle(claim, begun.no or 0, done=True) == "active"
    line = await shop.row("line", claim.line_id)
    assert line["ttl_s"] == 7200
    assert line["expires_at"] >= (await pairs.show(claim)).as_of + timedelta(seconds=7199)


async def test_a_party_that_the_platform_refused_is_barred_with_everybody(pairs: Pairs) -> None:
    """Not even the pair that was refused may try that X again at once."""
    claim = await pairs.active()
    no = await pairs.begun(claim, b_becomes(C))
    assert await pairs.settle(claim, no, done=False, bar_s=3600.0) == "active"
    assert (await pairs.begin(claim, b_becomes(C))).outcome == "barred"


async def test_two_changes_at_once(pairs: Pairs, database_url: str) -> None:
    """One begins, the other is told that the binding is another one by now."""
    claim = await pairs.active()
    seen = await pairs.show(claim)
    async with held_up(pairs.shop, database_url, claim, waiting=2):
        rivals = [asyncio.create_task(pairs.begin(claim, b_becomes(new), seen=seen)) for new in (C, D)]
    assert sorted([(await task).outcome for task in rivals]) == ["begun", "stale"]
    assert await pairs.open_calls(claim) == [(2, "modify")]
    assert await pairs.shop.wrong_books() == []


@pytest.mark.parametrize("first_in", ["change", "release"])
async def test_a_change_against_a_release(pairs: Pairs, database_url: str, first_in: str) -> None:
    """Released first: over. Changed first: the release waits for the modify. Never two open calls."""
    claim = await pairs.active()
    seen = await pairs.show(claim)
    works = [pairs.begin(claim, b_becomes(C), seen=seen), pairs.release(claim)]
    async with held_up(pairs.shop, database_url, claim, waiting=2):
        one = await started(pairs.shop, works[0 if first_in == "change" else 1], 1)
        two = await started(pairs.shop, works[1 if first_in == "change" else 0], 2)
    begun = (await one) if first_in == "change" else (await two)
    await asyncio.gather(one, two)
    assert begun.outcome == ("begun" if first_in == "change" else "over")
    assert await pairs.open_calls(claim) == [(2, "modify" if first_in == "change" else "unbind")]
    assert await pairs.shop.wrong_books() == []


@pytest.mark.parametrize("rival", ["change", "release", "move", "join", "sweep"])
@pytest.mark.parametrize("first_in", ["move", "rival"])
async def test_a_move_against_anything(pairs: Pairs, database_url: str, rival: str, first_in: str) -> None:
    """Whoever is first: each binding has one line, each line somebody who wants it or a call that ends it."""
    shop = pairs.shop
    claim = await pairs.active()
    seen = await pairs.show(claim)
    joiner = pairs.joiner(claim)

    async def rivals() -> object:
        match rival:
            case "change":
                return await pairs.begin(claim, b_becomes(C), seen=seen)
            case "release":
                return await pairs.release(claim)
            case "move":
                return await pairs.move(claim, 2, seen=seen)
            case "join":
                return await pairs.join(joiner)
            case _:
                await shop.run("UPDATE line SET sweep_at = broker_now()")
                return await pairs.sweep()

    works = [pairs.move(claim, 1, seen=seen), rivals()]
    order = works if first_in == "move" else works[::-1]
    async with held_up(shop, database_url, claim, waiting=2):
        one = await started(shop, order[0], 1)
        two = await started(shop, order[1], 2)
    await asyncio.gather(one, two)
    assert await shop.wrong_books() == []
    (told,) = await pairs.release(claim)
    if rival in {"change", "join"} and first_in == "rival":
        assert told is not None
    assert await shop.wrong_books() == []


class _Game:
    """Random acts on the lines of a few phones; ``seen`` counts what came of them."""

    def __init__(self, shop: Shop, first: Claim) -> None:
        self.shop, self.pairs, self.first = shop, Pairs(shop), first
        self.dice = random.Random(11)  # noqa: S311 - a repeatable start; the interleaving is not
        self.seen: Counter[str] = Counter()
        self.left = 900

    @property
    def enough(self) -> bool:
        """Whether what is to be seen was seen."""
        return self.left < 700 and self.seen["join joined"] > 10 and self.seen["change begun"] > 3

    async def play(self) -> None:
        """Act and look at the books, in turn."""
        acts = (self.bind, self.join, self.change, self.release, self.sweep, self.settle)
        while self.left > 0 and not self.enough:
            self.left -= 1
            await self.dice.choices(acts, (2, 3, 5, 1, 1, 4))[0]()
            assert await self.shop.wrong_books() == []

    async def own(self) -> Claim | None:
        """Any live binding, as a claim."""
        row = await self.shop.db.fetchrow(
            "SELECT b.pool_id, b.id AS binding_id, b.line_id, l.a_key, l.b_key, l.x_id FROM binding AS b"
            " JOIN line AS l ON l.id = b.line_id WHERE b.state IN ('pending', 'active') ORDER BY random() LIMIT 1"
        )
        return self.first._replace(**dict(row)) if row else None

    async def bind(self) -> None:
        claim = self.pairs.claim(*_two(self.dice, _PHONES), self.dice.randrange(4), ttl_s=600)
        self.seen["bind " + (await self.shop.reserve(claim))[0]] += 1

    async def join(self) -> None:
        if own := await self.own():
            joiner = self.pairs.joiner(own, ttl_s=self.dice.choice([60, 600, 7200]))
            self.seen["join " + (await self.pairs.join(joiner))[0]] += 1

    async def change(self) -> None:
        party = PhoneNumber(self.dice.choice(_PHONES))
        change = LineChange(a=party) if self.dice.random() < 0.5 else LineChange(b=party)
        own = await self.own()
        binding = await self.pairs.show(own) if own else None
        if own and binding and party not in {binding.a, binding.b}:
            begun = await self.pairs.begin(own, change, seen=binding, whole=self.dice.random() < 0.9)
            self.seen["change " + begun.outcome] += 1

    async def release(self) -> None:
        if own := await self.own():
            await self.pairs.release(own)

    async def sweep(self) -> None:
        await self.pairs.sweep()
        await self.shop.advance(20)

    async def settle(self) -> None:
        rows = await self.shop.db.fetch(
            "SELECT pool_id, line_id, no, token, op FROM platform_call WHERE state = 'open' ORDER BY random() LIMIT 3"
        )
        for pool_id, line_id, no, token, op in rows:
            own, good = self.first._replace(pool_id=pool_id, line_id=line_id), self.dice.random() < 0.8
            if op == "bind" and good:
                await self.shop.bind(own, no=no, token=token)
            elif op == "modify":
                await self.pairs.settle(own, no, done=good, token=token)
            else:
                await self.pairs.end(own, no, token=token, state="released" if op == "unbind" else "failed")


async def test_everything_at_once_leaves_clean_books(shop: Shop) -> None:
    """Joins, changes, settles, releases and sweeps of a few pairs, on parallel connections: never a wrong book."""
    await shop.test_clock()
    game = _Game(shop, await Pairs(shop).active(_PHONES[0], _PHONES[1], ttl_s=600))
    async with asyncio.timeout(50):
        await asyncio.gather(*(game.play() for _ in range(5)))
        while await shop.value("SELECT count(*) FROM platform_call WHERE state = 'open'"):
            await game.settle()
    assert await shop.wrong_books() == []
    assert game.enough, game.seen
    # Whatever is sealed can be opened, and is what the keys say.
    for row in await shop.db.fetch("SELECT pool_id, id, a_sealed, b_sealed, a_key, b_key FROM line"):
        where = row["pool_id"], row["id"]
        opened = [VAULT.open("line", c, *where, row[f"{c}_sealed"]) for c in "ab"]
        assert [key(phone) for phone in opened] == [row["a_key"], row["b_key"]]

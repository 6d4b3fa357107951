"""Mode X: whom a call is connected to, by the broker's books alone."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from uuid import UUID

import pytest

from broker.domain.ids import new_id
from broker.domain.options import CallOptions
from broker.domain.phone import PhoneNumber
from broker.domain.reach import Reached, Why
from broker.flows.reach import Question, ask
from broker.flows.route import Connect, Refused, Router, spot_in
from broker.store import registry
from broker.store.allocation import Claim
from broker.store.database import Database
from broker.store.registry import Registry
from tests.store.pairs import VAULT, A, B, C, D, Pairs, b_becomes
from tests.store.shop import Shop, open_shop


class Exchange:
    """A shop in some mode, its numbers, and calls through them."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.pairs = Pairs(shop)
        self.books: Registry | None = None

    async def open(self, mode: str = "x", routing: str = "pair") -> None:
        """Change the app's mode and read the configuration."""
        await self.shop.run(
            "UPDATE app SET mode = $1, secret_sealed = $2", mode, VAULT.seal("app", "secret", 0, "shop", "s")
        )
        await self.shop.run("UPDATE pool SET routing = $1", routing)
        self.books = await registry.load(self.shop.db, VAULT)

    def registry(self) -> Registry:
        """The configuration."""
        assert self.books is not None
        return self.books

    def x(self, x_id: int = 0) -> str:
        """A number of the first pool."""
        return self.registry().pools[self.shop.pool].numbers[x_id]

    async def call(self, caller: str, x_id: int = 0) -> Connect | Refused:
        """What becomes of a call."""
        return await Router(self.shop.db, VAULT, self.registry).route(self.x(x_id), caller)

    async def connected(self, caller: str, x_id: int = 0) -> Connect:
        """A call that must go through."""
        answer = await self.call(caller, x_id)
        assert isinstance(answer, Connect), answer
        return answer

    async def refused(self, caller: str, x_id: int = 0) -> tuple[Why, int]:
        """A call that must not."""
        answer = await self.call(caller, x_id)
        assert isinstance(answer, Refused), answer
        assert answer.detail
        return answer.why, answer.state_code

    async def ask(
        self, caller: str, *, digits: str | None = None, at: datetime | None = None, x_id: int = 0
    ) -> tuple[str, str] | Why:
        """Who is reached: role and number, or why nobody."""
        spot = spot_in(self.registry(), self.x(x_id))
        assert spot is not None
        found = await ask(self.shop.db, VAULT, Question(spot, PhoneNumber(caller), digits, at))
        return (found.role, found.party.reveal()) if isinstance(found, Reached) else found

    async def now(self) -> datetime:
        """The database's clock."""
        found: datetime = await self.shop.value("SELECT broker_now()")
        return found

    async def sole(self, a: str, *, extension: int = 0, x_id: int = 0, ttl_s: int = 3600) -> UUID:
        """A confirmed line of one party, as its allocation writes it."""
        line, shop = new_id(), self.shop
        await shop.run(
            "INSERT INTO line (pool_id, id, app_id, x_id, extension, seat, state, direction, calls, ttl_s, a_key,"
            " a_sealed, confirmed_at) VALUES ($1, $2, $3, $4, $5, $5, 'active', 'both', 1, $6, $7, $8, broker_now())",
            shop.pool, line, shop.app_id, x_id, extension, ttl_s, VAULT.party_key(a),
            VAULT.seal("line", "a", shop.pool, line, a),
        )  # fmt: skip
        await shop.run(
            "INSERT INTO binding (pool_id, id, app_id, caller_id, line_id, state, ttl_s, created_at, expires_at,"
            " user_data) VALUES ($1, $2, $3, $4, $2, 'active', $5, broker_now(),"
            " broker_now() + make_interval(secs => $5::integer), 'words')",
            shop.pool, line, shop.app_id, shop.caller_id, ttl_s,
        )  # fmt: skip
        await shop.run(
            "INSERT INTO place (pool_id, x_id, extension, until, line_id) VALUES ($1, $2, $3, 'infinity', $4)"
            " ON CONFLICT (pool_id, x_id, extension) DO UPDATE SET until = excluded.until, line_id = excluded.line_id",
            shop.pool, x_id, extension, line,
        )  # fmt: skip
        return line

    async def stop_clock(self, at: datetime) -> None:
        """From now on it is this moment."""
        await self.shop.run(
            "CREATE OR REPLACE FUNCTION broker_now() RETURNS timestamptz LANGUAGE sql VOLATILE PARALLEL SAFE"
            f" AS $$ SELECT '{at.isoformat()}'::timestamptz $$"
        )

    async def end(self, claim: Claim) -> None:
        """Release a binding and confirm that."""
        await self.pairs.release(claim)
        assert await self.pairs.end(claim, 2)


@pytest.fixture
async def exchange(database_url: str) -> AsyncIterator[Exchange]:
    """Mode X with pairs, on the test clock."""
    db = Database(database_url, connections=4, timeout_s=20)
    await db.open()
    shop = await open_shop(db)
    await shop.test_clock()
    made = Exchange(shop)
    await made.open()
    yield made
    await db.close()


async def test_a_pair_reaches_each_other(exchange: Exchange) -> None:
    """Either reaches the other, who sees X; the binding's words come with it, and nothing else is asked for."""
    claim = await exchange.pairs.active()
    for caller, callee in ((A, B), (B, A)):
        found = await exchange.connected(caller)
        assert found == Connect(
            pool_id=claim.pool_id, line_id=claim.line_id, callee=found.callee, display=exchange.x(), max_call_minutes=0,
            recording=False, hint_tone=None, wait_tone=None, last_minute_tone=None, bindings=(claim.binding_id,),
            user_data=("their words",),
        )  # fmt: skip
        assert found.callee.reveal() == callee
        assert callee not in repr(found)


async def test_options_of_the_call(exchange: Exchange) -> None:
    """Recording, limits and tones are the line's; the waiting tone is the dialling side's."""
    options = CallOptions(
        recording=True, hint_tone="hint.wav", max_call_minutes=5, last_minute_tone="last.wav", caller_tone="a.wav",
        callee_tone="b.wav", display="caller",
    )  # fmt: skip
    claim = await exchange.pairs.active()
    await exchange.shop.run("UPDATE line SET options = $1 WHERE id = $2", options.to_text(), claim.line_id)
    by_a, by_b = await exchange.connected(A), await exchange.connected(B)
    assert (by_a.wait_tone, by_a.display) == ("a.wav", exchange.x())
    assert (by_b.wait_tone, by_b.display) == ("b.wav", B)
    for found in (by_a, by_b):
        assert (found.recording, found.hint_tone) == (True, "hint.wav")
        assert (found.max_call_minutes, found.last_minute_tone) == (5, "last.wav")
    bare = dataclasses.replace(options, recording=False, max_call_minutes=0)
    await exchange.shop.run("UPDATE line SET options = $1 WHERE id = $2", bare.to_text(), claim.line_id)
    found = await exchange.connected(A)
    assert (found.recording, found.hint_tone, found.max_call_minutes, found.last_minute_tone) == (False, None, 0, None)


async def test_strangers_reach_nobody(exchange: Exchange) -> None:
    """A third party, a withheld number, a party on another X, and any number that is not ours of mode X."""
    await exchange.pairs.active()
    await exchange.pairs.active(C, D, 1)
    assert await exchange.refused(C) == (Why.PARTY_UNKNOWN, 8014)
    assert await exchange.refused("") == (Why.PARTY_UNKNOWN, 8014)
    assert await exchange.refused(A, 2) == (Why.PARTY_UNKNOWN, 8014)
    router = Router(exchange.shop.db, VAULT, exchange.registry)
    nowhere = await router.route("+8613800000000", A)
    assert isinstance(nowhere, Refused)
    assert nowhere.why is Why.NO_SUCH_X
    await exchange.open("axb")
    assert await exchange.refused(A) == (Why.NO_SUCH_X, 8014)


async def test_a_key_alone_selects_nobody(exchange: Exchange) -> None:
    """Somebody whose key is that of a party reaches nobody: the numbers are compared."""
    claim = await exchange.pairs.active()
    await exchange.shop.run(
        "UPDATE slot SET party_key = $1 WHERE line_id = $2 AND party_key = $3", VAULT.party_key(C), claim.line_id,
        VAULT.party_key(A),
    )  # fmt: skip
    assert await exchange.refused(C) == (Why.PARTY_UNKNOWN, 8014)


@pytest.mark.parametrize(("direction", "caller", "other"), [("a_to_b", A, B), ("b_to_a", B, A)])
async def test_directions(exchange: Exchange, direction: str, caller: str, other: str) -> None:
    """Only the allowed side is put through."""
    claim = await exchange.pairs.active()
    await exchange.shop.run("UPDATE line SET direction = $1 WHERE id = $2", direction, claim.line_id)
    assert (await exchange.connected(caller)).callee.reveal() == other
    assert await exchange.refused(other) == (Why.DIRECTION, 8016)


async def test_expiry_to_the_second(exchange: Exchange) -> None:
    """A binding reaches somebody to its last moment and nobody from its end on, before any sweep has looked."""
    claim = await exchange.pairs.active(ttl_s=60)
    longer = await exchange.pairs.joined(claim, ttl_s=90)
    moment = timedelta(microseconds=1)
    first, last = [(await exchange.shop.row("binding", one.binding_id))["expires_at"] for one in (claim, longer)]
    await exchange.stop_clock(first - moment)
    assert set((await exchange.connected(A)).bindings) == {claim.binding_id, longer.binding_id}
    for at in (first, last - moment):
        await exchange.stop_clock(at)
        assert (await exchange.connected(B)).bindings == (longer.binding_id,)
    await exchange.stop_clock(last)
    assert await exchange.refused(A) == (Why.EXPIRED, 8014)
    assert (await exchange.shop.row("line", claim.line_id))["state"] == "active"


async def test_not_yet_and_not_any_more(exchange: Exchange) -> None:
    """What is pending, is being released or was released reaches nobody."""
    claim = await exchange.shop.won(exchange.pairs.claim(A, B))
    assert await exchange.refused(A) == (Why.NOT_BOUND, 8014)
    await exchange.shop.bind(claim)
    await exchange.connected(A)
    await exchange.pairs.release(claim)
    assert await exchange.refused(A) == (Why.NOT_BOUND, 8014)
    await exchange.pairs.end(claim, 2)
    assert await exchange.refused(A) == (Why.NOT_BOUND, 8014)


async def test_while_a_party_is_exchanged(exchange: Exchange) -> None:
    """Until the change is settled the old party is reached and the new one is nobody; then the other way round."""
    claim = await exchange.pairs.active()
    no = await exchange.pairs.begun(claim, b_becomes(C))
    assert (await exchange.connected(A)).callee.reveal() == B
    assert await exchange.refused(C) == (Why.PARTY_UNKNOWN, 8014)
    await exchange.pairs.settle(claim, no, done=True)
    assert (await exchange.connected(A)).callee.reveal() == C
    assert (await exchange.connected(C)).callee.reveal() == A
    assert (await exchange.refused(B))[0] is Why.PARTY_UNKNOWN


async def test_one_party_behind_x(exchange: Exchange) -> None:
    """Anybody reaches A; A reaches the temporary callee while that lives, and nobody else."""
    await exchange.open(routing="one")
    assert await exchange.refused(B) == (Why.NOT_BOUND, 8014)
    line = await exchange.sole(A)
    for caller in (B, C, ""):
        assert (await exchange.connected(caller)).callee.reveal() == A
    assert await exchange.refused(A) == (Why.NO_CALLEE, 8013)
    await exchange.shop.run(
        "UPDATE line SET callee_sealed = $1, callee_user_data = 'delivery',"
        " callee_until = broker_now() + interval '1 minute' WHERE id = $2",
        VAULT.seal("line", "callee", exchange.shop.pool, line, D), line,
    )  # fmt: skip
    found = await exchange.connected(A)
    assert (found.callee.reveal(), found.user_data, found.display) == (D, ("delivery",), exchange.x())
    assert (await exchange.connected(D)).user_data == ("words",)
    await exchange.shop.advance(60)
    assert await exchange.refused(A) == (Why.NO_CALLEE, 8013)
    await exchange.shop.run("UPDATE line SET direction = 'a_to_b'")
    assert await exchange.refused(B) == (Why.DIRECTION, 8016)
    await exchange.shop.advance(3600)
    assert await exchange.refused(B) == (Why.EXPIRED, 8014)


async def test_who_is_reached_in_other_modes(exchange: Exchange) -> None:
    """The same question for AXB, AX, AXE and AXYB: what the platform would do, as far as it can be known."""
    await exchange.open("axb")
    claim = await exchange.shop.won(exchange.pairs.claim(A, B))
    assert await exchange.ask(A) is Why.PENDING
    await exchange.shop.bind(claim)
    assert await exchange.ask(A) == ("b", B)
    assert await exchange.ask(C) is Why.PARTY_UNKNOWN
    await exchange.pairs.release(claim)
    assert await exchange.ask(A) is Why.RELEASING
    await exchange.open("ax")
    await exchange.sole(C, x_id=1)
    assert await exchange.ask(B, x_id=1) == ("a", C)
    assert await exchange.ask(C, x_id=1) is Why.NO_CALLEE
    await exchange.open("axyb")
    assert await exchange.ask(B, x_id=1) == ("a", C)
    assert await exchange.ask(C, x_id=1) is Why.OWN_NUMBER
    await exchange.open("axe")
    await exchange.sole(D, x_id=2, extension=17)
    assert await exchange.ask(B, x_id=2, digits="0017") == ("a", D)
    assert await exchange.ask(B, x_id=2, digits="0018") is Why.NOT_BOUND
    assert await exchange.ask(B, x_id=2, digits="17") is Why.NOT_BOUND
    assert await exchange.ask(B, x_id=2) is Why.DIGITS_MISSING
    assert await exchange.ask(D, x_id=2) is Why.LAST_CALLER


async def test_who_was_reached(exchange: Exchange) -> None:
    """At each moment of a line's life, and of the one that came after it on the same X, the answer is what it was."""
    moments = [await exchange.now()]

    async def passed() -> None:
        moments.append(await exchange.now())
        await exchange.shop.advance(10)

    claim = await exchange.pairs.active()
    await passed()
    no = await exchange.pairs.begun(claim, b_becomes(C))
    await exchange.pairs.settle(claim, no, done=True)
    await passed()
    await exchange.pairs.release(claim)
    await exchange.pairs.end(claim, 3)
    await passed()
    await exchange.shop.advance(601)
    later = await exchange.pairs.active(A, D)
    await passed()
    asked = [await exchange.ask(A, at=at) for at in moments]
    assert asked == [Why.PARTY_UNKNOWN, ("b", B), ("b", C), Why.PARTY_UNKNOWN, ("b", D)]
    assert [await exchange.ask(caller, at=moments[1]) for caller in (B, C, D)] == [
        ("a", A), Why.PARTY_UNKNOWN, Why.PARTY_UNKNOWN,
    ]  # fmt: skip
    await exchange.end(later)
    assert await exchange.ask(D, at=moments[-1]) == ("a", A)


async def test_who_was_reached_alone_on_an_x(exchange: Exchange) -> None:
    """The same for a whole X; to whom A's own call went is not kept."""
    await exchange.open("ax")
    line = await exchange.sole(A)
    during = await exchange.now()
    await exchange.shop.run("UPDATE line SET state = 'released', seat = NULL WHERE id = $1", line)
    await exchange.shop.advance(5)
    assert await exchange.ask(B, at=during) == ("a", A)
    assert await exchange.ask(A, at=during) is Why.CALLEE_NOT_KEPT
    assert await exchange.ask(B) is Why.NOT_BOUND
    assert await exchange.ask(B, at=await exchange.now() - timedelta(seconds=1)) is Why.NOT_BOUND
    assert await exchange.ask(B, at=during - timedelta(days=100)) is Why.NOT_KEPT


async def test_a_y_leads_to_its_b(exchange: Exchange) -> None:
    """A dials the Y that a B was given and reaches that B; for anybody else the number is nobody's."""
    await exchange.open("axyb")
    line, peer, shop = await exchange.sole(A), new_id(), exchange.shop
    await shop.run(
        "INSERT INTO peer (pool_id, id, app_id, binding_id, line_id, state, b_key, b_sealed, y, ttl_s, created_at,"
        " confirmed_at) VALUES ($1, $2, $3, $4, $4, 'active', $5, $6, $7, 0, broker_now(), broker_now())",
        shop.pool, peer, shop.app_id, line, VAULT.party_key(B), VAULT.seal("peer", "b", shop.pool, peer, B),
        exchange.x(1),
    )  # fmt: skip
    assert await exchange.ask(A, x_id=1) == ("b", B)
    assert await exchange.ask(C, x_id=1) is Why.NOT_BOUND
    assert await exchange.ask(B) == ("a", A)
    at = await exchange.now()
    await shop.run("UPDATE line SET direction = 'b_to_a'")
    assert await exchange.ask(A, x_id=1) is Why.DIRECTION
    await shop.run("UPDATE peer SET expires_at = broker_now()")
    assert await exchange.ask(A, x_id=1) is Why.NOT_BOUND
    assert await exchange.ask(C, x_id=1, at=at) is Why.NOT_KEPT

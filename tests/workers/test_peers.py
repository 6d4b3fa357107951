"""Peers of a line whose X the platform picked: one Y for each B, whatever is lost, and none that outlives its line."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import pytest

from broker.clock import boottime
from broker.domain.phone import PhoneNumber
from broker.errors import Conflict, Problem
from broker.flows.bind import Accepted
from broker.flows.peers import Peers, Wanted
from broker.platform.protocol import Answer, BindPeer, Verdict
from broker.store import peers
from broker.store.peers import Peer
from tests.emulator.support import Emulated
from tests.workers.axyb import LOST, X1, X2, X3, FakeAxyb, axyb, bind_a
from tests.workers.rig import Instance, eventually, forget_lease

A, B, C = "+8613900000001", "+8613900000002", "+8613900000003"
Y1, Y2, Y3, Y4, Y5, Y6, Y7 = (f"+861709999000{place}" for place in range(1, 8))


class Shop:
    """One bound A, and verbs about its peers."""

    def __init__(self, one: Instance, fake: FakeAxyb, made: Accepted) -> None:
        self.one, self.fake, self.made = one, fake, made
        self.peers = Peers(one.db, one.vault, one.dispatcher, one.sender, lease_s=one.timing.lease_s)

    async def add(self, b: str, *, ttl_s: int = 0, wait: bool = True) -> tuple[Peer, bool]:
        """Ask for a Y."""
        binding = await self.one.show(self.made)
        wanted = Wanted(PhoneNumber(b), ttl_s)
        return await self.peers.add(self.one.app, binding, wanted, deadline=boottime() + 8, wait=wait)

    async def drop(self, peer: Peer, *, wait: bool = True) -> Peer:
        """Give it back."""
        return await self.peers.drop(await self.one.show(self.made), peer, deadline=boottime() + 8, wait=wait)

    async def state(self, peer: Peer, *wanted: str) -> Peer:
        """Wait until a peer is in one of these states."""

        async def look() -> Peer | None:
            found = await self.peers.one((peer.pool_id, peer.id))
            return found if found is not None and found.state in wanted else None

        found = await eventually(look)
        assert found is not None
        return found

    async def states(self) -> list[str]:
        """All peers, oldest first."""
        return [row["state"] for row in await self.one.rows("SELECT state FROM peer ORDER BY id")]

    def there(self) -> list[tuple[str, str]]:
        """(B, Y) as the platform has them."""
        return [(one.b, one.y) for every in self.fake.peers.values() for one in every]


@contextlib.asynccontextmanager
async def shop(dsn: str, emu: Emulated, *numbers: str, absence_s: float = 0.3) -> AsyncIterator[Shop]:
    """An A behind X1; the platform picks ``numbers`` for its peers."""
    fake = FakeAxyb(X1, *numbers)
    async with axyb(dsn, emu, fake, absence_s=absence_s) as one:
        yield Shop(one, fake, await bind_a(one, A))


def lost(fake: FakeAxyb, *, done: bool) -> Callable[[BindPeer], Answer]:
    """Carry a peer's bind out, or not, and do not answer."""

    def script(request: BindPeer) -> Answer:
        if done:
            fake.put_peer(request.subscription_id, request.b, request.token)
        return LOST

    return script


async def test_each_b_gets_its_y(seeded: str, emu: Emulated) -> None:
    """A Y that nobody had becomes the pool's; the lifetime is the one asked for, or that of the line."""
    async with shop(seeded, emu, Y1, X2) as at:
        (first, new), (second, _) = await at.add(B, ttl_s=120), await at.add(C)
        assert new
        assert [(one.state, one.y, one.ttl_s) for one in (first, second)] == [("active", Y1, 120), ("active", X2, 0)]
        line = await at.one.rows("SELECT expires_at, changing FROM line")
        assert second.expires_at == line[0]["expires_at"]
        assert not line[0]["changing"]
        rows = await at.one.rows("SELECT state_reason FROM x_number WHERE number = $1", Y1)
        assert rows == [{"state_reason": "given out by the platform"}]
        assert (await at.one.show(at.made)).pending is None


async def test_a_b_that_has_one_keeps_it(seeded: str, emu: Emulated) -> None:
    """Twin requests, at the same time or later, end with one Y and one request to the platform."""
    async with shop(seeded, emu, Y1, Y2) as at:
        both = await asyncio.gather(at.add(B), at.add(B))
        assert sorted(new for _, new in both) == [False, True]
        assert {peer.id for peer, _ in both} == {both[0][0].id}
        assert (await at.add(B))[0].y == Y1
        assert at.fake.ops("bind_peer") == 1


async def test_lifetime_is_cut_to_what_is_left(seeded: str, emu: Emulated) -> None:
    """A peer that would outlive the line lives as long as that."""
    async with shop(seeded, emu, Y1) as at:
        peer, _ = await at.add(B, ttl_s=7200)
        assert peer.ttl_s == 0
        request = at.fake.requests[-1]
        assert isinstance(request, BindPeer)
        assert request.ttl_s == 0


async def test_one_call_of_a_line_at_a_time(seeded: str, emu: Emulated) -> None:
    """Many at once are served one after the other, each with its own Y."""
    numbers = tuple(f"+861709999{place:04}" for place in range(12))
    async with shop(seeded, emu, *numbers) as at:
        made = await asyncio.gather(*(at.add(f"+86138000000{place:02}") for place in range(12)))
        assert {peer.y for peer, _ in made} == set(numbers)
        overlaps = await at.one.rows(
            "SELECT 1 FROM platform_call AS a JOIN platform_call AS b USING (pool_id, line_id)"
            " WHERE a.no < b.no AND b.created_at < a.settled_at"
        )
        assert overlaps == []


@pytest.mark.parametrize("done", [True, False], ids=["done", "lost"])
async def test_lost_answer(seeded: str, emu: Emulated, *, done: bool) -> None:
    """After an unknown bind B is looked up: its Y is adopted, or B is missing well after and it is sent again."""
    async with shop(seeded, emu, Y1, Y2) as at:
        at.fake.peer_script.append(lost(at.fake, done=done))
        peer, _ = await at.add(B)
        assert (peer.state, peer.y) == ("active", Y1)
        assert at.there() == [(B, Y1)]
        assert at.fake.ops("bind_peer") == (1 if done else 2)
        if not done:
            second = [op for op, _ in at.fake.sent].index("bind_peer", 2)
            assert [op for op, _ in at.fake.sent[:second]].count("lookup") == 2


async def test_absence_from_a_full_list_proves_nothing(seeded: str, emu: Emulated) -> None:
    """Where the platform shows no more peers than five, one that is missing is given up and not sent again."""
    async with shop(seeded, emu, Y1, Y2, Y3, Y4, Y5, Y6) as at:
        for place in range(5):
            await at.add(f"+861380000000{place}")
        at.fake.peer_script.append(lost(at.fake, done=False))
        with pytest.raises(Problem) as refused:
            await at.add(B)
        assert refused.value.code == "outcome_unknown"
        assert at.fake.ops("bind_peer") == 6


async def test_refused_because_b_has_one(seeded: str, emu: Emulated) -> None:
    """The Y that the platform gave B by itself, when B dialled X, is the peer's."""
    async with shop(seeded, emu, Y1) as at:
        at.fake.put_peer(next(iter(at.fake.bound)), B)
        at.fake.peer_script.append(lambda _: Answer(Verdict.CONFLICT, 403, "1012010"))
        peer, new = await at.add(B)
        assert (peer.y, new) == (Y1, True)


async def test_peers_of_the_platforms_own_making(seeded: str, emu: Emulated) -> None:
    """They are found when somebody looks, and end as any other."""
    async with shop(seeded, emu, Y1, Y2) as at:
        await at.add(C)
        at.fake.put_peer(next(iter(at.fake.bound)), B)
        listed = await at.peers.all_of(await at.one.show(at.made), deadline=boottime() + 5)
        assert listed.complete
        assert [(one.b.reveal(), one.y, one.found) for one in listed.peers] == [(B, Y2, True), (C, Y1, False)]
        again = await at.peers.all_of(await at.one.show(at.made), deadline=boottime() + 5)
        assert len(again.peers) == 2
        assert (await at.drop(listed.peers[0])).state == "released"
        assert at.there() == [(C, Y1)]


async def test_refused_peer(seeded: str, emu: Emulated) -> None:
    """What the platform refuses has failed, and B may ask again."""
    async with shop(seeded, emu, Y1) as at:
        at.fake.peer_script.append(lambda _: Answer(Verdict.CAPACITY, 403, "1012008"))
        with pytest.raises(Problem) as refused:
            await at.add(B)
        assert refused.value.code == "pool_exhausted"
        assert (await at.add(B))[0].state == "active"
        assert await at.states() == ["failed", "active"]


async def test_given_back(seeded: str, emu: Emulated) -> None:
    """The Y is taken away, an answer that is lost is asked for again, and B may have another one."""
    async with shop(seeded, emu, Y1, Y2) as at:
        peer, _ = await at.add(B)
        dropped = await at.drop(peer)
        assert (dropped.state, dropped.reason) == ("released", "released")
        assert at.there() == []
        assert (await at.drop(dropped)).state == "released"
        assert at.fake.ops("unbind_peer") == 1
        assert (await at.add(B))[0].y == Y2


async def test_given_back_while_it_is_made(seeded: str, emu: Emulated) -> None:
    """A peer that is released while its bind is under way is taken away as soon as it is there."""
    async with shop(seeded, emu, Y1) as at:
        at.fake.open.clear()
        peer, _ = await at.add(B, wait=False)

        async def sent() -> bool:
            return at.fake.ops("bind_peer") == 1

        await eventually(sent)
        assert (await at.drop(peer, wait=False)).state == "releasing"
        at.fake.open.set()
        assert (await at.state(peer, "released")).reason == "released"
        assert at.there() == []
        assert at.fake.ops("unbind_peer") == 1


async def test_given_back_before_its_turn(seeded: str, emu: Emulated) -> None:
    """A peer that only waits for another's call ends without a call of its own."""
    async with shop(seeded, emu, Y1, Y2) as at:
        at.fake.open.clear()
        await at.add(B, wait=False)
        waiting, _ = await at.add(C, wait=False)
        assert (await at.drop(waiting)).state == "released"
        at.fake.open.set()
        await at.one.idle()
        assert at.there() == [(B, Y1)]


async def test_the_end_of_the_binding_takes_peers_along(seeded: str, emu: Emulated) -> None:
    """With the release of the binding its peers end without a call of their own, and there are no new ones."""
    async with shop(seeded, emu, Y1, Y2) as at:
        both = [(await at.add(b))[0] for b in (B, C)]
        await at.one.release(at.made)
        for peer in both:
            assert (await at.state(peer, "released")).reason == "binding_ended"
        assert at.fake.ops("unbind_peer") == 0
        with pytest.raises(Conflict) as refused:
            await at.add(B)
        assert refused.value.code == "binding_ended"


async def test_a_binding_released_while_a_peer_is_made(seeded: str, emu: Emulated) -> None:
    """The unbind waits for the peer's call, and goes out with its settling."""
    async with shop(seeded, emu, Y1, absence_s=1.0) as at:
        at.fake.peer_script.append(lost(at.fake, done=False))
        peer, _ = await at.add(B, wait=False)

        async def looked() -> bool:
            return at.fake.ops("lookup") >= 1

        await eventually(looked)
        assert (await at.one.release(at.made)).state == "released"
        assert (await at.state(peer, "failed")).reason == "binding_ended"
        assert [op for op, _ in at.fake.sent if op.startswith(("bind", "unbind"))] == ["bind", "bind_peer", "unbind"]


@pytest.mark.parametrize("done", [True, False], ids=["done", "lost"])
async def test_taken_over(seeded: str, emu: Emulated, *, done: bool) -> None:
    """A process that died with a peer's bind under way leaves one Y: adopted, or asked for after a look."""
    async with shop(seeded, emu, Y1, Y2) as at:

        def dies(request: BindPeer) -> Answer:
            lost(at.fake, done=done)(request)
            forget_lease(at.one.only_call())
            at.one.only_call().lost = True
            return LOST

        at.fake.peer_script.append(dies)
        peer, _ = await at.add(B, wait=False)
        await at.one.idle()
        await at.one.end_leases()
        async with axyb(seeded, emu, at.fake) as second:
            await second.rescue()
            assert (await at.state(peer, "active")).y == Y1
        assert at.there() == [(B, Y1)]


async def test_what_is_found_late_ends_when_the_platform_ends_it(seeded: str, emu: Emulated) -> None:
    """The time of a Y that a dead process had asked for began when it was asked for."""
    async with shop(seeded, emu, Y1) as at:

        def dies(request: BindPeer) -> Answer:
            lost(at.fake, done=True)(request)
            forget_lease(at.one.only_call())
            at.one.only_call().lost = True
            return LOST

        at.fake.peer_script.append(dies)
        peer, _ = await at.add(B, ttl_s=600, wait=False)
        await at.one.idle()
        await at.one.db.fetch("UPDATE platform_call SET created_at = created_at - interval '100 seconds'")
        await at.one.end_leases()
        await at.one.rescue()
        await at.state(peer, "active")
        (call,) = await at.one.rows("SELECT created_at FROM platform_call WHERE op = 'bind_peer'")

        async def dated() -> bool:
            (row,) = await at.one.rows("SELECT expires_at FROM peer")
            return bool(row["expires_at"] == call["created_at"] + timedelta(seconds=600))

        await eventually(dated)


async def test_who_waits_for_a_dead_process_is_served(seeded: str, emu: Emulated) -> None:
    """A peer behind a call whose owner died gets its turn from whoever takes that call over."""
    async with shop(seeded, emu, Y1, Y2) as at:

        def dies(_: BindPeer) -> Answer:
            forget_lease(at.one.only_call())
            at.one.only_call().lost = True
            return LOST

        at.fake.peer_script.append(dies)
        first, _ = await at.add(B, wait=False)
        second, _ = await at.add(C, wait=False)
        await at.one.idle()
        await at.one.end_leases()
        await at.one.rescue()
        assert (await at.state(first, "active")).y != (await at.state(second, "active")).y


async def _to_another_app(at: Shop, y: str) -> None:
    await at.one.db.fetch(
        "INSERT INTO app (name, mode, app_key, secret_sealed, base_url)"
        " SELECT 'other', mode, 'other', secret_sealed, base_url FROM app"
    )
    await at.one.db.fetch(
        "INSERT INTO pool (app_id, name, area_code) SELECT id, 'theirs', '0755' FROM app WHERE name = 'other'"
    )
    await at.one.db.fetch("INSERT INTO x_number (pool_id, x_id, number) SELECT max(id), 0, $1 FROM pool", y)


async def test_a_y_of_another_app_is_never_handed_out(seeded: str, emu: Emulated) -> None:
    """A Y that is another app's in our books is taken away again, and the peer fails."""
    async with shop(seeded, emu, Y1) as at:
        await _to_another_app(at, Y1)
        with pytest.raises(Problem) as refused:
            await at.add(B)
        assert refused.value.code == "platform_refused"
        assert at.there() == []


async def test_nor_is_one_of_the_platforms_own_making(seeded: str, emu: Emulated) -> None:
    """A Y that is another app's in our books is not shown, though the platform lists it."""
    async with shop(seeded, emu, Y1) as at:
        await _to_another_app(at, Y1)
        at.fake.put_peer(next(iter(at.fake.bound)), B)
        listed = await at.peers.all_of(await at.one.show(at.made), deadline=boottime() + 5)
        assert listed.peers == []


async def test_ends_by_itself(seeded: str, emu: Emulated) -> None:
    """The platform ends a Y at its time, and so do our books; B may ask again at once."""
    async with shop(seeded, emu, Y1, Y2, X3) as at:
        peer, _ = await at.add(B, ttl_s=60)
        await at.add(C, ttl_s=60)
        await at.one.db.fetch("UPDATE peer SET expires_at = clock_timestamp() - interval '1 second'")
        assert (await at.add(B))[0].y == X3
        assert (await at.state(peer, "released")).reason == "expired"
        assert await peers.sweep(at.one.db, limit=10) == 1
        assert await at.states() == ["released", "released", "active"]
        assert at.fake.ops("unbind_peer") == 0

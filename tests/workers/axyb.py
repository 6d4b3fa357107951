"""A platform of mode AXYB in memory, which picks its numbers from a list, and an instance of the broker before it."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any, cast

from broker.clock import boottime
from broker.domain.choice import Policy
from broker.domain.options import DEFAULT, CallOptions
from broker.domain.phone import PhoneNumber
from broker.flows.bind import Accepted, bind
from broker.flows.order import BindOrder
from broker.flows.picked import Unpicked
from broker.platform.plain import Plain
from broker.platform.protocol import Answer, BindLine, BindPeer, Permit, PlatformLine, Verdict
from broker.store.database import Database
from tests.emulator.support import Emulated
from tests.workers.rig import Instance, instance

X1, X2, X3 = (f"+8617000000{101 + place}" for place in range(3))  # as the rig seeds them
GONE = Answer(Verdict.NOT_FOUND, 403, "1016001")
LOST = Answer(Verdict.UNKNOWN, detail="no answer")


class FakeAxyb(Plain):
    """Conforms to :class:`broker.platform.protocol.Platform`; one fake serves one app.

    ``numbers`` are what it picks next, X and Y. ``script`` and ``peer_script`` hold what the next binds answer
    instead of being carried out (None: carry this one out). ``sent`` is every request that left; binds of peers wait
    there until ``open``.
    """

    def __init__(self, *numbers: str) -> None:
        self.numbers = deque(numbers)
        self.bound: dict[str, PlatformLine] = {}
        self.peers: dict[str, list[PlatformLine]] = {}
        self.script: deque[Callable[[BindLine], Answer | None]] = deque()
        self.peer_script: deque[Callable[[BindPeer], Answer | None]] = deque()
        self.requests: list[BindLine | BindPeer] = []
        self.sent: list[tuple[str, str]] = []
        self.open = asyncio.Event()
        self.open.set()

    def ops(self, op: str) -> int:
        """How many requests of one kind left."""
        return sum(one == op for one, _ in self.sent)

    def put(self, request: BindLine) -> PlatformLine:
        """Give A the next number."""
        made = PlatformLine(
            f"ax-{len(self.sent)}-{len(self.numbers)}",
            self.numbers.popleft(),
            request.a,
            token=request.token,
            ttl_s=request.ttl_s,
        )
        self.bound[made.subscription_id] = made
        return made

    def put_peer(self, subscription_id: str, b: str, token: str = "") -> PlatformLine:
        """Give B the next number as its Y."""
        made = replace(self.bound[subscription_id], b=b, y=self.numbers.popleft(), token=token)
        self.peers.setdefault(subscription_id, []).append(made)
        return made

    async def bind(self, request: BindLine, *, permit: Permit, timeout_s: float) -> Answer:
        """Pick an X, or do what the script says."""
        del timeout_s
        if not permit():
            return Answer(Verdict.WITHHELD)
        self.sent.append(("bind", request.a))
        self.requests.append(request)
        scripted = self.script.popleft()(request) if self.script else None
        return scripted or Answer(Verdict.DONE, 200, "0", bindings=(self.put(request),), total=1)

    async def unbind(self, subscription_id: str, *, permit: Permit, timeout_s: float) -> Answer:
        """End one with its peers."""
        del timeout_s
        if not permit():
            return Answer(Verdict.WITHHELD)
        self.sent.append(("unbind", subscription_id))
        self.peers.pop(subscription_id, None)
        return Answer(Verdict.DONE, 200, "0") if self.bound.pop(subscription_id, None) else GONE

    async def query(
        self, *, x: str, a: str = "", b: str = "", extension: str = "", page: int = 1, permit: Permit, timeout_s: float
    ) -> Answer:
        """List who is behind ``x``."""
        del a, b, extension, page, timeout_s
        if not permit():
            return Answer(Verdict.WITHHELD)
        self.sent.append(("query", x))
        return self._listed([one for one in self.bound.values() if one.x == x])

    async def lookup(self, subscription_id: str, *, permit: Permit, timeout_s: float) -> Answer:
        """List one with its peers."""
        del timeout_s
        if not permit():
            return Answer(Verdict.WITHHELD)
        self.sent.append(("lookup", subscription_id))
        return self._listed([one for one in self.bound.values() if one.subscription_id == subscription_id])

    async def bind_peer(self, request: BindPeer, *, permit: Permit, timeout_s: float) -> Answer:
        """Give B a Y, or do what the script says."""
        del timeout_s
        if not permit():
            return Answer(Verdict.WITHHELD)
        self.sent.append(("bind_peer", request.b))
        self.requests.append(request)
        await self.open.wait()
        scripted = self.peer_script.popleft()(request) if self.peer_script else None
        if scripted is not None:
            return scripted
        if request.subscription_id not in self.bound:
            return GONE
        made = self.put_peer(request.subscription_id, request.b, request.token)
        return Answer(Verdict.DONE, 200, "0", bindings=(made,), total=1)

    async def unbind_peer(self, subscription_id: str, *, y: str, permit: Permit, timeout_s: float) -> Answer:
        """Take one Y away."""
        del timeout_s
        if not permit():
            return Answer(Verdict.WITHHELD)
        self.sent.append(("unbind_peer", y))
        there = self.peers.get(subscription_id, [])
        self.peers[subscription_id] = [one for one in there if one.y != y]
        return Answer(Verdict.DONE, 200, "0") if len(there) > len(self.peers[subscription_id]) else GONE

    def set_clock_offset(self, seconds: float) -> None:
        """Ignore: nothing is signed."""

    async def close(self) -> None:
        """Nothing is open."""

    def _listed(self, found: list[PlatformLine]) -> Answer:
        every = tuple(each for one in found for each in (one, *self.peers.get(one.subscription_id, [])))
        return Answer(Verdict.DONE, 200, "0", bindings=every, total=len(every)) if every else GONE


@contextlib.asynccontextmanager
async def axyb(dsn: str, emu: Emulated, fake: FakeAxyb, **changed: Any) -> AsyncIterator[Instance]:
    """Run an instance whose only app is of mode AXYB, before ``fake``."""
    db = Database(dsn, connections=1, timeout_s=5)
    await db.open()
    await db.fetch("UPDATE app SET mode = 'axyb'")
    await db.close()
    async with instance(dsn, emu, platform=lambda _: fake, **changed) as one:
        yield one


async def bind_a(
    one: Instance,
    a: str,
    *,
    ttl_s: int = 3600,
    within_s: float = 10.0,
    wait: bool = True,
    options: CallOptions = DEFAULT,
) -> Accepted:
    """Bind A as the API does."""
    order = order_of(one, a, ttl_s=ttl_s, options=options)
    return await bind(
        order,
        cast("Any", unpicked(one)),
        one.dispatcher,
        lease_s=one.timing.lease_s,
        deadline=boottime() + within_s,
        wait=wait,
    )


def unpicked(one: Instance) -> Unpicked:
    """The instance's claims."""
    return Unpicked(one.db, one.vault, lease_s=one.timing.lease_s, boottime=boottime)


def order_of(one: Instance, a: str, *, ttl_s: int = 3600, options: CallOptions = DEFAULT) -> BindOrder:
    """Ask for an X for A."""
    return BindOrder(
        app=one.app,
        caller_id=1,
        a=PhoneNumber(a),
        b=None,
        a_key=one.vault.party_key(a),
        b_key=None,
        pools=tuple(one.known.pools.values()),
        ttl_s=ttl_s,
        direction="both",
        policy=Policy.PACK,
        options=options,
    )

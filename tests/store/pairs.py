"""Orders of real phones in a shop: what sharing and changing need beyond keys."""

from __future__ import annotations

from dataclasses import dataclass

from broker.domain.change import LineChange
from broker.domain.ids import new_id
from broker.domain.phone import PhoneNumber
from broker.store import bindings, calls, changes, sharing
from broker.store.allocation import Claim, LockMode
from broker.store.bindings import Binding, ReleaseAsk, Releasing
from broker.store.calls import CallKey, Ended, Swept
from broker.store.changes import Begun, Changed, Move, OwnChange
from broker.store.crypto import DataKey, Vault
from tests.store.shop import LEASE_S, QUARANTINE_S, Shop

VAULT = Vault((DataKey(1, bytes(32)),), bytes(32))
A, B, C, D = (f"+861390000000{n}" for n in range(1, 5))
GRACE_S = 30.0


def key(phone: str) -> int:
    """The party key of a phone."""
    return VAULT.party_key(phone)


@dataclass(frozen=True, slots=True)
class Pairs:
    """Words for orders that share and change lines."""

    shop: Shop

    def claim(self, a: str, b: str, x: int = 0, *, ttl_s: int = 3600) -> Claim:
        """A claim of a new line for two phones."""
        plain = self.shop.claim(key(a), key(b), x, ttl_s=ttl_s)
        where = plain.pool_id, plain.line_id
        return plain._replace(a_sealed=VAULT.seal("line", "a", *where, a), b_sealed=VAULT.seal("line", "b", *where, b))

    async def active(self, a: str = A, b: str = B, x: int = 0, *, ttl_s: int = 3600) -> Claim:
        """A confirmed line."""
        return await self.shop.active(self.claim(a, b, x, ttl_s=ttl_s))

    def joiner(self, to: Claim, *, ttl_s: int = 3600, flipped: bool = False) -> Claim:
        """Another order of the same pair."""
        a, b = (to.b_key, to.a_key) if flipped else (to.a_key, to.b_key)
        return to._replace(binding_id=new_id(), ttl_s=ttl_s, a_key=a, b_key=b)

    async def join(self, *claims: Claim) -> list[str]:
        """Join the lines that the claims name; the outcomes."""
        return [one.outcome for one in await sharing.join(self.shop.db, claims)]

    async def joined(self, to: Claim, *, ttl_s: int = 3600, flipped: bool = False) -> Claim:
        """One that must join."""
        claim = self.joiner(to, ttl_s=ttl_s, flipped=flipped)
        assert await self.join(claim) == ["joined"]
        return claim

    async def release(self, *claims: Claim) -> list[Releasing | None]:
        """Release bindings in one statement."""
        asks = [ReleaseAsk(c.pool_id, c.binding_id, c.app_id) for c in claims]
        return await bindings.release(self.shop.db, asks, reason="released", lease_s=LEASE_S)

    async def show(self, claim: Claim) -> Binding:
        """A binding as everybody reads it."""
        row = claim.pool_id, claim.binding_id
        return (await bindings.show(self.shop.db, VAULT, [row]))[row]

    async def begin(
        self,
        claim: Claim,
        change: LineChange | None,
        *,
        seen: Binding | None = None,
        own: OwnChange | None = None,
        whole: bool = False,
    ) -> Begun:
        """Begin a change of a binding as it is now, or as it was ``seen``; ``whole``: for all that share its line."""
        binding = seen or await self.show(claim)
        mates = "SELECT id FROM binding WHERE line_id = $1"
        sharing = await self.shop.db.fetch(mates, binding.line_id) if whole else []
        return await changes.begin(
            self.shop.db, VAULT, binding, own or OwnChange(), change, mates=[row["id"] for row in sharing],
            mode=LockMode.WAIT, lease_s=LEASE_S,
        )  # fmt: skip

    async def begun(self, claim: Claim, change: LineChange) -> int:
        """Begin a modify that must begin; its number."""
        begun = await self.begin(claim, change)
        assert begun.outcome == "begun", begun
        assert begun.no is not None
        return begun.no

    async def settle(
        self, claim: Claim, no: int, *, done: bool | None, token: int = 1, bar_s: float = 0.0
    ) -> str | None:
        """Settle a modify."""
        item = Changed(
            CallKey(claim.pool_id, claim.line_id, no, token), 1, done, None if done else "platform_refused",
            rest_s=QUARANTINE_S, bar_s=bar_s, outcome="done" if done else "refused", http=200, code="0",
        )  # fmt: skip
        return await changes.settle(self.shop.db, item, lease_s=LEASE_S)

    async def move(self, claim: Claim, x: int, *, b: str = B, seen: Binding | None = None) -> tuple[str, Claim]:
        """Give a binding another X; what became of it, and its claim on the new line."""
        binding = seen or await self.show(claim)
        new = self.claim(A, b, x)._replace(binding_id=claim.binding_id)
        to = Move(
            x_id=x, cap=500, line_id=new.line_id, a=PhoneNumber(A), b=PhoneNumber(b), direction="both", options=None,
            joinable=True, line_ttl_s=3600, chosen="pack:unused_coolest",
        )  # fmt: skip
        moved = await changes.move(self.shop.db, VAULT, binding, OwnChange(), to, mode=LockMode.WAIT, lease_s=LEASE_S)
        return moved, new

    async def end(
        self, claim: Claim, no: int, *, token: int = 1, state: str = "released", reason: str = "released"
    ) -> bool:
        """Settle the end of a line by call ``no``."""
        item = Ended(CallKey(claim.pool_id, claim.line_id, no, token), 1, state, reason, QUARANTINE_S, "done", 200, "0")
        return (await calls.settle_ended(self.shop.db, [item]))[0] is not None

    async def sweep(self) -> Swept:
        """One slice of the sweep."""
        return await calls.sweep(self.shop.db, limit=50, grace_s=GRACE_S)

    async def open_calls(self, claim: Claim) -> list[tuple[int, str]]:
        """The open platform calls of a line."""
        return [(no, op) for no, op, state, _ in await self.shop.calls_of(claim) if state == "open"]


def b_becomes(phone: str) -> LineChange:
    """B is replaced."""
    return LineChange(b=PhoneNumber(phone))

"""Mode X: the platform keeps no binding, so a line is bound, changed and ended by our own books alone (contract 5.1).

Its calls go the way of all platform calls, so that nothing else differs; here they are answered at once.
"""

# ruff: noqa: ARG002 - the signatures are the protocol's, and nobody is asked
from __future__ import annotations

from broker.platform.plain import Plain
from broker.platform.protocol import Answer, BindLine, ModifyLine, Permit, PlatformLine, Verdict


class LocalPlatform(Plain):
    """Implements ``Platform`` for an app of mode X. Keeps nothing: whatever is permitted is done."""

    async def bind(self, request: BindLine, *, permit: Permit, timeout_s: float) -> Answer:
        """Done; the subscription is the line's own id."""
        mark, _, _ = request.token.partition(".")
        line = PlatformLine(
            subscription_id=f"local-{mark}",
            x=request.x,
            a=request.a,
            b=request.b,
            token=request.token,
            ttl_s=request.ttl_s,
            direction=request.direction,
            extension=request.extension,
        )
        return _answer(Verdict.DONE, permit, line)

    async def modify(self, request: ModifyLine, *, permit: Permit, timeout_s: float) -> Answer:
        """Done."""
        return _answer(Verdict.DONE, permit)

    async def unbind(self, subscription_id: str, *, permit: Permit, timeout_s: float) -> Answer:
        """Done."""
        return _answer(Verdict.DONE, permit)

    async def query(
        self,
        *,
        x: str,
        a: str = "",
        b: str = "",
        extension: str = "",
        page: int = 1,
        permit: Permit,
        timeout_s: float,
    ) -> Answer:
        """Nothing there: a bind whose owner died is simply done again."""
        return _answer(Verdict.NOT_FOUND, permit)

    async def lookup(self, subscription_id: str, *, permit: Permit, timeout_s: float) -> Answer:
        """There, and nothing known of it: a change whose owner died is made again. Not found would end the line."""
        return _answer(Verdict.DONE, permit)

    async def set_callee(
        self, subscription_id: str, *, callee: str, ttl_s: int, token: str, permit: Permit, timeout_s: float
    ) -> Answer:
        """Done."""
        return _answer(Verdict.DONE, permit)

    def set_clock_offset(self, seconds: float) -> None:
        """Nothing is signed."""

    async def close(self) -> None:
        """Nothing is open."""


def _answer(verdict: Verdict, permit: Permit, *lines: PlatformLine) -> Answer:
    if not permit():
        return Answer(Verdict.WITHHELD, detail="the permit said no")
    return Answer(verdict, bindings=lines, total=len(lines))

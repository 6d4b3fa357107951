"""A platform in memory for answers that the emulator cannot give; what it does is scripted per call."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace

from broker.platform.plain import Plain
from broker.platform.protocol import Answer, BindLine, ModifyLine, Permit, PlatformLine, Verdict

Script = Callable[[BindLine], Answer | None]
ModifyScript = Callable[[ModifyLine], Answer | None]


class FakeAxb(Plain):
    """Conforms to :class:`broker.platform.protocol.Platform`; one fake serves one app.

    ``script`` holds what the next binds answer instead of being carried out (None: carry this one out), and
    ``modify_script`` what the next modifications do; ``modified`` are those that left. ``before_permit`` runs where a
    driver connects and signs.
    """

    def __init__(self) -> None:
        self.bound: dict[str, PlatformLine] = {}
        self.script: deque[Script] = deque()
        self.modify_script: deque[ModifyScript] = deque()
        self.modified: list[ModifyLine] = []
        self.before_permit: Callable[[], None] = lambda: None
        self.sent: list[tuple[str, str]] = []
        self.withheld = 0

    def put(self, request: BindLine, x: str) -> PlatformLine:
        """Bind the pair of ``request`` on ``x``."""
        made = PlatformLine(
            f"fake-{len(self.sent)}", x, request.a, request.b, request.token, request.ttl_s, request.direction
        )
        self.bound[made.subscription_id] = made
        return made

    async def bind(self, request: BindLine, *, permit: Permit, timeout_s: float) -> Answer:
        """Create the binding, or what the script says."""
        del timeout_s
        if not self._may("bind", request.x, permit):
            return Answer(Verdict.WITHHELD)
        scripted = self.script.popleft()(request) if self.script else None
        if scripted is not None:
            return scripted
        if any(one.x == request.x and {one.a, one.b} & {request.a, request.b} for one in self.bound.values()):
            return Answer(Verdict.CONFLICT, 403, "1012010")
        return Answer(Verdict.DONE, 200, "0", bindings=(self.put(request, request.x),), total=1)

    def change(self, request: ModifyLine) -> PlatformLine:
        """Make ``request`` true of its binding."""
        was = self.bound[request.subscription_id]
        made = replace(
            was,
            a=was.a if request.a is None else request.a,
            b=was.b if request.b is None else request.b,
            token=request.token or was.token,
            ttl_s=was.ttl_s if request.ttl_s is None else request.ttl_s,
            direction=was.direction if request.direction is None else request.direction,
        )
        self.bound[request.subscription_id] = made
        return made

    async def modify(self, request: ModifyLine, *, permit: Permit, timeout_s: float) -> Answer:
        """Change the binding, or do what the script says."""
        del timeout_s
        if not self._may("modify", request.subscription_id, permit):
            return Answer(Verdict.WITHHELD)
        self.modified.append(request)
        scripted = self.modify_script.popleft()(request) if self.modify_script else None
        if scripted is not None:
            return scripted
        found = self.bound.get(request.subscription_id)
        if found is None:
            return Answer(Verdict.NOT_FOUND, 403, "1012007")
        others = [one for one in self.bound.values() if one is not found and one.x == found.x]
        if any({one.a, one.b} & {request.a, request.b} for one in others):
            return Answer(Verdict.CONFLICT, 403, "1012010")
        self.change(request)
        return Answer(Verdict.DONE, 200, "0")

    async def unbind(self, subscription_id: str, *, permit: Permit, timeout_s: float) -> Answer:
        """End one."""
        del timeout_s
        if not self._may("unbind", subscription_id, permit):
            return Answer(Verdict.WITHHELD)
        found = self.bound.pop(subscription_id, None)
        return Answer(Verdict.DONE, 200, "0") if found else Answer(Verdict.NOT_FOUND, 403, "1012007")

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
        """List what is on ``x``."""
        del extension, page, timeout_s
        if not self._may("query", x, permit):
            return Answer(Verdict.WITHHELD)
        found = tuple(one for one in self.bound.values() if one.x == x and a in {"", one.a} and b in {"", one.b})
        return _listed(found)

    async def lookup(self, subscription_id: str, *, permit: Permit, timeout_s: float) -> Answer:
        """List one."""
        del timeout_s
        if not self._may("lookup", subscription_id, permit):
            return Answer(Verdict.WITHHELD)
        return _listed(tuple(one for one in self.bound.values() if one.subscription_id == subscription_id))

    def set_clock_offset(self, seconds: float) -> None:
        """Ignore: nothing is signed."""

    async def close(self) -> None:
        """Nothing is open."""

    def _may(self, op: str, what: str, permit: Permit) -> bool:
        self.before_permit()
        if not permit():
            self.withheld += 1
            return False
        self.sent.append((op, what))
        return True


def _listed(found: tuple[PlatformLine, ...]) -> Answer:
    if not found:
        return Answer(Verdict.NOT_FOUND, 403, "1012007")
    return Answer(Verdict.DONE, 200, "0", bindings=found, total=len(found))

"""What each mode does with two phones: how it is bound, who reaches whom, what a call says once nobody is behind X."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.contract.service import Answer, Client, Json, phone


@dataclass(frozen=True, slots=True)
class Reached:
    """Where a call went: whom, and what it says."""

    whom: str | None
    why: int | str | None


@dataclass(slots=True)
class Case:
    """One mode on one client: ``a`` and ``b`` are real phones, ``made`` is the binding once there is one."""

    client: Client
    app: Json
    a: str = field(default_factory=phone)
    b: str = field(default_factory=phone)
    made: Json = field(default_factory=dict)

    #: The platform's word (contract 8.1), or ours in mode X, for a call to an X that nobody is behind any more.
    nobody: int | str = 8014
    pool: str | None = None

    async def ask(self, method: str, path: str, body: object = None) -> Answer:
        """Ask with the app's key."""
        return await self.client.ask(method, path, body, key=str(self.app["api_key"]))

    def fields(self, a: str) -> Json:
        """The body of a bind for ``a``."""
        return {"a": a, "ttl_s": 3600} | ({"pool": self.pool} if self.pool else {})

    async def bind(self, a: str = "", **extra: Any) -> Answer:
        """Bind."""
        return await self.ask("POST", "/v1/bindings", self.fields(a or self.a) | extra)

    async def begin(self, **extra: Any) -> Json:
        """Bind, and keep what was made."""
        answer = await self.bind(**extra)
        assert answer.status == 201, answer.raw
        self.made = dict(answer.body)
        return self.made

    async def call(self, caller: str, dialled: str, digits: str = "") -> Reached:
        """Place a call."""
        body = {"from": caller, "to": dialled} | ({"digits": digits} if digits else {})
        went = await self.client.emulator("POST", "calls", body)
        return Reached(went["connected_to"], went["state_code"])

    async def inward(self, caller: str = "") -> Reached:
        """B dials what the order system was told to give B."""
        return await self.call(caller or self.b, self.made["x"])

    async def outward(self) -> Reached:
        """A dials what it was told to dial."""
        return await self.call(self.a, self.made["x"])

    async def modify(self) -> Answer:
        """Change who A is; the case goes on with the new one."""
        new = phone()
        answer = await self.ask("PATCH", f"/v1/bindings/{self.made['id']}", {"a": new})
        if answer.status == 200:
            self.a = new
        return answer

    async def release(self, binding: str = "") -> Answer:
        """End it."""
        return await self.ask("DELETE", f"/v1/bindings/{binding or self.made['id']}")

    def place(self, made: Json) -> tuple[str, str | None]:
        """What must not be given to anybody else before it has rested."""
        return made["x"], made["extension"]


class Axb(Case):
    """A and B dial X."""

    def fields(self, a: str) -> Json:
        """The body of a bind."""
        return super().fields(a) | {"b": self.b if a == self.a else phone()}


class Ax(Case):
    """Anybody dials X; A has a temporary callee."""

    async def outward(self) -> Reached:
        """A dials what it was told."""
        return await _through_a_callee(self)


class Axe(Case):
    """Others dial X and the extension; A reaches who called last."""

    async def inward(self, caller: str = "") -> Reached:
        """B dials what it was told."""
        return await self.call(caller or self.b, self.made["x"], self.made["extension"])


class Axyb(Case):
    """Each side dials a number of its own."""

    async def outward(self) -> Reached:
        """A dials what it was told."""
        answer = await self.ask("POST", f"/v1/bindings/{self.made['id']}/peers", {"b": self.b, "ttl_s": 600})
        assert answer.status in {200, 201}, answer.raw
        return await self.call(self.a, answer.body["y"])


class X(Case):
    """The platform would ask us: we are asked here whom it would be told."""

    async def call(self, caller: str, dialled: str, digits: str = "") -> Reached:
        """Ask whom a call would reach."""
        del digits
        answer = await self.ask("POST", "/v1/reach:query", {"x": dialled, "caller": caller})
        assert answer.status == 200, answer.raw
        shown = answer.body.get("party")
        known = {_masked(number): number for number in (self.a, self.b)}
        return Reached(known.get(shown, shown), answer.body["why"])


class XPair(X):
    """Two parties behind X."""

    def fields(self, a: str) -> Json:
        """The body of a bind."""
        return super().fields(a) | {"routing": "pair", "b": self.b if a == self.a else phone()}


class XOne(X):
    """One party behind X."""

    def fields(self, a: str) -> Json:
        """The body of a bind."""
        return super().fields(a) | {"routing": "one"}

    async def outward(self) -> Reached:
        """A dials what it was told."""
        return await _through_a_callee(self)


async def _through_a_callee(case: Case) -> Reached:
    answer = await case.ask("PUT", f"/v1/bindings/{case.made['id']}/callee", {"callee": case.b, "ttl_s": 600})
    assert answer.status == 200, answer.raw
    return await case.call(case.a, case.made["x"])


def _masked(number: str) -> str:
    return f"{number[:3]}{'*' * (len(number) - 7)}{number[-4:]}"

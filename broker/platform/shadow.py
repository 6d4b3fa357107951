"""An app in shadow: whatever would have an effect is answered here and goes nowhere; only questions are asked.

There is no code here that could send anything else: the promise does not hang on anybody's asking first.
"""

# ruff: noqa: ARG002 - the signatures are the protocol's, and nobody is asked
from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from broker.domain.shadow import PREFIX, predicted
from broker.platform.local import LocalPlatform
from broker.platform.protocol import Answer, BindLine, ModifyLine, Permit, Verdict


class Questions(Protocol):
    """What may be asked of a platform that somebody else binds on: a part of ``Platform`` that changes nothing."""

    async def query(
        self, *, x: str, a: str = "", b: str = "", extension: str = "", page: int = 1, permit: Permit, timeout_s: float
    ) -> Answer:
        """As ``Platform`` does."""
        ...

    async def lookup(self, subscription_id: str, *, permit: Permit, timeout_s: float) -> Answer:
        """As ``Platform`` does."""
        ...

    async def recording(self, file_name: str, domain: str, *, permit: Permit, timeout_s: float) -> Answer:
        """As ``Platform`` does."""
        ...

    def set_clock_offset(self, seconds: float) -> None:
        """As ``Platform`` does."""
        ...

    async def close(self) -> None:
        """As ``Platform`` does."""
        ...


class ShadowPlatform(LocalPlatform):
    """Implements ``Platform`` for an app in shadow."""

    def __init__(self, asked: Questions, note: Callable[[str], None]) -> None:
        """``note`` is told of each interface that would have been called."""
        self._asked = asked
        self._note = note

    async def bind(self, request: BindLine, *, permit: Permit, timeout_s: float) -> Answer:
        """Predicted; the id is the line's own."""
        answer = self._noted("bind", await super().bind(request, permit=permit, timeout_s=timeout_s))
        mark, _, _ = request.token.partition(".")
        lines = tuple(replace(line, subscription_id=PREFIX + mark) for line in answer.bindings)
        return replace(answer, bindings=lines)

    async def modify(self, request: ModifyLine, *, permit: Permit, timeout_s: float) -> Answer:
        """Predicted."""
        return self._noted("modify", await super().modify(request, permit=permit, timeout_s=timeout_s))

    async def unbind(self, subscription_id: str, *, permit: Permit, timeout_s: float) -> Answer:
        """Predicted."""
        return self._noted("unbind", await super().unbind(subscription_id, permit=permit, timeout_s=timeout_s))

    async def set_callee(
        self, subscription_id: str, *, callee: str, ttl_s: int, token: str, permit: Permit, timeout_s: float
    ) -> Answer:
        """Predicted."""
        answer = await super().set_callee(
            subscription_id, callee=callee, ttl_s=ttl_s, token=token, permit=permit, timeout_s=timeout_s
        )
        return self._noted("modify", answer)

    async def stop_call(self, session_id: str, *, permit: Permit, timeout_s: float) -> Answer:
        """No call of ours is there."""
        return Answer(Verdict.NOT_FOUND)

    async def query(
        self, *, x: str, a: str = "", b: str = "", extension: str = "", page: int = 1, permit: Permit, timeout_s: float
    ) -> Answer:
        """Ask what is on an X; of one of our own parties it is known: nothing of ours is there."""
        if a:
            return await super().query(x=x, a=a, permit=permit, timeout_s=timeout_s)
        return await self._asked.query(x=x, extension=extension, page=page, permit=permit, timeout_s=timeout_s)

    async def lookup(self, subscription_id: str, *, permit: Permit, timeout_s: float) -> Answer:
        """Ask about a binding; a prediction is there as long as our books say so."""
        if predicted(subscription_id):
            return await super().lookup(subscription_id, permit=permit, timeout_s=timeout_s)
        return await self._asked.lookup(subscription_id, permit=permit, timeout_s=timeout_s)

    async def recording(self, file_name: str, domain: str, *, permit: Permit, timeout_s: float) -> Answer:
        """Ask where a recording is: that changes nothing."""
        return await self._asked.recording(file_name, domain, permit=permit, timeout_s=timeout_s)

    def set_clock_offset(self, seconds: float) -> None:
        """Questions are signed."""
        self._asked.set_clock_offset(seconds)

    async def close(self) -> None:
        """Close what questions go over."""
        await self._asked.close()

    def _noted(self, interface: str, answer: Answer) -> Answer:
        if answer.verdict is Verdict.DONE:
            self._note(f"call.{interface}")
        return answer

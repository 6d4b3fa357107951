"""What the platform is asked once, for somebody who waits: to stop a call, or where a recording is.

Nothing of it is written down beforehand: who asks hears what became of it, and asks again if that is unknown.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol

from broker.clock import boottime
from broker.errors import Gone, Invalid, NotFound, PlatformRefused, PlatformRejected, Problem, Unavailable
from broker.flows.bind import check_lane
from broker.flows.calls import Dispatch
from broker.flows.inwork import aside
from broker.platform.protocol import Answer, NotOffered, Permit, Platform, Verdict
from broker.store.database import Database
from broker.store.registry import Key
from broker.store.statements import statements

#: One request: by which driver, whether it may leave now, and how many seconds its answer may take.
Send = Callable[[Platform, Permit, float], Awaitable[Answer]]


class Asks(Protocol):
    """Sends requests in the app's lane, by its limit."""

    async def ask(
        self, app_id: int, send: Send, *, deadline: float, caller_id: int = 0, effect: bool = False
    ) -> Answer:
        """Send one before ``deadline`` (boottime); it never raises for what the platform or the network does.

        ``effect``: it changes something.
        """
        ...


class Asking:
    """Asks the platform for order systems."""

    def __init__(self, db: Database, asks: Asks, dispatch: Dispatch) -> None:
        """``dispatch`` tells whether anything may be sent for an app."""
        self._db = db
        self._asks = asks
        self._dispatch = dispatch

    async def stop_call(self, key: Key, session_id: str, *, deadline: float) -> None:
        """Hang a call of the app up.

        Raises:
            NotFound: it is over, or there is none.
            Problem: the platform refused, or what it did is unknown.
        """

        def send(platform: Platform, permit: Permit, timeout_s: float) -> Awaitable[Answer]:
            return platform.stop_call(session_id, permit=permit, timeout_s=timeout_s)

        answer = await self._ask(key, send, deadline, effect=True)
        if answer.verdict is Verdict.NOT_FOUND:
            raise NotFound("There is no such call, or it is over.", code="call_over")
        _check(answer)

    async def recording(self, key: Key, file_name: str, domain: str, *, deadline: float) -> str:
        """Return a recording's address, once it is written down who gets it.

        Raises:
            Gone: there is no such recording, or not any more.
            Problem: the platform refused, or did not answer; or it could not be written down.
        """

        def send(platform: Platform, permit: Permit, timeout_s: float) -> Awaitable[Answer]:
            return platform.recording(file_name, domain, permit=permit, timeout_s=timeout_s)

        answer = await self._ask(key, send, deadline)
        if answer.verdict is Verdict.NOT_FOUND:
            raise Gone("The platform has no such recording, or not any more.")
        _check(answer)
        # Names of recordings may hold the numbers of those who spoke.
        subject = hashlib.sha256(f"{domain}/{file_name}".encode()).hexdigest()
        who = f"{key.app.name}/{key.caller} …{key.hint}"
        await self._db.fetch(statements("asking")["audit"], who, key.app.id, subject)
        return answer.location

    async def _ask(self, key: Key, send: Send, deadline: float, *, effect: bool = False) -> Answer:
        check_lane(key.app, self._dispatch)
        wait_s = self._dispatch.backlog_s(key.app.id, key.caller_id)
        if wait_s > deadline - boottime():
            raise Unavailable(
                "More waits for the platform than it takes in time. It was not asked.",
                code="overloaded", retry_after_s=max(1, math.ceil(wait_s)),
            )  # fmt: skip
        try:
            with aside():
                return await self._asks.ask(key.app.id, send, deadline=deadline, caller_id=key.caller_id, effect=effect)
        except NotOffered:
            raise Invalid(
                f"The platform does not offer this in mode {key.app.mode}.", code="not_offered_by_platform"
            ) from None


def _check(answer: Answer) -> None:
    """Raise what an order system is told of an answer that is neither a yes nor a no."""
    if answer.verdict is Verdict.DONE:
        return
    platform = {"platform_code": answer.code, "platform_http": answer.http}
    raise _problem(answer.verdict)(extra={name: value for name, value in platform.items() if value})


def _problem(verdict: Verdict) -> Callable[..., Problem]:
    match verdict:
        case Verdict.BAD_REQUEST:
            return PlatformRejected
        case Verdict.APP_SUSPENDED:
            return partial(Unavailable, "The platform has suspended this app.", code="app_suspended", retry_after_s=60)
        case Verdict.UNKNOWN:
            return partial(Unavailable, "The platform did not answer; what it did is unknown. Ask again.")
        case Verdict.NOT_SENT | Verdict.WITHHELD | Verdict.FLOW_CONTROL | Verdict.CLOCK_SKEW | Verdict.SOURCE_BLOCKED:
            return partial(Unavailable, "The platform could not be asked in time. Ask again.")
        case _:
            return partial(PlatformRefused, "The platform refused because of how this app is set up.")

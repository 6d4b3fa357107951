"""Asking the platform what it holds, slowly: for the audit and for imports, within a share of the app's limit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from uuid import UUID

from broker.clock import boottime
from broker.domain.drift import Theirs
from broker.domain.turns import Kind
from broker.flows.asking import Send
from broker.platform.protocol import Answer, Permit, Platform, PlatformLine, Verdict
from broker.store.crypto import Vault
from broker.store.database import Database
from broker.store.drift import Place, Run, Tally
from broker.store.registry import App
from broker.workers.sender import Sender

#: How long a question may wait for its turn: whatever order systems wait for is more urgent.
_PATIENCE_S = 30.0
_TRIES = 5
#: Pages of an X that holds as many bindings as the platform allows.
_MOST_PAGES = 60


class Stopped(Exception):
    """The platform does not answer questions now: the run waits."""

    def __init__(self, answer: Answer) -> None:
        """Keep its last words."""
        super().__init__(answer.verdict.value)
        self.answer = answer


class Pace:
    """Lets so many go a second, evenly; those that come together go one after the other."""

    def __init__(self, per_s: float) -> None:
        """Describe the pace."""
        self.per_s = per_s
        self._next = 0.0

    async def turn(self) -> None:
        """Wait for one's turn."""
        now = boottime()
        mine = max(self._next, now)
        self._next = mine + 1 / self.per_s
        if mine > now:
            await asyncio.sleep(mine - now)


class Looker:
    """Questions about one app. What is reported in clear leaves here as keys only, but for :meth:`shown`."""

    def __init__(self, sender: Sender, vault: Vault, app: App, pace: Pace, tally: Tally) -> None:
        """``tally`` counts the calls."""
        self._sender = sender
        self._vault = vault
        self._app = app
        self._pace = pace
        self._tally = tally

    async def shown(self, place: Place) -> list[PlatformLine]:
        """Return the bindings that the platform shows there, all pages of them, without the peers of AXYB.

        Raises:
            Stopped: it does not answer.
        """
        return [line for line in await self.everything(place) if not line.y]

    async def everything(self, place: Place) -> list[PlatformLine]:
        """Return what the platform shows there, all pages of it; peers of AXYB beside the line that they hang on.

        Raises:
            Stopped: it does not answer.
        """
        found: list[PlatformLine] = []
        digits = self._app.extension_digits
        extension = str(place.extension).zfill(digits) if place.extension else ""
        for page in range(1, _MOST_PAGES + 1):

            def send(platform: Platform, permit: Permit, timeout_s: float, page: int = page) -> Awaitable[Answer]:
                return platform.query(
                    x=place.number, extension=extension, page=page, permit=permit, timeout_s=timeout_s
                )

            answer = await self.ask(send)
            found += answer.bindings
            if answer.verdict is Verdict.NOT_FOUND or not answer.bindings or len(found) >= answer.total:
                break
        return [line for line in found if line.x == place.number]

    async def lookup(self, subscription_id: str, *, peers: bool = False) -> list[PlatformLine]:
        """Return the one binding with this id, or nothing; ``peers``: only what hangs on it.

        Raises:
            Stopped: the platform does not answer.
        """

        def send(platform: Platform, permit: Permit, timeout_s: float) -> Awaitable[Answer]:
            return platform.lookup(subscription_id, permit=permit, timeout_s=timeout_s)

        return [line for line in (await self.ask(send)).bindings if bool(line.y) is peers]

    async def unbind(self, subscription_id: str) -> bool:
        """End that one binding; False: the platform refuses.

        Raises:
            Stopped: it does not answer.
        """

        def send(platform: Platform, permit: Permit, timeout_s: float) -> Awaitable[Answer]:
            return platform.unbind(subscription_id, permit=permit, timeout_s=timeout_s)

        # Not found is as good: it has been ended, and an unknown first attempt ends here too.
        return (await self.ask(send, effect=True)).verdict in {Verdict.DONE, Verdict.NOT_FOUND}

    async def unbind_peer(self, subscription_id: str, y: str) -> bool:
        """Take that one Y away; False: the platform refuses.

        Raises:
            Stopped: it does not answer.
        """

        def send(platform: Platform, permit: Permit, timeout_s: float) -> Awaitable[Answer]:
            return platform.unbind_peer(subscription_id, y=y, permit=permit, timeout_s=timeout_s)

        return (await self.ask(send, effect=True)).verdict in {Verdict.DONE, Verdict.NOT_FOUND}

    async def ask(self, send: Send, *, effect: bool = False) -> Answer:
        """Send until the answer is yes or 'not found'."""
        answer = Answer(Verdict.NOT_SENT)
        for _ in range(_TRIES):
            await self._pace.turn()
            self._tally.calls += 1
            answer = await self._sender.ask(
                self._app.id, send, deadline=boottime() + _PATIENCE_S, kind=Kind.AUDIT, effect=effect
            )
            if answer.verdict in {Verdict.DONE, Verdict.NOT_FOUND}:
                return answer
        raise Stopped(answer)

    def theirs(self, line: PlatformLine) -> Theirs:
        """Return a binding as it is compared."""
        key = self._vault.party_key
        return Theirs(
            subscription_id=line.subscription_id,
            a_key=key(line.a),
            b_key=key(line.b) if line.b else None,
            direction=line.direction.value if line.direction is not None else None,
            ttl_s=line.ttl_s,
            mark=mark_of(line.token),
        )


@dataclass(frozen=True, slots=True)
class Look:
    """What one run compares with and counts into."""

    db: Database
    vault: Vault
    app: App
    run: Run
    looker: Looker
    tally: Tally


def mark_of(token: str) -> UUID | None:
    """Return the line that our token names; ``None`` for the words of others."""
    mark, dot, _ = token.partition(".")
    if not dot or len(mark) != 32:  # noqa: PLR2004 - hex digits of a UUID
        return None
    try:
        return UUID(hex=mark)
    except ValueError:
        return None

"""Whose a notification is: by our mark in it, else its subscription, else by who was behind X at that time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from broker.domain.notice import CallEvent, Cdr, Sms
from broker.domain.phone import PhoneNumber, is_e164
from broker.domain.reach import Reached
from broker.errors import Invalid
from broker.flows.reach import Question, ask
from broker.flows.route import spot_in
from broker.store import inbox
from broker.store.crypto import Vault
from broker.store.database import Database
from broker.store.inbox import Found, Mention
from broker.store.registry import Registry

#: Looks into the history at a time.
_AT_ONCE = 4
#: The platform's times have no fractions: what was bound within that second counts as bound before.
_WITHIN = timedelta(milliseconds=999)


@dataclass(frozen=True, slots=True)
class Attribution:
    """Finds lines for notifications."""

    db: Database
    vault: Vault
    registry: Callable[[], Registry]

    async def find(self, notices: Sequence[tuple[int, CallEvent | Cdr | Sms]]) -> list[Found | None]:
        """Return for each (app id, notification) whose it is; ``None`` = that is not known."""
        mentions = [Mention(app_id, notice.mark, notice.subscription, notice.x) for app_id, notice in notices]
        found = await inbox.lines_told(self.db, mentions)
        gate = asyncio.Semaphore(_AT_ONCE)

        async def look(place: int) -> None:
            async with gate:
                found[place] = await self._by_history(*notices[place])

        await asyncio.gather(*(look(place) for place, one in enumerate(found) if one is None))
        return found

    async def _by_history(self, app_id: int, notice: CallEvent | Cdr | Sms) -> Found | None:
        if notice.x is None or not is_e164(notice.caller or ""):
            return None
        registry = self.registry()
        spot = spot_in(registry, notice.x)
        if spot is None or registry.pools[spot.pool_id].app.id != app_id:
            return None
        caller, digits = PhoneNumber(notice.caller or ""), notice.digits if spot.mode == "axe" else None
        if digits is not None and not digits.isdecimal():
            return None
        at: datetime | None = _moment(notice) + _WITHIN
        try:
            reached = await ask(self.db, self.vault, Question(spot, caller, digits, at))
        except Invalid:  # not over yet, that second: then it is now
            reached = await ask(self.db, self.vault, Question(spot, caller, digits))
        if not isinstance(reached, Reached):
            return None
        return Found(reached.line.pool_id, reached.line.line_id, "history", reached.line.bindings)


def _moment(notice: CallEvent | Cdr | Sms) -> datetime:
    return notice.call_in_at or notice.at if isinstance(notice, Cdr) else notice.at

"""What the platform has refused to one instance and so to all: pauses, wrong secrets, blocked addresses."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import structlog

from broker.flows.number_status import heed_account
from broker.platform.protocol import Answer, Verdict
from broker.store import limits
from broker.store.database import Database, DatabaseAway
from broker.store.limits import Stop
from broker.store.registry import App
from broker.workers.lane import Lane

log = structlog.get_logger()

R = TypeVar("R")

#: Answers that only a request with a right signature gets.
_SIGNATURE_ACCEPTED = frozenset(
    {
        Verdict.DONE,
        Verdict.NOT_FOUND,
        Verdict.CONFLICT,
        Verdict.CAPACITY,
        Verdict.PARTY_LIMIT,
        Verdict.NUMBER_REFUSED,
        Verdict.BAD_REQUEST,
        Verdict.APP_SUSPENDED,
    }
)

#: Key of the stop that is on our address, and so on every app.
_BLOCK = (0, "source_blocked")


class Stops:
    """What this instance knows of them; it is told to the lanes at once, and to the other instances."""

    def __init__(
        self,
        db: Database,
        *,
        egress: str,
        flow_pause_s: tuple[float, float],
        source_block_s: float,
        lanes: Callable[[], Iterable[tuple[App, Lane]]],
    ) -> None:
        """``egress`` names the address that the platform sees calls come from; ``lanes`` are those of this process."""
        self._db = db
        self._egress = egress
        self._flow_pause_s = flow_pause_s
        self._source_block_s = source_block_s
        self._lanes = lanes
        self._known: dict[tuple[int, str], tuple[Stop, float]] = {}  # with their ends (monotonic)

    async def answered(self, app: App, lane: Lane, answer: Answer) -> None:
        """Draw the conclusions from an answer: stop here at once and have every instance stop, or go on."""
        match answer.verdict:
            case verdict if verdict in _SIGNATURE_ACCEPTED:
                failed = lane.digest_failures
                lane.digest_passed()
                if failed:
                    await _tell(limits.digest_passed(self._db, app.id, app.access))
                if verdict is Verdict.APP_SUSPENDED:
                    await _tell(heed_account(self._db, answer.code, app.id))
            case Verdict.FLOW_CONTROL:
                pause_s = random.uniform(*self._flow_pause_s)  # noqa: S311 - jitter
                lane.slow_down(pause_s)
                await _tell(limits.stop_for_flow(self._db, app.id, pause_s))
            case Verdict.BAD_DIGEST:
                lane.digest_failed()
                if await _tell(limits.note_bad_digest(self._db, app.id, app.access)):
                    lane.close_down("platform_bad_secret")
            case Verdict.SOURCE_BLOCKED:
                # The block is on our address, not on the app: everything stops.
                block_s = self._source_block_s
                log.error("platform_source_blocked", egress=self._egress, seconds=block_s)
                self._heed([Stop(0, "source_blocked", "", block_s), *(stop for stop, _ in self._known.values())])
                await _tell(limits.stop_source(self._db, self._egress, block_s))

    async def look(self) -> None:
        """Ask what other instances have been refused."""
        self._heed(await limits.stops(self._db, self._egress))

    def blocked_s(self) -> float:
        """Return how long the platform still blocks our address."""
        stop = self._known.get(_BLOCK)
        return max(0.0, stop[1] - time.monotonic()) if stop is not None else 0.0

    def apply(self, app: App, lane: Lane) -> None:
        """Tell a lane what is known of its app."""
        now = time.monotonic()
        for stop, end in self._known.values():
            if stop.reason == "bad_secret":
                if stop.app_id == app.id and stop.access == app.access:
                    lane.close_down("platform_bad_secret")
            elif stop.app_id in {0, app.id} and end > now:
                lane.hold(end - now)

    def _heed(self, stops: Iterable[Stop]) -> None:
        now = time.monotonic()
        found = {(stop.app_id, stop.reason): (stop, now + (stop.left_s or 0.0)) for stop in stops}
        known = self._known.get(_BLOCK)
        # What the platform told this very instance does not end because the database has not heard of it.
        if known is not None and known[1] > max(now, found[_BLOCK][1] if _BLOCK in found else now):
            found[_BLOCK] = known
        self._known = found
        for app, lane in self._lanes():
            self.apply(app, lane)


async def _tell(telling: Awaitable[R]) -> R | None:
    """Tell the other instances, if the database can be reached; this one knows."""
    try:
        return await telling
    except DatabaseAway:
        return None

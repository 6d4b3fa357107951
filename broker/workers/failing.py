"""Calls that keep failing: what counts as that, and when nobody tries one any more until an operator decides.

A failure counts against a call only if the platform has answered somebody else of its app, or another question of its
own, since its last one. So an outage, a secret that is wrong or an account in arrears buries nothing: there everything
fails, and goes on by itself when that ends.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Final

from broker.clock import boottime
from broker.flows.calls import PlatformCall, Trouble
from broker.platform.protocol import Answer, Verdict
from broker.store import failing
from broker.store.calls import CallKey
from broker.store.database import Database
from broker.store.failing import Standing, Try

#: So often our own code may fail on a call.
MOST_CRASHES: Final = 5

#: Answers of a platform that works.
_ANSWERED: Final = frozenset(
    {
        Verdict.DONE,
        Verdict.NOT_FOUND,
        Verdict.CONFLICT,
        Verdict.CAPACITY,
        Verdict.PARTY_LIMIT,
        Verdict.NUMBER_REFUSED,
        Verdict.BAD_REQUEST,
    }
)
#: What says nothing about the call: the pace, the signature, our address, or that no byte of it left.
_BESIDE: Final = frozenset(
    {
        Verdict.FLOW_CONTROL,
        Verdict.BAD_DIGEST,
        Verdict.SOURCE_BLOCKED,
        Verdict.CLOCK_SKEW,
        Verdict.NOT_SENT,
        Verdict.WITHHELD,
    }
)
#: So many failures in one pair of hands are not written down: most calls that fail once or twice succeed then.
_QUIET: Final = 2
#: After that, what has come together is written this often.
_WRITTEN_EVERY_S: Final = 30.0


class Failing:
    """Judges the failures of this process's calls."""

    def __init__(self, db: Database, *, most: int, patience_s: float) -> None:
        """Call a call dead after ``most`` failures that count, over at least ``patience_s``."""
        self._db = db
        self._most = most
        self._patience_s = patience_s
        self._answers: Counter[int] = Counter()
        self._bound: Counter[int] = Counter()

    def heard(self, app_id: int, interface: str, answer: Answer) -> None:
        """Take note of an answer to anything asked for the app."""
        if answer.verdict in _ANSWERED:
            self._answers[app_id] += 1
            self._bound[app_id] += interface == "bind" and answer.verdict is Verdict.DONE

    def bound(self, app_id: int) -> int:
        """Return how many binds of the app the platform has confirmed to this process."""
        return self._bound[app_id]

    def hopeless(self, call: PlatformCall) -> bool:
        """Tell of a call that has failed so often that trying it once a while is enough."""
        return call.trouble is not None and call.trouble.key == call.key and call.trouble.count >= self._most

    async def note(self, call: PlatformCall, answer: Answer) -> Standing:
        """Judge a failure; ``dead``: nobody is to try the call any more. None: it is not ours any more."""
        if answer.verdict in _BESIDE or (answer.http is None and answer.verdict is not Verdict.UNKNOWN):
            return "open"
        trouble, now = self._trouble(call), boottime()
        heard = self._answers[call.app_id]
        if heard == trouble.answers:
            return "open"
        trouble.answers = heard
        trouble.since = trouble.since or now
        trouble.count += 1
        trouble.tries.append(
            _try(call, verdict=answer.verdict.value, http=answer.http, code=answer.code and answer.code[:32])
        )
        del trouble.tries[: -self._most]
        if not self._is_due(trouble, now):
            return "open"
        standing = await failing.note(
            self._db, call.key, trouble.tries, failing_s=now - trouble.since, most=self._most,
            patience_s=self._patience_s,
        )  # fmt: skip
        trouble.written_at = now
        trouble.tries.clear()
        return standing

    def _trouble(self, call: PlatformCall) -> Trouble:
        if call.trouble is None or call.trouble.key != call.key:
            call.trouble = Trouble(call.key, self._answers[call.app_id])
        return call.trouble

    def _is_due(self, trouble: Trouble, now: float) -> bool:
        if trouble.written_at is None:
            return trouble.count > _QUIET
        return now - trouble.written_at >= min(_WRITTEN_EVERY_S, self._patience_s / 4)


async def crashed(db: Database, key: CallKey, asked: str, error: Exception, *, pause_s: float) -> Standing:
    """Note that our own code failed on a call, or on reading it: it is tried less and less often, then it is dead."""
    one = {"at": datetime.now(UTC), "asked": asked, "verdict": "crashed", "error": type(error).__name__}
    return await failing.note_crash(db, key, one, most=MOST_CRASHES, pause_s=pause_s)


def _try(call: PlatformCall, **told: object) -> Try:
    return {"at": datetime.now(UTC), "asked": call.asked or call.op, "attempt": call.attempt, **told}

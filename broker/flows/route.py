"""Mode X: the platform asks at every call whom to connect, and our books alone know (contract 5.1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final
from uuid import UUID

from broker.domain.options import CallOptions
from broker.domain.phone import PhoneNumber
from broker.domain.reach import WORDS, Behind, Reached, Why, state_code, who
from broker.flows.batching import Batcher
from broker.store.crypto import Vault
from broker.store.database import Database
from broker.store.reach import By, Call, Spot, behind_all
from broker.store.registry import Registry

#: Calls in one look, and looks at a time.
_SLICE: Final = 50
_IN_FLIGHT: Final = 2


@dataclass(frozen=True, slots=True)
class Connect:
    """Put the call through. ``display`` is what the callee sees; ``max_call_minutes`` 0 = no limit.

    ``bindings`` are the live ones of the line; ``user_data`` is theirs in the same order, or the temporary callee's
    alone.
    """

    pool_id: int
    line_id: UUID
    callee: PhoneNumber
    display: str
    max_call_minutes: int
    recording: bool
    hint_tone: str | None
    wait_tone: str | None
    last_minute_tone: str | None
    bindings: tuple[UUID, ...]
    user_data: tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """Hang up; ``state_code`` is what the platform would call it."""

    why: Why
    detail: str
    state_code: int


class Router:
    """Answers for all X numbers of apps in mode X."""

    def __init__(self, db: Database, vault: Vault, registry: Callable[[], Registry]) -> None:
        """``registry`` returns the newest configuration."""
        self._registry = registry
        # What is asked while a look runs shares the next one; somebody is on the line, so nothing waits for company.
        self._looking: Batcher[Call, list[Behind]] = Batcher(
            "route", partial(behind_all, db, vault), size=_SLICE, in_flight=_IN_FLIGHT, queue_limit=2000, hurried=True
        )

    async def route(self, x: str, caller: str) -> Connect | Refused:
        """Return what becomes of a call to ``x`` by ``caller`` ("" = withheld), by one look into the database.

        Raises:
            Unavailable: too many wait for it.
            DatabaseAway: it does not answer.
        """
        spot = spot_in(self._registry(), x)
        if spot is None or spot.mode != "x":
            return _refused(Why.NO_SUCH_X)
        by = By.WHOLE if spot.routing == "one" else By.PAIR
        lines = await self._looking.submit(Call(by, spot.pool_id, spot.x_id, caller))
        found = one_of(lines, caller, spot, by)
        return _refused(found) if isinstance(found, Why) else _connect(found, x, caller)


def spot_in(registry: Registry, x: str) -> Spot | None:
    """Return an X number of the configuration."""
    place = registry.places.get(x)
    if place is None:
        return None
    pool_id, x_id = place
    pool = registry.pools[pool_id]
    app = pool.app
    return Spot(
        x, pool_id, x_id, app.mode, pool.routing, app.retention_days, app.extension_digits, app.shadow,
        app.shadow_changed_at,
    )  # fmt: skip


def one_of(lines: list[Behind], caller: str, spot: Spot, by: By) -> Reached | Why:
    """Return whom the first line that reaches somebody reaches, or why none does."""
    why = Why.PARTY_UNKNOWN if by is By.PAIR else Why.NOT_BOUND
    for line in lines:
        found = who(line, caller, spot.mode)
        if isinstance(found, Reached):
            return found
        why = found
    return why


def _connect(found: Reached, x: str, caller: str) -> Connect:
    line, options = found.line, CallOptions.from_text(found.line.options)
    own = found.role != "a"
    limit = options.max_call_minutes or 0
    return Connect(
        pool_id=line.pool_id,
        line_id=line.line_id,
        callee=found.party,
        display=caller if options.display == "caller" and not own and caller else x,
        max_call_minutes=limit,
        recording=bool(options.recording),
        hint_tone=options.hint_tone if options.recording else None,
        wait_tone=options.caller_tone if own else options.callee_tone,
        last_minute_tone=options.last_minute_tone if limit else None,
        bindings=line.bindings,
        user_data=(line.callee_user_data,) if found.role == "callee" else line.user_data,
    )


def _refused(why: Why) -> Refused:
    return Refused(why, WORDS[why], state_code(why))

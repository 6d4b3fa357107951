"""Sending one request for a call that is ours: turn, lease, permit, answer; and waiting without losing the call.

A call belongs to this process as long as its lease lasts. The token fences our tables; the permit, asked after the
signature was made and directly before the first byte leaves, fences the platform (design 3.3).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import structlog

from broker.clock import boottime
from broker.crashpoints import crashpoint, crashpoint_when_written
from broker.domain.change import LineChange
from broker.domain.phone import PhoneNumber
from broker.domain.shadow import SWITCHING
from broker.domain.turns import Kind
from broker.flows.asking import Send
from broker.flows.batching import Batcher
from broker.flows.calls import PlatformCall
from broker.platform.protocol import Answer, BindLine, BindPeer, Direction, ModifyLine, Permit, Platform, Verdict
from broker.store import calls as store
from broker.store.calls import Extension
from broker.store.database import Database, DatabaseAway
from broker.store.registry import App, Registry
from broker.workers.failing import Failing
from broker.workers.lane import Ask, Lane, LaneMoved, LaneShut
from broker.workers.limiter import limiter_of
from broker.workers.stops import Stops

log = structlog.get_logger()

R = TypeVar("R")

#: No request goes out with less lease left than this; its answer is awaited until a second before the lease's end.
MIN_LEASE_S = 3.0
_MARGIN_S = 1.0
_MOST_ATTEMPTS = 32_767
#: What the queue adds to the lease of a call that waits in it, at most: renewing a long queue is work for nothing.
_LONGEST_WAIT_LEASE_S = 20.0
#: So long after a request's deadline nobody waits for its bind.
_CLIENT_GONE_S = 30.0
#: A search is in less of a hurry than any request that somebody waits for.
_SEARCH_WAITS_S = 60.0
#: How long a call waits for a fresh configuration before it tries again.
_STALE_LOOK_S = 0.2

#: The lanes of calls; what is asked or undone for a call rides in the call's.
_LANES: Mapping[str, Kind] = {
    "bind": Kind.BIND,
    "bind_peer": Kind.BIND,
    "unbind": Kind.UNBIND,
    "unbind_peer": Kind.UNBIND,
    "modify": Kind.MODIFY,
}


class NotOurs(Exception):
    """Somebody else owns the call now: drop it without a trace."""


class CallDead(Exception):
    """The call has kept failing: nobody tries it any more until an operator decides."""


@dataclass(frozen=True, slots=True)
class Timing:
    """All times of platform calls, in seconds."""

    lease_s: float = 8.0
    http_timeout_s: float = 5.0
    first_backoff_s: float = 0.1
    longest_backoff_s: float = 5.0
    operator_backoff_s: float = 60.0
    absence_s: float = 60.0  # an unknown bind is given up only after a query this long after the last send
    conflict_bar_s: float = 86_400.0
    source_block_s: float = 1_800.0
    flow_pause_s: tuple[float, float] = (1.0, 2.0)
    dead_after_tries: int = 20
    dead_after_s: float = 3_600.0


@dataclass(frozen=True, slots=True)
class _Route:
    app: App
    lane: Lane
    platform: Platform


class Sender:
    """Lanes, leases and drivers of one process."""

    def __init__(
        self,
        db: Database,
        registry: Callable[[], Registry],
        platform: Callable[[App], Platform],
        *,
        timing: Timing,
        width: int,
        egress: str = "default",
        fence: Callable[[], None] = lambda: None,
        fresh: Callable[[], bool] = lambda: True,
    ) -> None:
        """``platform(app)`` makes the driver of an app; it is made anew when the app's access data change.

        ``egress`` names the address that the platform sees calls come from: it blocks addresses, not apps. ``fence``
        is called before each last look at a lease (:mod:`broker.fence`). ``fresh()``: the registry has been confirmed
        a moment ago; on an older one nothing is sent.
        """
        self._db = db
        self._registry = registry
        self._make_platform = platform
        self._width = width
        self._routes: dict[int, _Route] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._fence = fence
        self._fresh = fresh
        self._stops = Stops(
            db,
            egress=egress,
            flow_pause_s=timing.flow_pause_s,
            source_block_s=timing.source_block_s,
            lanes=lambda: [(route.app, route.lane) for route in self._routes.values()],
        )
        self._extending: Batcher[Extension, str | None] = Batcher(
            "extend", lambda items: store.extend(db, items), distinct=lambda item: item.key
        )
        self.timing = timing
        self.failing = Failing(db, most=timing.dead_after_tries, patience_s=timing.dead_after_s)
        self.sent = 0

    # -- requests --------------------------------------------------------------------------------------------------

    async def bind(self, call: PlatformCall, *, of: PlatformCall | None = None, mark: str | None = None) -> Answer:
        """Send the bind once; ``of``: the call that it belongs to, of which ``call`` says what is to be bound.

        ``mark`` tells it from other binds of that call.
        """
        owner = of or call

        def send(platform: Platform, permit: Permit, timeout_s: float) -> Awaitable[Answer]:
            _count_attempt(owner)
            token = owner.token if mark is None else f"{mark}.{owner.attempt}"
            return platform.bind(self._request(call, token), permit=permit, timeout_s=timeout_s)

        return await self._send(owner, send, "bind")

    def _request(self, call: PlatformCall, token: str) -> BindLine:
        pool = self._registry().pools[call.pool_id]
        return BindLine(
            x=call.x,
            a=call.a.reveal(),
            b=call.b.reveal() if call.b is not None else "",
            direction=Direction(call.direction),
            ttl_s=call.ttl_s,
            token=token,
            options=call.options,
            extension=self.extension(call),
            callback=call.callback.reveal() if call.callback is not None else "",
            area_code="" if call.x else pool.area_code,
            relaxed=bool(call.options.relaxed),
        )

    def extension(self, call: PlatformCall) -> str:
        """Return the digits of the call's extension; empty if it has none."""
        if not call.extension:
            return ""
        return str(call.extension).zfill(self._registry().apps[call.app_id].extension_digits)

    async def unbind(self, call: PlatformCall, subscription_id: str) -> Answer:
        """Send the unbind of that one subscription once."""

        def send(platform: Platform, permit: Permit, timeout_s: float) -> Awaitable[Answer]:
            _count_attempt(call)
            return platform.unbind(subscription_id, permit=permit, timeout_s=timeout_s)

        return await self._send(call, send, "unbind")

    async def modify(self, call: PlatformCall, change: LineChange) -> Answer:
        """Send the change of the line once."""

        def send(platform: Platform, permit: Permit, timeout_s: float) -> Awaitable[Answer]:
            _count_attempt(call)
            if (callee := change.callee) is not None:
                return platform.set_callee(
                    call.subscription_id or "", callee=callee.number.reveal(), ttl_s=callee.ttl_s, token=call.token,
                    permit=permit, timeout_s=timeout_s,
                )  # fmt: skip
            callback = "" if change.no_callback else None
            request = ModifyLine(
                subscription_id=call.subscription_id or "",
                token=call.token,
                a=change.a.reveal() if change.a is not None else None,
                b=change.b.reveal() if change.b is not None else None,
                direction=Direction(change.direction) if change.direction is not None else None,
                ttl_s=change.ttl_s,
                options=change.options,
                was=call.options,
                callback=change.callback.reveal() if change.callback is not None else callback,
            )
            return platform.modify(request, permit=permit, timeout_s=timeout_s)

        return await self._send(call, send, "modify")

    async def lookup(self, call: PlatformCall) -> Answer:
        """Ask once what the call's own subscription is like; rides in the lane of the call it resolves."""

        def send(platform: Platform, permit: Permit, timeout_s: float) -> Awaitable[Answer]:
            return platform.lookup(call.subscription_id or "", permit=permit, timeout_s=timeout_s)

        return await self._send(call, send, "query")

    async def query(self, call: PlatformCall) -> Answer:
        """Ask once what A has on the call's X, or what is on its place; rides in the lane of the call it resolves."""

        def send(platform: Platform, permit: Permit, timeout_s: float) -> Awaitable[Answer]:
            return platform.query(
                x=call.x, a=call.a.reveal(), extension=self.extension(call), permit=permit, timeout_s=timeout_s
            )

        return await self._send(call, send, "query")

    async def bind_peer(self, call: PlatformCall, *, b: PhoneNumber, ttl_s: int, tone: str | None) -> Answer:
        """Ask for a Y for ``b`` once."""

        def send(platform: Platform, permit: Permit, timeout_s: float) -> Awaitable[Answer]:
            _count_attempt(call)
            request = BindPeer(
                subscription_id=call.subscription_id or "",
                b=b.reveal(),
                ttl_s=ttl_s,
                token=f"{call.line_id.hex}.{call.key.no}.{call.attempt}",
                area_code=self._registry().pools[call.pool_id].area_code,
                relaxed=bool(call.options.relaxed),
                tone=tone,
            )
            return platform.bind_peer(request, permit=permit, timeout_s=timeout_s)

        return await self._send(call, send, "bind")

    async def unbind_peer(self, call: PlatformCall, y: str) -> Answer:
        """Take that one Y away once."""

        def send(platform: Platform, permit: Permit, timeout_s: float) -> Awaitable[Answer]:
            _count_attempt(call)
            return platform.unbind_peer(call.subscription_id or "", y=y, permit=permit, timeout_s=timeout_s)

        return await self._send(call, send, "unbind")

    async def search(self, call: PlatformCall, x: str) -> Answer:
        """Ask once what is on ``x``, for a call without an X; whatever waits for its turn by then goes first."""

        def send(platform: Platform, permit: Permit, timeout_s: float) -> Awaitable[Answer]:
            return platform.query(x=x, a=call.a.reveal(), permit=permit, timeout_s=timeout_s)

        return await self._send(call, send, "query", urgency=boottime() + _SEARCH_WAITS_S)

    async def ask(
        self, app_id: int, send: Send, *, deadline: float, caller_id: int = 0, kind: Kind = Kind.QUERY,
        effect: bool = False,
    ) -> Answer:  # fmt: skip
        """Send once what nobody repeats for us: it waits for its turn until ``deadline`` (boottime), and has no row.

        Refused for our clock alone it is signed and sent once more. ``effect``: it changes something there, so it is
        withheld from an app that is about to go into shadow.
        """
        skew_fixed = False
        while True:
            if not self._fresh():
                await asyncio.sleep(min(_STALE_LOOK_S, max(deadline - boottime(), 0.0)))
            route = self._route(app_id)
            ask = Ask(deadline, kind, caller_id, self._weight(caller_id), "query")
            try:
                async with asyncio.timeout(deadline - boottime()) as patience, route.lane.turn(ask) as use_by:
                    patience.reschedule(None)
                    left_s = min(self.timing.http_timeout_s, deadline - boottime())
                    if time.monotonic() > use_by or left_s <= 0:
                        return Answer(Verdict.WITHHELD, detail="the slot has passed")
                    answer = await send(route.platform, self._count(route, use_by, effect=effect), left_s)
                    await self._took(route, "query", answer)
                    if answer.verdict is not Verdict.CLOCK_SKEW or answer.date_skew_s is None or skew_fixed:
                        return answer
                    skew_fixed = True  # the clock has been corrected
            except TimeoutError:
                return Answer(Verdict.WITHHELD, detail="no turn in time")
            except LaneShut:
                return Answer(Verdict.BAD_DIGEST, detail="nothing is sent until the secret is corrected")
            except LaneMoved:
                continue

    def _count(self, route: _Route, use_by: float, *, effect: bool) -> Permit:
        def in_time() -> bool:
            if effect:
                self._fence()
            if time.monotonic() > use_by or not self._believes(route):
                return False
            if effect and self._registry().apps[route.app.id].suspended == SWITCHING:
                return False
            self.sent += 1
            return True

        return in_time

    async def _send(self, call: PlatformCall, send: Send, interface: str, *, urgency: float | None = None) -> Answer:
        while True:
            if not self._fresh():
                # It would be withheld: no reason to ask for turns meanwhile as fast as the loop goes.
                await asyncio.sleep(_STALE_LOOK_S)
            route = self._route(call.app_id)
            kind = Kind.MOVE if call.moves else _LANES[call.op]
            ask = Ask(
                call.urgency if urgency is None else urgency, kind, call.caller_id, self._weight(call.caller_id),
                interface,
            )  # fmt: skip
            try:
                async with route.lane.turn(ask) as use_by:
                    await self._lease_to_send(call)
                    if time.monotonic() > use_by:
                        # Renewing the lease took longer than a slot may be late: sent now, it would break the limit.
                        return Answer(Verdict.WITHHELD, detail="the slot has passed")
                    if call.unwanted and call.op == interface == "bind":
                        return Answer(Verdict.WITHHELD, detail="nobody wants it any more")
                    call.asked = interface
                    answer = await send(route.platform, self._permit(route, call, use_by), self._time_to_answer(call))
                    return await self._took(route, interface, answer)
            except LaneMoved:
                continue

    def _weight(self, caller_id: int) -> int:
        return self._registry().weights.get(caller_id, 1)

    def _believes(self, route: _Route) -> bool:
        """Tell whether the app's driver is of the kind that a fresh configuration names: sending, or in shadow."""
        return self._fresh() and self._registry().apps[route.app.id].shadow == route.app.shadow

    def _permit(self, route: _Route, call: PlatformCall, use_by: float) -> Permit:
        def still_ours() -> bool:
            self._fence()
            if time.monotonic() > use_by or call.lost or boottime() + MIN_LEASE_S > call.lease_until:
                return False
            if not self._believes(route):
                return False
            self.sent += 1
            if call.first_sent_at is None and not call.maybe_sent and call.asked != "query":
                call.first_sent_at = boottime()
            crashpoint_when_written("after_send")
            if call.op != "unbind":  # that one does no harm when it comes late
                crashpoint("before_send")
            return True

        return still_ours

    async def _lease_to_send(self, call: PlatformCall) -> None:
        if call.lost:
            raise NotOurs
        once = call.op == "bind" and not call.x and call.attempt == 0
        if once:
            # It must not be sent twice: whoever takes it over must be able to tell that it may have been.
            call.attempt = 1
        # Its client has gone: whether it is still wanted is looked up before it is sent, not after.
        late = call.op == "bind" and boottime() > call.urgency + _CLIENT_GONE_S and self._withdraws(call.app_id)
        if once or late or boottime() + MIN_LEASE_S + _MARGIN_S > call.lease_until:
            await self.extend(call)

    def _withdraws(self, app_id: int) -> bool:
        return self._registry().apps[app_id].withdraw_after_s is not None

    def _time_to_answer(self, call: PlatformCall) -> float:
        return min(self.timing.http_timeout_s, call.lease_until - boottime() - _MARGIN_S)

    async def _took(self, route: _Route, interface: str, answer: Answer) -> Answer:
        """Draw the lane's conclusions from an answer, before anybody else gets the turn."""
        crashpoint("after_answer")
        self.failing.heard(route.app.id, interface, answer)
        await self._stops.answered(route.app, route.lane, answer)
        if answer.verdict is Verdict.CLOCK_SKEW and answer.date_skew_s is not None:
            log.warning("platform_clock_skew", seconds=round(answer.date_skew_s))
            route.platform.set_clock_offset(answer.date_skew_s)
        return answer

    async def look_at_stops(self) -> None:
        """Ask what other instances have been refused, and take in a change of the limits."""
        await self._stops.look()
        for app_id in list(self._routes):
            if app_id in self._registry().apps:
                self._route(app_id)

    def blocked_s(self) -> float:
        """Return how long the platform still blocks our address."""
        return self._stops.blocked_s()

    # -- keeping the call ------------------------------------------------------------------------------------------

    async def back_off(self, call: PlatformCall, answer: Answer, seconds: float) -> float:
        """Wait about that long, keeping the call; return the next, longer wait.

        Raises:
            CallDead: it has failed too often.
            NotOurs: somebody else has taken it.
        """
        log.warning("call_retried", op=call.op, verdict=answer.verdict.value, http=answer.http, code=answer.code)
        match await self.failing.note(call, answer):
            case "dead":
                raise CallDead
            case None:
                raise NotOurs
        wait_s = max(seconds, self.timing.operator_backoff_s if self.failing.hopeless(call) else 0.0)
        await self.pause(call, wait_s * random.uniform(0.8, 1.2), answer)  # noqa: S311 - jitter
        return min(seconds * 2, self.timing.longest_backoff_s)

    async def pause(self, call: PlatformCall, seconds: float, answer: Answer | None = None) -> None:
        """Wait, keeping the call: :meth:`keep` renews its lease meanwhile."""
        await self.extend(call, answer)
        await asyncio.sleep(seconds)
        if call.lost:
            raise NotOurs

    async def extend(self, call: PlatformCall, answer: Answer | None = None, *, lease_s: float | None = None) -> None:
        """Renew the lease, for the usual time or ``lease_s``, and note the last answer.

        Raises:
            NotOurs: if somebody else has taken the call.
        """
        asked_at = boottime()
        lease_s = lease_s or self.timing.lease_s
        extension = Extension(
            call.key, call.attempt, lease_s, answer.http if answer else None, short(answer.code) if answer else None
        )
        line_state = await self._extending.submit(extension)
        if line_state is None:
            call.lost = True
            raise NotOurs
        # Released or withdrawn meanwhile: nothing more is sent for it.
        call.unwanted = call.op != "unbind" and line_state == "releasing"
        call.lease_until = max(call.lease_until, asked_at + lease_s)

    async def keep(self, calls: Iterable[PlatformCall]) -> None:
        """Renew the leases that end soon; a call that has long to wait gets a longer one."""
        soon = boottime() + self.timing.lease_s / 2 + _MARGIN_S
        due = [call for call in calls if not call.lost and call.lease_until < soon]
        leases = {app_id: self._queued_lease_s(app_id) for app_id in {call.app_id for call in due}}
        await asyncio.gather(
            *(self.extend(call, lease_s=None if call.attempt else leases[call.app_id]) for call in due),
            return_exceptions=True,
        )

    def _queued_lease_s(self, app_id: int) -> float:
        """Return the lease of a call in the queue: if we die, it is free before half of the queue would be gone."""
        return self.timing.lease_s + min(self.backlog_s(app_id) / 2, _LONGEST_WAIT_LEASE_S)

    async def persist(self, submit: Callable[[], Awaitable[R]]) -> R:
        """Write an outcome, again and again while the database is away: it is known nowhere else.

        Raises:
            DatabaseAway: after half a minute; the lease has ended by then and another instance finds out by itself.
        """
        for attempt in range(30):
            try:
                return await submit()
            except DatabaseAway:
                await asyncio.sleep(min(0.1 * 2**attempt, 1.0))
        return await submit()

    # -- lanes -----------------------------------------------------------------------------------------------------

    def backlog_s(self, app_id: int, caller_id: int | None = None) -> float:
        """Return how long a new call of the app would wait for its turn, as a bind of the caller if one is named."""
        weight = self._weight(caller_id) if caller_id is not None else 1
        return self._route(app_id).lane.backlog_s(caller_id, weight)

    def lanes(self) -> dict[int, Lane]:
        """Return the lanes by app."""
        return {app_id: route.lane for app_id, route in self._routes.items()}

    def waiting(self) -> int:
        """Return how many calls wait for a turn."""
        return sum(route.lane.waiting for route in self._routes.values())

    def _route(self, app_id: int) -> _Route:
        app = self._registry().apps[app_id]
        route = self._routes.get(app_id)
        if route is not None and route.app is app:
            return route
        if route is None:
            lane, platform = self._new_lane(app), self._make_platform(app)
        elif _access(app) != _access(route.app):
            route.lane.retire()
            task = asyncio.create_task(route.platform.close(), name="close driver")
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
            lane, platform = self._new_lane(app), self._make_platform(app)
        else:
            # A new limit is no reason to make those who wait begin anew.
            lane, platform = route.lane, route.platform
            lane.relimit(limiter_of(self._db, app))
        self._routes[app_id] = route = _Route(app, lane, platform)
        return route

    def _new_lane(self, app: App) -> Lane:
        lane = Lane(app.name, width=self._width, limiter=limiter_of(self._db, app))
        self._stops.apply(app, lane)
        return lane

    async def close(self) -> None:
        """Stop granting turns and close connections."""
        for route in self._routes.values():
            route.lane.close()
            await route.platform.close()


def _access(app: App) -> tuple[str, str, str, str, bool]:
    return app.app_key, app.secret, app.base_url, app.auth_scheme, app.shadow


def _count_attempt(call: PlatformCall) -> None:
    # The column is a smallint, and an outage of two days reaches its end: a call must not be lost to that.
    call.attempt = min(call.attempt + 1, _MOST_ATTEMPTS)


def short(code: str | None) -> str | None:
    """Return a platform code cut to what we store."""
    return code[:32] if code else None

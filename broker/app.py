"""Composition root of one worker process: settings → database, flows, routes, services; start and drain order."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from uuid import UUID

import structlog
from aiohttp import web

from broker.api.context import Limits, Services
from broker.api.door import Door
from broker.api.health import add_health
from broker.api.routes import ROUTES
from broker.api.server import Runner, build, shortly
from broker.clock import boottime
from broker.domain.admission import MOST_ITEMS, Gate
from broker.domain.change import LineChange
from broker.domain.modes import MODES
from broker.domain.shadow import FRESH_S
from broker.domain.webhook import parse_networks, parse_schedule
from broker.edge.listener import EdgeRunner
from broker.edge.receiver import Receiver
from broker.errors import Problem
from broker.fence import Fence
from broker.flows.allocate import Allocator
from broker.flows.allocators import Allocators
from broker.flows.asking import Asking
from broker.flows.batching import Batcher
from broker.flows.calls import PlatformCall
from broker.flows.change import Changer
from broker.flows.exports import Exports
from broker.flows.feed import Feeds
from broker.flows.inbound import Inbound, steady
from broker.flows.live import Counted
from broker.flows.notices import Notices
from broker.flows.peers import Peers
from broker.flows.picked import Unpicked
from broker.flows.place import Placer
from broker.flows.pool_figures import PoolFigures
from broker.flows.questions import Questions
from broker.flows.reach import Books
from broker.flows.route import Router
from broker.flows.succession import Successions
from broker.metrics import Metrics
from broker.platform.huawei.access import calls_of, driver_of
from broker.platform.huawei.http import HttpOptions
from broker.platform.measured import Measured
from broker.platform.protocol import Platform
from broker.platform.shadow import ShadowPlatform
from broker.platform.switchboard import Switchboard
from broker.settings import Settings
from broker.store import (
    bindings,
    events,
    idempotency,
    inbound,
    listing,
    registry,
    shadow,
)
from broker.store.allocation import LockMode
from broker.store.bindings import Binding
from broker.store.crypto import Vault, parse_data_keys, parse_index_key
from broker.store.database import Database
from broker.store.idempotency import KeyAsk
from broker.store.registry import App, Registry
from broker.store.statements import statements
from broker.workers.audit import Auditor
from broker.workers.budgets import Budgets
from broker.workers.call_back import CallBacks
from broker.workers.deliver import Delivery
from broker.workers.dispatch import Dispatcher
from broker.workers.evacuate import Evacuator, Times
from broker.workers.housekeeping import Housekeeping, release_abandoned
from broker.workers.levels import Levels
from broker.workers.measure import Measures
from broker.workers.rescue import SLICE, rescue
from broker.workers.sender import MIN_LEASE_S, Sender, Timing
from broker.workers.service import Periodic
from broker.workers.webhook_client import WebhookClient
from broker.workers.webhooks import Webhooks

log = structlog.get_logger()

_COUNT_SLICE = 2000
_PLACE_S = 0.1
_WEBHOOKS_S = 0.5
_PLACE_SLICE = 500
#: So long before a lease could end that was looked at, nothing may wait to be handed to the kernel any more.
_FENCE_BEFORE_S = 0.5


class Worker:
    """Everything one process does between its sockets and the database."""

    def __init__(self, settings: Settings, seat: str) -> None:
        """Take the settings; nothing is opened yet but the metrics. ``seat`` tells workers apart."""
        self._settings = settings
        self._seat = seat
        self._metrics = Metrics()
        self._in_flight: Counter[str] = Counter()
        #: What apps in shadow refused and would have sent, since it was last written down.
        self._shadowed: Counter[tuple[int, str]] = Counter()
        self._confirmed_at = 0.0
        self._vault = Vault(parse_data_keys(settings.data_keys), parse_index_key(settings.index_key))
        self._db = Database(
            settings.database_url,
            connections=settings.db_connections,
            timeout_s=settings.db_timeout_s,
            statement_cache=settings.db_statement_cache,
        )
        self._gate = Gate(boottime, longest_wait_s=settings.overload_wait_s, most=MOST_ITEMS)
        self._feeds = Feeds(self._db)
        self._registry: Registry | None = None
        self._runners: list[web.AppRunner] = []
        self._periodic: list[Periodic] = []

    def registry(self) -> Registry:
        """Return the newest configuration."""
        if self._registry is None:
            raise RuntimeError("the worker has not been started")
        return self._registry

    async def start(self, api: socket.socket | None, edge: socket.socket | None) -> None:
        """Connect, load the configuration, begin the services, then listen where there is a socket."""
        settings = self._settings
        await self._db.open()
        await self._check_lock_table()
        self._confirmed_at = boottime()
        self._registry = await registry.load(self._db, self._vault)
        self._allocator = self._make_allocators()
        sender = self._make_sender()
        await sender.look_at_stops()
        self._dispatcher = self._make_dispatcher(sender)
        self._auditor = self._make_auditor(sender)
        self._evacuator = self._make_evacuator()
        self._asking = Asking(self._db, sender, self._dispatcher)
        counted = self._make_counted()
        self._notices = Notices(self._db, self._vault, self.registry)
        await self._notices.look()
        self._successions = Successions(self._db, counted, self._dispatcher, lease_s=settings.lease_s)
        self._webhooks = self._make_webhooks()
        self._measures = self._make_measures(sender)
        self._services = self._make_services(sender, counted)
        self._call_backs = CallBacks(self._db, self._vault, self._services.changer, self._services.show.submit)
        self._periodic = self._make_periodic(sender)
        for service in self._periodic:
            service.start()
        self._measures.lag.start()
        self._receiver = self._make_receiver()
        if api is not None:
            answer = shortly(self._services, self._metrics)
            door = Door(self._gate, self._metrics, ROUTES, self._services.limits, answer)
            await self._listen(build(self._services, self._conditions, self._metrics), api, door)
        if edge is not None:
            edge_app = self._receiver.application()
            add_health(edge_app, self._conditions)
            await self._listen(
                edge_app, edge, runner_of=partial(EdgeRunner, take=self._receiver.take), tls=tls_of(settings)
            )

    async def drain(self) -> None:
        """Stop listening, answer what was accepted, finish or hand over platform calls, close."""
        self._services.draining = True
        self._feeds.close()
        budget = self._settings.drain_s
        closing = asyncio.gather(*(runner.cleanup() for runner in self._runners))
        await asyncio.wait((closing,), timeout=budget / 6)
        self._dispatcher.let_go()
        await closing
        await self._receiver.drain()
        for service in self._periodic:
            if service.name != "keep":
                await service.stop()
        await asyncio.gather(self._dispatcher.drain(budget / 2), self._webhooks.stop(budget / 3))
        for service in self._periodic:
            await service.stop()
        self._measures.lag.stop()
        await self._measures.look()
        await self._db.close()

    async def _check_lock_table(self) -> None:
        """Refuse to start when this worker's batches alone could fill half of the server's lock table."""
        settings = self._settings
        wanted = 2 * settings.batch_size * settings.batches_in_flight
        row = await self._db.fetchrow(statements("config")["lock_table"])
        room = int(row["room"]) if row else 0
        if 2 * wanted > room:
            raise Problem(
                f"{wanted} advisory locks may be taken at once, but the server has room for {room} in all: raise "
                "max_locks_per_transaction, or lower BROKER_BATCH_SIZE or BROKER_BATCHES_IN_FLIGHT"
            )

    # -- parts -----------------------------------------------------------------------------------------------------

    def _make_allocators(self) -> Allocators:
        settings = self._settings
        pairs = Allocator(
            self._db,
            self._vault,
            self.registry,
            lease_s=settings.lease_s,
            boottime=boottime,
            size=settings.batch_size,
            in_flight=settings.batches_in_flight,
            mode=LockMode(settings.test_locks),
        )
        places = Placer(
            self._db,
            self._vault,
            self.registry,
            lease_s=settings.lease_s,
            boottime=boottime,
            size=settings.batch_size,
            in_flight=settings.batches_in_flight,
        )
        unpicked = Unpicked(self._db, self._vault, lease_s=settings.lease_s, boottime=boottime)
        return Allocators(pairs, places, unpicked, self.registry)

    def _make_dispatcher(self, sender: Sender) -> Dispatcher:
        return Dispatcher(
            self._db,
            sender,
            self._allocator,
            vault=self._vault,
            rest_s=lambda app_id: self.registry().apps[app_id].quarantine_s,
            replaces=self._replaces,
            rebinds=lambda app_id: self.registry().apps[app_id].rebinds,
            full=self._allocator.unpicked.note_full,
        )

    def _make_auditor(self, sender: Sender) -> Auditor:
        settings = self._settings
        return Auditor(
            self._db,
            self._vault,
            sender,
            self.registry,
            every_s=settings.audit_interval_s,
            share=settings.audit_share,
            per_s=settings.audit_rate,
            lease_s=settings.audit_lease_s,
        )

    def _make_evacuator(self) -> Evacuator:
        settings = self._settings
        times = Times(
            lease_s=settings.lease_s, overlap_s=settings.evacuation_overlap_s, retry_s=settings.evacuation_retry_s
        )
        return Evacuator(self._db, self._vault, self.registry, self._allocator, self._dispatcher, times=times)

    def _make_counted(self) -> Counted:
        return Counted(
            self._allocator,
            self.registry,
            Batcher("claim_live", partial(inbound.claim_live, self._db), in_flight=1),
            Batcher("drop_claims", partial(inbound.drop_claims, self._db), in_flight=1),
        )

    def _make_webhooks(self) -> Webhooks:
        settings = self._settings
        return Webhooks(
            self._db,
            self._vault,
            self._feeds,
            WebhookClient(
                timeout_s=settings.webhook_timeout_s,
                allowed=parse_networks(settings.webhook_allow),
            ),
            Delivery(
                schedule=parse_schedule(settings.webhook_retry_s),
                most_at_once=settings.webhook_concurrency,
                longest_pause_s=settings.webhook_pause_s,
                lease_s=settings.webhook_lease_s,
            ),
            self._metrics,
        )

    def _make_measures(self, sender: Sender) -> Measures:
        return Measures(
            self._metrics,
            worker=self._seat,
            db=self._db,
            allocator=self._allocator,
            dispatcher=self._dispatcher,
            sender=sender,
            registry=self.registry,
            in_flight=self._in_flight,
            gate=self._gate,
        )

    def _make_sender(self) -> Sender:
        settings = self._settings
        timing = Timing(
            lease_s=settings.lease_s,
            http_timeout_s=settings.platform_timeout_s,
            absence_s=settings.platform_absence_s,
            flow_pause_s=(settings.platform_flow_pause_s, settings.platform_flow_pause_s + 1.0),
            dead_after_tries=settings.dead_after_tries,
            dead_after_s=settings.dead_after_s,
        )
        return Sender(
            self._db,
            self.registry,
            self._platform,
            timing=timing,
            width=settings.platform_connections,
            egress=settings.egress,
            fence=Fence(MIN_LEASE_S - _FENCE_BEFORE_S).arm,
            fresh=lambda: boottime() < self._confirmed_at + FRESH_S,
        )

    def _replaces(self, call: PlatformCall, change: LineChange) -> bool:
        app = self.registry().apps[call.app_id]
        anew = MODES[app.mode].rebinds
        return bool(anew) and ((change.a is not None and "a" in anew) or (change.renewal and app.recreate))

    def _platform(self, app: App) -> Platform:
        if app.mode == "x":
            calls = calls_of(app, HttpOptions(max_connections=1))
            return Measured(Switchboard(calls), self._metrics, self._in_flight)
        driver = driver_of(app, HttpOptions(max_connections=self._settings.platform_connections))
        measured = Measured(driver, self._metrics, self._in_flight)
        if app.shadow:
            return ShadowPlatform(measured, lambda what: self._shadowed.update([(app.id, what)]))
        return measured

    def _make_services(self, sender: Sender, counted: Counted) -> Services:
        db, settings = self._db, self._settings

        async def show(keys: Sequence[tuple[int, UUID]]) -> list[Binding | None]:
            found = await bindings.show(db, self._vault, keys)
            return [found.get(key) for key in keys]

        async def forget(items: Sequence[tuple[KeyAsk, int]]) -> list[None]:
            for ask, token in items:
                await idempotency.forget(db, ask, token)
            return [None] * len(items)

        showing: Batcher[tuple[int, UUID], Binding | None] = Batcher("show", show)
        return Services(
            vault=self._vault,
            registry=self.registry,
            allocator=counted,
            dispatch=self._dispatcher,
            begin_key=Batcher("begin_key", lambda asks: idempotency.begin(db, asks), distinct=lambda ask: ask.row),
            finish_key=Batcher("finish_key", lambda items: idempotency.finish(db, items)),
            forget_key=Batcher("forget_key", forget),
            show=showing,
            begin_release=Batcher(
                "release",
                lambda asks: bindings.release(db, asks, reason="released", lease_s=settings.lease_s),
                distinct=lambda ask: ask.binding_id,
            ),
            release_later=partial(bindings.release_later, db),
            live_of_orders=partial(listing.live_of_orders, db),
            find=partial(listing.find, db),
            changer=Changer(
                db,
                self._vault,
                self.registry,
                self._allocator.pairs,
                self._dispatcher,
                showing.submit,
                lease_s=settings.lease_s,
            ),
            successions=self._successions,
            asking=self._asking,
            peers=Peers(db, self._vault, self._dispatcher, sender, lease_s=settings.lease_s),
            pool_figures=PoolFigures(partial(listing.figures, db)),
            reach=Books(db, self._vault),
            gate=self._gate,
            inbound=Inbound(Batcher("take_requests", partial(inbound.take_requests, db), in_flight=1), steady),
            feeds=self._feeds,
            exports=Exports(),
            limits=Limits(default_deadline_s=settings.request_timeout_s, lease_s=settings.lease_s),
            shadowed=self._shadowed,
        )

    def _make_receiver(self) -> Receiver:
        questions = Questions(
            Books(self._db, self._vault),
            Router(self._db, self._vault, self.registry),
            self.registry,
            self._settings.question_timeout_s,
        )
        return Receiver(self._notices, questions, self.registry, self._metrics)

    def _make_periodic(self, sender: Sender) -> list[Periodic]:
        settings = self._settings
        housekeeping = Housekeeping(self._db, self._metrics, self.registry, expiry_grace_s=settings.expiry_grace_s)
        budgets = Budgets(self._db, self._metrics, self.registry, self._heed_heat)
        levels = Levels(self._db, self._metrics, self.registry, self._allocator.refusals)

        async def heed_stops() -> bool:
            await sender.look_at_stops()
            return False

        return [
            Periodic("stops", 0.5, heed_stops),
            Periodic("config", 1.0, self._watch_config),
            Periodic("keep", 1.0, self._keep),
            Periodic("rescue", settings.rescue_interval_s, self._rescue),
            Periodic("sweep", settings.sweep_interval_s, housekeeping.sweep),
            Periodic("successions", 1.0, self._successions.look_after),
            Periodic("abandoned", 1.0, self._release_abandoned),
            Periodic("audit", 1.0, self._audit),
            Periodic("evacuation", 0.5, self._evacuate),
            Periodic("drift", 15.0, housekeeping.count_drift),
            Periodic("withdraw", 2.0, housekeeping.withdraw),
            Periodic("dead_calls", 5.0, housekeeping.count_dead),
            Periodic("exposure", 60.0, housekeeping.count_exposure),
            Periodic("levels", 15.0, levels.count),
            Periodic("refusals", 1.0, levels.heed),
            Periodic("budgets", 60.0, budgets.look),
            Periodic("heat", 5.0, budgets.look_at_heat),
            Periodic("shadow", 1.0, self._count_shadow),
            Periodic("idempotency", 60.0, housekeeping.sweep_idempotency),
            Periodic("retention", 5.0, housekeeping.forget_ended),
            Periodic("retention_figures", 60.0, housekeeping.count_retention),
            Periodic("live_limits", 5.0, partial(inbound.count_live, self._db, limit=_COUNT_SLICE)),
            Periodic("history", 60.0, housekeeping.tend_history),
            Periodic("projection", 0.05, self._notices.turn),
            Periodic("inbox", 1.0, self._look_after_inbox),
            Periodic("notices", 60.0, housekeeping.tend_notices),
            Periodic("events", _PLACE_S, self._place_events),
            Periodic("feeds", self._feeds.look_s, self._feeds.look),
            Periodic("event_days", 60.0, housekeeping.tend_events),
            Periodic("webhooks", _WEBHOOKS_S, self._webhooks.look),
            Periodic("call_backs", 0.5, self._call_backs.look),
            Periodic("metrics", 1.0, self._measures.look),
        ]

    async def _listen(
        self,
        app: web.Application,
        sock: socket.socket,
        door: Door | None = None,
        *,
        runner_of: Callable[..., Runner] = Runner,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        runner = runner_of(
            app,
            door=door,
            access_log=None,
            handle_signals=False,
            shutdown_timeout=self._settings.drain_s / 2,
            keepalive_timeout=75,
        )
        await runner.setup()
        await web.SockSite(runner, sock, ssl_context=tls, backlog=1024).start()
        self._runners.append(runner)

    async def _conditions(self) -> tuple[Mapping[str, bool], Mapping[str, bool]]:
        required = {
            "configured": self._registry is not None,
            "services": all(service.running for service in self._periodic),
            "not_draining": not self._services.draining,
        }
        return required, {"database": self._db.reachable}

    # -- services --------------------------------------------------------------------------------------------------

    async def _watch_config(self) -> bool:
        asked_at = boottime()
        if await registry.version(self._db) != self.registry().version:
            self._registry = await registry.load(self._db, self._vault)
            log.info("config_loaded", version=self._registry.version)
        self._confirmed_at = asked_at
        return False

    async def _keep(self) -> bool:
        await self._dispatcher.keep_leases()
        return False

    async def _rescue(self) -> bool:
        taken = await rescue(self._db, self._vault, self._dispatcher, self.registry, self._settings.lease_s)
        self._metrics.rescued.inc(taken)
        return taken >= SLICE

    async def _audit(self) -> bool:
        more = await self._auditor.look()
        for kind, found in self._auditor.found.items():
            self._metrics.drift_found.labels(kind).inc(found)
        self._metrics.audit_calls.inc(self._auditor.calls)
        self._auditor.found.clear()
        self._auditor.calls = 0
        return more

    async def _evacuate(self) -> bool:
        await self._evacuator.look()
        for outcome, lines in self._evacuator.outcomes.items():
            self._metrics.evacuated_lines.labels(outcome).inc(lines)
        self._evacuator.outcomes.clear()
        return False

    async def _count_shadow(self) -> bool:
        counted = dict(self._shadowed)
        if counted:
            await shadow.count(self._db, counted)
            # What came meanwhile stays.
            self._shadowed.subtract(counted)
            self._shadowed += Counter()
        return False

    async def _release_abandoned(self) -> bool:
        for queue in self._allocator.abandoned:
            await release_abandoned(self._db, queue)
        return False

    async def _look_after_inbox(self) -> bool:
        await self._notices.look()
        waiting, oldest_s = self._notices.backlog
        self._metrics.inbox_waiting.set(waiting)
        self._metrics.inbox_oldest.set(oldest_s)
        more = await self._notices.rescue()
        for (kind, outcome), number in self._notices.counts.items():
            self._metrics.notices.labels(kind, outcome).inc(number)
        self._notices.counts.clear()
        return more

    def _heed_heat(self, hot: Mapping[int, int]) -> None:
        self._allocator.pairs.hot = hot

    async def _place_events(self) -> bool:
        placed = await events.place(self._db, limit=_PLACE_SLICE) or 0
        if placed:
            self._metrics.events_placed.inc(placed)
            await self._feeds.look()
        return placed >= _PLACE_SLICE


def tls_of(settings: Settings) -> ssl.SSLContext | None:
    """Return what the edge listener speaks TLS with; ``None`` = it does not.

    Raises:
        Problem: the files cannot be used.
    """
    if not settings.edge_tls_cert:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(settings.edge_tls_cert, settings.edge_tls_key or None)
    except (OSError, ssl.SSLError):
        raise Problem("BROKER_EDGE_TLS_CERT and BROKER_EDGE_TLS_KEY are no certificate with its key") from None
    return context

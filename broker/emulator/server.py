"""Composition: settings to core, wire listener, admin listener; start and stop in order."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Final

import structlog
from aiohttp import web

from broker.emulator.admin import Admin
from broker.emulator.admin_calls import CallRoutes
from broker.emulator.admin_told import ToldRoutes
from broker.emulator.calls import Calls
from broker.emulator.core import Core
from broker.emulator.customer import Customer
from broker.emulator.faults import Faults
from broker.emulator.listener import WireListener
from broker.emulator.messages import Messages
from broker.emulator.pushing import Pusher
from broker.emulator.schedule import Schedule
from broker.emulator.settings import EmulatorSettings
from broker.emulator.wire import Wire

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

#: How late the ledger may note an expiry while nothing asks. Whatever asks sees it at once.
_EXPIRY_TICK_S: Final = 0.2


async def serve(
    settings: EmulatorSettings,
    *,
    wire_sock: socket.socket | None = None,
    admin_sock: socket.socket | None = None,
    ready: Callable[[str, str], None],
    handle_signals: bool = True,
) -> None:
    """Run an emulator until cancelled, or until SIGTERM or SIGINT when ``handle_signals``.

    ``ready`` is called once with the URLs of the wire and of the admin port, when both accept connections. Sockets
    that are passed in must be bound; they are closed at the end. Raises ``StateDirBusyError`` if another emulator
    works in ``state_dir``, ``OSError`` if an address cannot be had.
    """
    tls = _tls(settings)
    with contextlib.ExitStack() as stack:
        wire_sock = stack.enter_context(wire_sock or _bind(settings.host, settings.port))
        admin_sock = stack.enter_context(admin_sock or _bind(settings.admin_host, settings.admin_port))
        core = Core(settings)
        stack.callback(core.journal.close)
        stopped = stack.enter_context(_stop_signals(enabled=handle_signals))
        faults = Faults(settings.seed)
        wire = Wire(settings, core, faults)
        listener = WireListener(wire, core.clock, keep_alive=settings.keep_alive)
        schedule = Schedule(core.clock)
        customer = Customer(core.clock, settings.block_reply_s)
        pusher = Pusher(settings, core.clock, schedule, customer, core.registry)
        calls = Calls(settings, core, pusher, schedule)
        admin = Admin(settings, core, faults, wire).application()
        admin.add_routes(CallRoutes(core, calls, settings.record_domain).routes())
        admin.add_routes(ToldRoutes(core, calls, Messages(settings, core, pusher), pusher).routes())
        telling = asyncio.gather(schedule.run(), pusher.run())
        runner = web.AppRunner(admin, access_log=None, shutdown_timeout=1.0)
        try:
            await runner.setup()
            await web.SockSite(runner, admin_sock).start()
            await listener.start(wire_sock, tls)
            urls = _url(wire_sock, "https" if tls else "http"), _url(admin_sock, "http")
            log.info("emulator_started", wire=urls[0], admin=urls[1])
            ready(*urls)
            await _expire_until(stopped, core)
        finally:
            await listener.stop()
            await runner.cleanup()
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)
            await customer.close()
            log.info("emulator_stopped", bindings=len(core.book.by_id), ledger=core.journal.next_seq - 1)


async def _expire_until(stopped: asyncio.Event, core: Core) -> None:
    while not stopped.is_set():
        try:
            core.expire(core.clock.now_ms())
        except OSError as error:  # a full disk: the next tick tries again
            log.error("emulator_expiry_failed", error=type(error).__name__)  # noqa: TRY400 - no traceback with numbers
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopped.wait(), _EXPIRY_TICK_S)


@contextlib.contextmanager
def _stop_signals(*, enabled: bool) -> Iterator[asyncio.Event]:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    kinds = (signal.SIGTERM, signal.SIGINT) if enabled else ()
    for kind in kinds:
        loop.add_signal_handler(kind, stopped.set)
    try:
        yield stopped
    finally:
        for kind in kinds:
            loop.remove_signal_handler(kind)


def _bind(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


def _url(sock: socket.socket, scheme: str) -> str:
    host, port = sock.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _tls(settings: EmulatorSettings) -> ssl.SSLContext | None:
    if settings.certfile is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(settings.certfile, settings.keyfile)
    return context

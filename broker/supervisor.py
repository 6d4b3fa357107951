"""The parent process: owns the sockets, keeps the workers alive, runs the admin listener, counts signals.

Each worker has a SO_REUSEPORT socket of its own that the parent made and keeps: what queued on it while its worker
died is served by the successor.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import IO

import structlog
from aiohttp import web

from broker import __version__
from broker.admin.listener import admin_app
from broker.admin.metrics import MetricsFolder, MetricsPage
from broker.api.health import add_health
from broker.metrics import Metrics, keep_in
from broker.processes import listen, tell_systemd
from broker.settings import Settings

log = structlog.get_logger()

_FIRST_RESTART_S = 0.1
_LONGEST_RESTART_S = 5.0
_STEADY_S = 10.0
_START_S = 20.0
_HOPELESS = 3  # starts in a row
#: Signals that come this close together are one: a shell, `timeout` and a service manager each pass it to the group.
_ONE_SIGNAL_S = 0.5

AddRoutes = Callable[[web.Application], None]


class CannotServe(Exception):
    """One sentence for the user."""


@dataclass(slots=True)
class _Seat:
    """A worker's place: its sockets outlive it. ``None``: it does not listen there."""

    name: str
    api: socket.socket | None
    edge: socket.socket | None
    process: Process | None = None
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    failures: int = 0


class Supervisor:
    """Runs ``settings.workers`` workers until told to stop."""

    def __init__(
        self,
        settings: Settings,
        environment: Mapping[str, str],
        *,
        worker_log: IO[bytes] | None = None,
        admin_routes: AddRoutes | None = None,
    ) -> None:
        """``environment`` is the workers'; ``worker_log`` takes their output (None: ours)."""
        self._settings = settings
        self._environment = dict(environment)
        self._worker_log = worker_log
        self._admin_routes = admin_routes
        self._seats: list[_Seat] = []
        self._keepers: list[asyncio.Task[None]] = []
        self._admin: web.AppRunner | None = None
        self._stopping = asyncio.Event()
        self._given_up = asyncio.Event()
        self._signalled = asyncio.Event()
        self._signalled_again = asyncio.Event()
        self._first_signal = 0.0
        self.api_url = self.admin_url = self.edge_url = ""

    async def start(self) -> bool:
        """Listen, start the workers, and wait until all are ready; False if a signal came first.

        Raises:
            CannotServe: a port is taken, or the workers do not come up.
        """
        settings = self._settings
        self._open_metrics()
        # Before anything is announced: who reads that we are ready may signal in the same moment.
        self._listen_to_signals()
        try:
            orders = settings.workers - settings.edge_workers
            apis = _sockets(settings.api_host, settings.api_port, orders)
            edges = _sockets(settings.edge_host, settings.edge_port, settings.edge_workers or settings.workers)
            admin = listen(settings.admin_host, settings.admin_port)
        except OSError as error:
            self._folder.close()
            raise CannotServe(f"{error}; choose another port.") from None
        self.api_url, self.edge_url, self.admin_url = _url(apis[0]), _url(edges[0]), _url(admin)
        if settings.edge_tls_cert:
            self.edge_url = self.edge_url.replace("http:", "https:", 1)
        shared = zip(apis, edges, strict=True)
        apart = [*((api, None) for api in apis), *((None, edge) for edge in edges)]
        places = apart if settings.edge_workers else shared
        self._seats = [_Seat(f"{n}", api, edge) for n, (api, edge) in enumerate(places)]
        await self._start_admin(admin)
        self._keepers = [asyncio.create_task(self._keep(seat), name="keep worker") for seat in self._seats]
        all_ready = asyncio.create_task(self._all_ready(), name="workers ready")
        others = [asyncio.create_task(self._given_up.wait()), asyncio.create_task(self._signalled.wait())]
        await asyncio.wait((all_ready, *others), timeout=_START_S, return_when=asyncio.FIRST_COMPLETED)
        for task in others:
            task.cancel()
        if all_ready.done():
            tell_systemd("READY=1")
            log.info("serving", api=self.api_url, admin=self.admin_url, edge=self.edge_url)
            return True
        all_ready.cancel()
        if self._signalled.is_set():
            return False
        await self.stop()
        raise CannotServe("The workers did not start; their log says why.")

    async def run_until_signal(self) -> None:
        """Wait for SIGTERM or SIGINT, then drain; a second signal ends at once."""
        await self._signalled.wait()
        tell_systemd("STOPPING=1")
        stopping = asyncio.create_task(self.stop(), name="stop")
        waiting = asyncio.create_task(self._signalled_again.wait(), name="second signal")
        await asyncio.wait([stopping, waiting], return_when=asyncio.FIRST_COMPLETED)
        if not stopping.done():
            self._signal_all(signal.SIGKILL)
            await stopping
        waiting.cancel()

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()

        def heard() -> None:
            if not self._signalled.is_set():
                self._first_signal = loop.time()
                self._signalled.set()
            elif loop.time() - self._first_signal > _ONE_SIGNAL_S:
                self._signalled_again.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, heard)

    async def _all_ready(self) -> None:
        for seat in self._seats:
            await seat.ready.wait()

    async def stop(self) -> None:
        """Drain the workers and close."""
        self._stopping.set()
        self._signal_all(signal.SIGTERM)
        _, late = await asyncio.wait(self._keepers, timeout=self._settings.drain_s + 2) if self._keepers else ((), ())
        if late:
            log.error("worker_killed", workers=len(late))
            self._signal_all(signal.SIGKILL)
            await asyncio.wait(late)
        if self._admin is not None:
            await self._admin.cleanup()
        for seat in self._seats:
            for sock in (seat.api, seat.edge):
                if sock is not None:
                    sock.close()
        self._folder.close()

    @property
    def pids(self) -> list[int]:
        """The workers' process ids."""
        return [seat.process.pid for seat in self._seats if seat.process is not None]

    async def _keep(self, seat: _Seat) -> None:
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            began = loop.time()
            try:
                code = await self._run_worker(seat)
            except OSError as error:  # no process or descriptor to be had now
                log.error("worker_not_started", error=error.strerror)  # noqa: TRY400 - its kind says it
                code = -1
            was_ready = seat.ready.is_set()
            seat.ready.clear()
            if self._stopping.is_set():
                return
            log.error("worker_died", code=code)
            seat.failures = 0 if loop.time() - began > _STEADY_S else seat.failures + 1
            if not was_ready and seat.failures >= _HOPELESS:
                self._given_up.set()
            await asyncio.sleep(min(_FIRST_RESTART_S * 2**seat.failures, _LONGEST_RESTART_S))

    async def _run_worker(self, seat: _Seat) -> int:
        ready_read, ready_write = os.pipe()
        sockets = {"--api-fd": seat.api, "--edge-fd": seat.edge}
        fds = {name: sock.fileno() for name, sock in sockets.items() if sock is not None}
        try:
            seat.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "broker.worker", *(word for name, fd in fds.items() for word in (name, str(fd))),
                "--ready-fd", str(ready_write), "--parent", str(os.getpid()),
                "--seat", seat.name, "--metrics", str(self._folder.path),
                pass_fds=(*fds.values(), ready_write), env=self._environment,
                stdout=self._worker_log, stderr=self._worker_log,
            )  # fmt: skip
        except OSError:
            os.close(ready_read)
            raise
        finally:
            os.close(ready_write)
        telling = asyncio.create_task(_when_ready(ready_read, seat.ready), name="worker ready")
        try:
            return await seat.process.wait()
        finally:
            self._folder.forget(seat.name)
            if not self._stopping.is_set():
                self._metrics.worker_restarts.inc()
            telling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await telling

    async def _start_admin(self, sock: socket.socket) -> None:
        app = admin_app(self._settings, self._metrics)

        async def conditions() -> tuple[Mapping[str, bool], Mapping[str, bool]]:
            return {
                "workers": all(seat.ready.is_set() for seat in self._seats),
                "not_draining": not self._stopping.is_set(),
            }, {}

        add_health(app, conditions)
        app.router.add_get("/metrics", self._show_metrics)
        if self._admin_routes is not None:
            self._admin_routes(app)
        self._admin = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1)
        await self._admin.setup()
        await web.SockSite(self._admin, sock).start()

    def _open_metrics(self) -> None:
        base = self._settings.metrics_dir
        try:
            self._folder = MetricsFolder(base)
            keep_in(str(self._folder.path), "parent")
            self._metrics = Metrics()
        except OSError as error:
            words = f"the metrics cannot be kept in {base or 'the temporary folder'}: {error.strerror}"
            raise CannotServe(f"{words}; set BROKER_METRICS_DIR.") from None
        self._metrics.build_info.labels(__version__, platform.python_version()).set(1)
        self._page = MetricsPage(self._folder, self._metrics)

    async def _show_metrics(self, request: web.Request) -> web.Response:
        self._metrics.workers_ready.set(sum(seat.ready.is_set() for seat in self._seats))
        self._metrics.write()
        return await self._page.show(request)

    def _signal_all(self, number: signal.Signals) -> None:
        for seat in self._seats:
            if seat.process is not None and seat.process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    seat.process.send_signal(number)


async def _when_ready(read_fd: int, ready: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read_fd, "rb", buffering=0)
    )
    try:
        if await reader.readline():
            ready.set()
    finally:
        transport.close()


def _sockets(host: str, port: int, count: int) -> list[socket.socket]:
    if port:
        # SO_REUSEPORT would let a second broker of the same user share the port unnoticed.
        listen(host, port).close()
    first = listen(host, port, shared=True)
    chosen = first.getsockname()[1]
    return [first, *(listen(host, chosen, shared=True) for _ in range(count - 1))]


def _url(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

"""The embedded server's life: create, start, wait until it answers, stop."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType, TracebackType

import asyncpg

from broker.embedded import binaries, process
from broker.embedded.account import Account, choose, require_known
from broker.embedded.binaries import Binaries
from broker.embedded.errors import EmbeddedError
from broker.embedded.state import Server, State
from broker.embedded.tuning import server_settings

_START_LIMIT_S = 300.0  # recovery after a crash replays up to max_wal_size
_STOP_LIMIT_S = 120.0  # the last checkpoint writes out shared_buffers
_POLL_S = 0.01
_ATTEMPTS = 20
_RETRY_PAUSE_S = 0.25
_PORT_LOST = "Address already in use"  # between choosing a free port and the server's binding it
_BACKENDS_LEFT = "pre-existing shared memory block"  # a killed server's children notice within moments
_BUILTIN_LOCALE_MAJOR = 17
_LAST_PORT = 65535


class Embedded:
    """One PostgreSQL of our own over one state folder, which ends with this process whatever ends it.

    Args:
        state_dir: where everything lies; see :mod:`broker.embedded.state`.
        port: TCP port on 127.0.0.1; 0 takes a free one.
        settings: PostgreSQL settings that override ours.
        durable: False trades crash safety for speed: for tests only.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        port: int = 0,
        settings: Mapping[str, str] = MappingProxyType({}),
        durable: bool = True,
    ) -> None:
        self._state = State(state_dir)
        self._port = port
        self._settings = settings
        self._durable = durable
        self._process: subprocess.Popen[bytes] | None = None
        self._socket_dir: Path | None = None

    def start(self) -> Server:
        """Create the database if there is none, start the server and return once it answers.

        Blocks. Call it from the main thread: the kernel ties the server to the *thread* that started it.

        Raises:
            EmbeddedError: it did not start; nothing is left running.
        """
        if threading.current_thread() is not threading.main_thread():
            raise EmbeddedError(
                "The embedded server must be started from the main thread, because it ends with its thread."
            )
        _check_port(self._port)
        account = choose(self._state.data)
        self._state.hold(account)
        try:
            return self._start(account)
        except OSError as error:
            self.stop()
            raise EmbeddedError(
                f"The embedded server cannot use the state folder {self._state.root} ({error}): "
                "repair its rights, or set BROKER_STATE_DIR to a folder of your own."
            ) from error
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Interrupt the server (fast shutdown), wait for its end and give the state folder back. Never kills it.

        Raises:
            EmbeddedError: it is still writing after two minutes; the folder stays held.
        """
        if self._process is not None:
            if self._process.poll() is None:
                self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(_STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                raise EmbeddedError(
                    f"PostgreSQL (pid {self._process.pid}) was interrupted {_STOP_LIMIT_S:.0f} s ago and still writes "
                    f"its last checkpoint: leave it to finish, and see {self._state.log}."
                ) from None
            self._process = None
            self._state.forget()
        if self._socket_dir is not None and self._socket_dir != self._state.run:
            shutil.rmtree(self._socket_dir, ignore_errors=True)
        self._socket_dir = None
        self._state.release()

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start(self, account: Account) -> Server:
        state = self._state
        programs = binaries.find(account, state.programs)
        state.clear_leftovers()
        if (state.data / "PG_VERSION").exists():
            _check_version(state.data, programs)
        else:
            _create(state, programs, account, durable=self._durable)
        settings = server_settings(programs, account, state.data, durable=self._durable, overrides=self._settings)
        failure = ""
        for _ in range(_ATTEMPTS):
            log_start = state.open_log()
            running, server = self._spawn(programs, account, settings)
            reason = _await_ready(running, server)
            if reason is None:
                state.remember(server, self._socket_dir or state.run)
                return server
            said = _tail(state.log, log_start)
            failure = f"PostgreSQL {programs.version} did not start ({reason}): {said} (log: {state.log})."
            if _PORT_LOST in said and self._port:
                raise _port_taken(self._port)
            if running.poll() is None or not any(passing in said for passing in (_PORT_LOST, _BACKENDS_LEFT)):
                break
            time.sleep(_RETRY_PAUSE_S)
        raise EmbeddedError(failure)

    def _spawn(
        self, programs: Binaries, account: Account, settings: Mapping[str, str]
    ) -> tuple[subprocess.Popen[bytes], Server]:
        state = self._state
        port = self._port or _free_port()
        self._socket_dir = state.socket_folder(account)
        own = {"port": str(port), "unix_socket_directories": str(self._socket_dir)}
        arguments = [programs.postgres, "-D", str(state.data)]
        for name, value in {**settings, **own}.items():
            arguments += ["-c", f"{name}={value}"]
        with state.log.open("ab") as log:
            self._process = process.spawn(arguments, account, log)
        pid = self._process.pid
        return self._process, state.describe(pid=pid, port=port, socket_dir=self._socket_dir, version=programs.version)


def _create(state: State, programs: Binaries, account: Account, *, durable: bool) -> None:
    """Initdb beside the final place and rename, so that a start which was killed here leaves no half database."""
    require_known(account)
    draft = state.draft_folder(account)
    # The account may not read our password file, so it gets a copy for as long as initdb runs.
    password = state.own_folder(state.run, account) / "password"
    password.touch(mode=0o600)
    password.write_text(state.password(), encoding="ascii")
    if account.drop:
        os.chown(password, account.uid, account.gid)
    locale = (
        ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"] if programs.major >= _BUILTIN_LOCALE_MAJOR else []
    )
    ended = process.run(
        [
            programs.initdb,
            f"--pgdata={draft}",
            "--username=broker",
            f"--pwfile={password}",
            "--auth-local=scram-sha-256",
            "--auth-host=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            # While a new file of the WAL is filled with zeros every commit waits: 60 to 80 ms for 16 MB, time and
            # again until the first checkpoints have left files to be used again.
            "--wal-segsize=1",
            *locale,
            *([] if durable else ["--no-sync"]),
        ],
        account,
    )
    password.unlink()
    if ended.returncode:
        said = _essence(ended.stdout)
        raise EmbeddedError(f"initdb {programs.version} could not create a database in {state.root}: {said}.")
    draft.rename(state.data)
    if durable:
        _sync_folder(state.root)


def _check_version(data_dir: Path, programs: Binaries) -> None:
    made_by = (data_dir / "PG_VERSION").read_text(encoding="ascii").strip()
    if made_by != str(programs.major):
        aside = data_dir.with_name(f"data-{made_by}")
        raise EmbeddedError(
            f"The database in {data_dir} was made by PostgreSQL {made_by} and the programs here "
            f"({programs.source}) are version {programs.version}: start it with version {made_by} "
            f"and dump it (pg_dump --format=custom --file=broker.dump broker), move {data_dir} to {aside}, "
            "start again, and load it into the new database (pg_restore --dbname=broker broker.dump)."
        )


def _check_port(port: int) -> None:
    """Refuse a port that is taken, before anything is created; the server itself would only say so in its log."""
    if port == 0:
        return
    if not 0 < port <= _LAST_PORT:
        raise EmbeddedError(f"Port {port} does not exist: choose one from 1 to {_LAST_PORT}, or 0 for a free one.")
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as PostgreSQL does
        try:
            probe.bind(("127.0.0.1", port))
        except PermissionError:
            raise EmbeddedError(
                f"Port {port} is reserved for root: choose one above 1023, or 0 for a free one."
            ) from None
        except OSError:
            raise _port_taken(port) from None


def _port_taken(port: int) -> EmbeddedError:
    return EmbeddedError(
        f"Port {port} on 127.0.0.1 is taken by another process: "
        "choose another port for the database, or 0 for a free one."
    )


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _await_ready(running: subprocess.Popen[bytes], server: Server) -> str | None:
    """Block until the database `broker` answers, making it on the first start; the reason when it never will."""
    # In a thread because the caller may be inside a running event loop, which `asyncio.run` refuses.
    pool = ThreadPoolExecutor(1, "embedded-ready")
    try:
        return pool.submit(asyncio.run, _ready(running, server)).result()
    finally:
        pool.shutdown(wait=False)  # after Ctrl-C it ends by itself, as the server does


async def _ready(running: subprocess.Popen[bytes], server: Server) -> str | None:
    deadline = time.monotonic() + _START_LIMIT_S
    while (code := running.poll()) is None:
        try:
            await _open_database(server)
        except (OSError, asyncpg.CannotConnectNowError, asyncpg.PostgresConnectionError):
            if time.monotonic() > deadline:
                return f"no answer within {_START_LIMIT_S:.0f} s"
            await asyncio.sleep(_POLL_S)
        except asyncpg.InvalidAuthorizationSpecificationError as error:
            return f"it refuses the password file beside its data: {error}"
        else:
            return None
    return f"it ended with code {code}"


async def _open_database(server: Server) -> None:
    try:
        connection = await asyncpg.connect(server.socket_dsn, timeout=_START_LIMIT_S)
    except asyncpg.InvalidCatalogNameError:
        connection = await asyncpg.connect(server.socket_dsn, database="postgres", timeout=_START_LIMIT_S)
        await connection.execute("CREATE DATABASE broker")
    await connection.close()


def _tail(log: Path, start: int) -> str:
    with log.open("rb") as file:
        file.seek(start)
        return _essence(file.read().decode(errors="replace"))


def _essence(output: str) -> str:
    """The last complaints of a program's output in one line, or its last lines where it does not complain."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    complaints = [found[0] for line in lines if (found := re.search(r"\b(FATAL|PANIC|ERROR|HINT|error): .*", line))]
    return " | ".join((complaints or lines)[-4:]).rstrip(".") or "no output"


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

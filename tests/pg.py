"""Databases for tests: one server a run, a migrated template, a fresh copy for each test.

The server lies in memory (``/dev/shm``) where there is room, because making a database is copying 300 small files:
6 ms there, 85 ms on the ext4 disk this was measured on.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import asyncpg

from broker.embedded import Embedded
from broker.store.migrate import migrate

ENVIRONMENT = "BROKER_TEST_DATABASE_URL"
_PREFIX = "broker-test-"
_MEMORY = Path("/dev/shm")  # noqa: S108 - folders in it get random names
_MEMORY_NEEDED_BYTES = 1_500_000_000
_ABANDONED_AFTER_S = 3600.0
_STEP_LIMIT_S = 60.0
_WAL = {"max_wal_size": "256MB", "shared_buffers": "128MB"}

T = TypeVar("T")


@contextmanager
def state_folder(parent: Path | None = None) -> Iterator[Path]:
    """An empty folder that every account can get to, as pytest's own ``tmp_path`` of a root run is not."""
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def server_url() -> Iterator[str]:
    """The server that the tests use: ``$BROKER_TEST_DATABASE_URL``, else one of our own for this run."""
    if given := os.environ.get(ENVIRONMENT):
        yield given
        return
    _clear_abandoned()
    with state_folder(memory()) as folder, Embedded(folder, durable=False, settings=_WAL) as server:
        yield server.dsn


class Databases:
    """Makes fresh databases from a migrated template, one ahead of need, and drops them behind the test's back.

    One connection in a loop and thread of its own does the work, so that fixtures of any event loop can ask.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._run = f"{os.getpid()}_{secrets.token_hex(4)}"
        self._template = f"broker_template_{self._run}"
        self._count = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="test-databases", daemon=True)
        self._order = asyncio.Lock()
        self._admin: asyncpg.Connection | None = None
        self._next: Future[str] | None = None
        self._dropping: list[Future[None]] = []

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self._submit(self._open()).result(_STEP_LIMIT_S)
        except BaseException:
            self._end_loop()
            raise
        self._next = self._submit(self._create())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.drop(self.create(ahead=False))
            for dropping in self._dropping:
                dropping.result(_STEP_LIMIT_S)
            self._submit(self._close()).result(_STEP_LIMIT_S)
        finally:
            self._end_loop()

    def create(self, *, ahead: bool = True) -> str:
        """The address of a fresh migrated database."""
        ready, self._next = self._next, None
        url = (ready or self._submit(self._create())).result(_STEP_LIMIT_S)
        if ahead:
            self._next = self._submit(self._create())
        return url

    def create_empty(self) -> str:
        """The address of a fresh database without any migration."""
        return self._submit(self._create("template0")).result(_STEP_LIMIT_S)

    def drop(self, url: str) -> None:
        """Drop it soon, whoever is still connected."""
        name = urlsplit(url).path.removeprefix("/")
        self._dropping.append(self._submit(self._execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')))

    def _submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _open(self) -> None:
        self._admin = await asyncpg.connect(self._url)
        await self._execute(f'CREATE DATABASE "{self._template}" TEMPLATE template0')
        await migrate(self._at(self._template))

    async def _close(self) -> None:
        await self._execute(f'DROP DATABASE "{self._template}" WITH (FORCE)')
        if self._admin is not None:
            await self._admin.close()

    async def _create(self, template: str | None = None) -> str:
        self._count += 1
        name = f"broker_test_{self._run}_{self._count}"
        await self._execute(f'CREATE DATABASE "{name}" TEMPLATE "{template or self._template}" STRATEGY file_copy')
        return self._at(name)

    async def _execute(self, statement: str) -> None:
        if self._admin is None:
            raise RuntimeError("not entered")
        async with self._order:
            await self._admin.execute(statement)

    def _at(self, name: str) -> str:
        return urlsplit(self._url)._replace(path=f"/{name}").geturl()


def memory() -> Path | None:
    """Where folders are fastest, if there is room."""
    try:
        roomy = os.access(_MEMORY, os.W_OK | os.X_OK) and shutil.disk_usage(_MEMORY).free > _MEMORY_NEEDED_BYTES
    except OSError:
        return None
    return _MEMORY if roomy else None


def _clear_abandoned() -> None:
    """Give back the memory of runs that were killed: old folders whose lock nobody holds."""
    for folder in _MEMORY.glob(f"{_PREFIX}*"):
        try:
            if time.time() - folder.stat().st_mtime < _ABANDONED_AFTER_S:
                continue
            with (folder / "lock").open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue

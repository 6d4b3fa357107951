"""What `up` does for the platform's reviewers: a tone approved here is approved in the emulator."""

from __future__ import annotations

import asyncio
import contextlib
from http import HTTPStatus
from urllib.parse import quote

import aiohttp
import asyncpg

from broker.store.database import Database, DatabaseAway
from broker.store.statements import statements

_LOOK_S = 1.0
_TIMEOUT_S = 5.0


class Approvals:
    """Tells the emulator of every approved tone of the apps that are on it; what it knows is never taken away."""

    def __init__(self, db: Database, *, wire: str, admin: str) -> None:
        self._db = db
        self._wire = wire
        self._admin = admin
        self._told: set[tuple[str, str]] = set()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Tell of those approved so far, and go on looking."""
        await self._tell()
        self._task = asyncio.create_task(self._look())

    async def stop(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            # Either may be away for a while: the next look tells what is still to be told.
            with contextlib.suppress(DatabaseAway, asyncpg.PostgresError, aiohttp.ClientError, TimeoutError):
                await self._tell()

    async def _tell(self) -> None:
        rows = await self._db.fetch(statements("config")["approved_tones"], self._wire)
        new = {(row["app_key"], row["name"]) for row in rows} - self._told
        if not new:
            return
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S)) as http:
            for app_key, name in sorted(new):
                url = f"{self._admin}/emulator/apps/{quote(app_key, safe='')}/tones/{quote(name, safe='')}"
                async with http.put(url) as answer:
                    # An app that the emulator has not heard of is asked about again.
                    if answer.status == HTTPStatus.OK:
                        self._told.add((app_key, name))

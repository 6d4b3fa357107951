"""The emulator as traffic sees it: its live bindings, calls and messages placed, and its counts."""

from __future__ import annotations

from typing import Any, Final

import aiohttp

_PAGE: Final = 10_000
#: Bindings to draw from; more would show nothing more.
_MOST: Final = 100_000
_TIMEOUT_S: Final = 15.0
_OK: Final = 200
#: Modes whose numbers carry messages among the parties of a binding.
_TEXTED: Final = frozenset({"axb", "ax"})


class PlatformError(Exception):
    """One sentence for the user."""


class Platform:
    """The admin port of one emulator."""

    def __init__(self, url: str, connections: int) -> None:
        self._url = f"{url.rstrip('/')}/emulator"
        connector = aiohttp.TCPConnector(limit=connections)
        self._http = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S))

    async def close(self) -> None:
        """Close the connections."""
        await self._http.close()

    async def bindings(self) -> list[dict[str, Any]]:
        """Return live bindings through which somebody can be reached."""
        found: list[dict[str, Any]] = []
        after: int | None = 0
        while after is not None and len(found) < _MOST:
            page = await self._ask("GET", f"bindings?limit={_PAGE}&after={after}")
            found += page["items"]
            after = page["next"]
        return found

    async def call(self, deed: dict[str, Any]) -> int:
        """Place a call and return its release cause, 0 for one that is or will be answered."""
        return int((await self._ask("POST", "calls", deed))["state_code"])

    async def text(self, binding: dict[str, Any], deed: dict[str, str]) -> int | None:
        """Send a message and return ``sendResult``; ``None`` where there are no messages."""
        if binding["mode"] not in _TEXTED:
            return None
        body = {"from": deed["from"], "to": deed["to"], "content": "Where are you?"}
        return int((await self._ask("POST", "sms", body))["send_result"])

    async def traffic(self) -> dict[str, Any]:
        """Return the emulator's counts."""
        return await self._ask("GET", "traffic")

    async def _ask(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        async with self._http.request(method, f"{self._url}/{path}", json=body) as answer:
            if answer.status != _OK:
                raise PlatformError(f"The emulator answers {answer.status} to {path.partition('?')[0]}.")
            return dict(await answer.json())

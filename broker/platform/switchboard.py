"""Mode X with a platform behind it: bindings are ours alone, calls and what was recorded of them are the platform's."""

from __future__ import annotations

from typing import Protocol

from broker.platform.local import LocalPlatform
from broker.platform.protocol import Answer, Permit


class Calls(Protocol):
    """The interfaces of calls (contract 9.1, 9.2), as ``Platform`` has them."""

    async def stop_call(self, session_id: str, *, permit: Permit, timeout_s: float) -> Answer:
        """As ``Platform`` does."""
        ...

    async def recording(self, file_name: str, domain: str, *, permit: Permit, timeout_s: float) -> Answer:
        """As ``Platform`` does."""
        ...

    def set_clock_offset(self, seconds: float) -> None:
        """As ``Platform`` does."""
        ...

    async def close(self) -> None:
        """As ``Platform`` does."""
        ...


class Switchboard(LocalPlatform):
    """Implements ``Platform`` for an app of mode X."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def stop_call(self, session_id: str, *, permit: Permit, timeout_s: float) -> Answer:
        """Hang a call up."""
        return await self._calls.stop_call(session_id, permit=permit, timeout_s=timeout_s)

    async def recording(self, file_name: str, domain: str, *, permit: Permit, timeout_s: float) -> Answer:
        """Ask for a recording's address."""
        return await self._calls.recording(file_name, domain, permit=permit, timeout_s=timeout_s)

    def set_clock_offset(self, seconds: float) -> None:
        """Sign with our clock plus this much from now on."""
        self._calls.set_clock_offset(seconds)

    async def close(self) -> None:
        """Close idle connections."""
        await self._calls.close()

"""Placing calls: somebody dials a number, the mode of its application or the application itself says who answers."""

from __future__ import annotations

from typing import Any

from broker.emulator.core import Core
from broker.emulator.customer import Customer
from broker.emulator.mode import Connection, Dial
from broker.emulator.registry import ModeName
from broker.emulator.release import LANDLINE_CALLER, NO_BINDING
from broker.emulator.settings import EmulatorSettings
from broker.emulator.x import X, callin_event


class Calls:
    """The way of a call through the platform."""

    def __init__(self, settings: EmulatorSettings, core: Core, customer: Customer) -> None:
        self._core = core
        self._customer = customer
        self._x = X(settings)

    async def place(self, caller: str, dialled: str, digits: str) -> dict[str, Any]:
        """Place a call and return who was connected, what they saw, and the release cause (contract 8.1).

        A connected call is up from now on. Raises ``OSError`` when what it changes cannot be recorded.
        """
        session_id = self._core.sessions.new_id()
        dial = self._core.dialled(caller, dialled, digits)
        connection = Connection.refused(NO_BINDING)
        if dial is not None:
            connection = await self._connect(session_id, dial)
            self._core.sessions.open(session_id, dial, connection)
        return {
            "connected_to": connection.connected_to,
            "shown": connection.shown,
            "state_code": connection.state_code,
            "session_id": session_id,
        }

    async def _connect(self, session_id: str, dial: Dial) -> Connection:
        if dial.app.config.mode is not ModeName.X:
            return self._core.connect(dial)
        if dial.from_landline:
            return Connection.refused(LANDLINE_CALLER)
        reply = await self._customer.ask(dial.app.config, callin_event(session_id, dial))
        return self._x.connect(dial, reply)

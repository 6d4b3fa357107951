"""Placing calls: somebody dials a number, the mode of its application says who answers."""

from __future__ import annotations

import uuid
from typing import Any

from broker.emulator.axb import NO_BINDING
from broker.emulator.core import Core
from broker.emulator.mode import Connection


def place_call(core: Core, caller: str, dialled: str, digits: str) -> dict[str, Any]:
    """Place a call and return who was connected, what they saw, and the release cause (contract 8.1)."""
    core.expire(core.clock.now_ms())
    app = core.registry.owners.get(dialled)
    mode = core.modes.get(app.config.mode) if app is not None else None
    connection = mode.call(caller, dialled, digits) if mode is not None else Connection(None, None, NO_BINDING)
    return {
        "connected_to": connection.connected_to,
        "shown": connection.shown,
        "state_code": connection.state_code,
        "session_id": uuid.uuid4().hex,
    }

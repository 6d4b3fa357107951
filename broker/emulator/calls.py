"""Placing calls: somebody dials a number, the mode of its application says who answers."""

from __future__ import annotations

import uuid
from typing import Any

from broker.emulator.core import Core


def place_call(core: Core, caller: str, dialled: str, digits: str) -> dict[str, Any]:
    """Place a call and return who was connected, what they saw, and the release cause (contract 8.1)."""
    connection = core.dial(caller, dialled, digits)
    return {
        "connected_to": connection.connected_to,
        "shown": connection.shown,
        "state_code": connection.state_code,
        "session_id": uuid.uuid4().hex,
    }

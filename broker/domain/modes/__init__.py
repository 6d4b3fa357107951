"""The modes of a platform application, a module each; nothing outside asks for a mode by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from broker.domain.modes.ax import AX
from broker.domain.modes.axb import AXB
from broker.domain.modes.axe import AXE
from broker.domain.modes.axyb import AXYB
from broker.domain.modes.mode import LONGEST_TTL_S, Allocation, Field, Mode
from broker.domain.modes.x import X

MODES: Final[Mapping[str, Mode]] = MappingProxyType({mode.name: mode for mode in (AXB, AX, AXE, AXYB, X)})

__all__ = ["LONGEST_TTL_S", "MODES", "Allocation", "Field", "Mode", "modes_with"]


def modes_with(field: str) -> tuple[str, ...]:
    """Return the modes whose binds know ``field``."""
    return tuple(mode.name for mode in MODES.values() if field in mode.binds)

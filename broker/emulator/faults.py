"""Faults an operator injects on the wire, and the draw that decides which one hits a request."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum

from broker.emulator.mode import Op


class FaultKind(StrEnum):
    """What goes wrong with a request that passed authentication and flow control."""

    DELAY = "delay"  # answered `ms` later; executed before or after the wait, see `when`
    DROP_ANSWER = "drop_answer"  # executed, then the connection closes without an answer
    LATE_COMMIT = "late_commit"  # the connection closes at once, the request is executed `ms` later
    CODE = "code"  # not executed, answered with `http` and `code`
    RESET = "reset"  # not executed, the connection is aborted (RST)


class When(StrEnum):
    """Which side of the request's execution a delay stands on."""

    BEFORE = "before"
    AFTER = "after"


@dataclass(slots=True)
class Fault:
    """One rule; ``interface`` ``None`` is every interface, ``count`` ``None`` is without end."""

    id: int
    interface: Op | None
    kind: FaultKind
    code: str | None = None
    http: int | None = None
    ms: int = 0
    when: When = When.AFTER
    share: float = 1.0
    count: int | None = None
    hits: int = 0


class Faults:
    """The rules in force. They are not durable: a restarted emulator has none."""

    def __init__(self, seed: int | None) -> None:
        self._random = random.Random(seed)  # noqa: S311 - a share of requests is no secret
        self._last_id = 0
        self.rules: dict[int, Fault] = {}

    def add(self, fault: Fault) -> int:
        """Put a rule behind those in force; returns its id."""
        self._last_id += 1
        fault.id = self._last_id
        self.rules[fault.id] = fault
        return fault.id

    def remove(self, fault_id: int) -> bool:
        """Take one rule away; ``False`` if there is none of that id."""
        return self.rules.pop(fault_id, None) is not None

    def draw(self, op: Op) -> Fault | None:
        """Return the first rule that hits a request for ``op``, and count the hit."""
        for fault in self.rules.values():
            if fault.interface not in {None, op} or fault.count == fault.hits:
                continue
            if fault.share < 1 and self._random.random() >= fault.share:
                continue
            fault.hits += 1
            return fault
        return None

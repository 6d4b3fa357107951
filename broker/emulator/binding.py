"""A binding as the platform keeps it, for every mode, and the book of those that are live."""

from __future__ import annotations

import heapq
import os
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

_SLACK: Final = 1_024


@dataclass(frozen=True, slots=True)
class NextCallee:
    """Whom A reaches by dialling X: a temporary callee (AX), or who reached A last (AXE); ``until_ms`` None: no end."""

    number: str
    since_ms: int
    until_ms: int | None
    user_data: str | None = None

    def lives(self, now_ms: int) -> bool:
        """Say whether it still counts."""
        return self.until_ms is None or now_ms < self.until_ms


@dataclass(slots=True)
class Binding:
    """One subscription. A value: a modification puts a changed copy in its place.

    ``serial`` is the ledger row that created it. ``expires_ms`` is on the emulator's clock, ``None`` is never;
    ``duration`` the seconds last asked for; ``since_ms`` what its mode shows as ``subscribeTime``: when it was set, or
    (AXB) last modified. ``b`` is empty in a mode without B.
    """

    serial: int
    subscription_id: str
    app_key: str
    mode: str
    x: str
    a: str
    b: str
    since_ms: int
    expires_ms: int | None
    duration: int
    call_direction: int
    max_duration: int
    user_data: str | None = None
    y: str | None = None
    extension: str | None = None
    extras: dict[str, Any] | None = None
    """Further fields by their names on the wire."""
    callee: NextCallee | None = None
    callback_s: int | None = None
    """AXE: how long a caller is remembered as A's next callee, in seconds; 0 is as long as the binding."""


def new_subscription_id() -> str:
    """Return a random id in the form of a UUID, at a fifth of ``uuid.uuid4``'s price."""
    digits = os.urandom(16).hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


class Book:
    """Live bindings by id, in the order of their creation, and by expiry."""

    def __init__(self) -> None:
        self.by_id: dict[str, Binding] = {}
        self._by_serial: dict[int, Binding] = {}
        self._serials = array("Q")  # ascending, with gaps for what has ended
        self._expiries: list[tuple[int, str]] = []  # a heap, with leftovers of what ended or was modified

    def put(self, binding: Binding) -> None:
        """Add a binding, or replace the one that has its id."""
        if binding.serial not in self._by_serial:
            self._serials.append(binding.serial)
        self.by_id[binding.subscription_id] = binding
        self._by_serial[binding.serial] = binding
        if binding.expires_ms is not None:
            heapq.heappush(self._expiries, (binding.expires_ms, binding.subscription_id))
            self._drop_leftovers()

    def remove(self, binding: Binding) -> None:
        """Take a binding out."""
        del self.by_id[binding.subscription_id]
        del self._by_serial[binding.serial]
        if len(self._serials) > 2 * len(self._by_serial) + _SLACK:
            self._serials = array("Q", sorted(self._by_serial))

    def has_due(self, now_ms: int) -> bool:
        """Say whether anything may have expired by ``now_ms``."""
        return bool(self._expiries) and self._expiries[0][0] <= now_ms

    def due(self, now_ms: int) -> list[Binding]:
        """Return what has expired by ``now_ms``, oldest first; the caller removes it."""
        expired: dict[str, Binding] = {}  # a modification to the same instant leaves two entries on the heap
        while self.has_due(now_ms):
            at, subscription_id = heapq.heappop(self._expiries)
            binding = self.by_id.get(subscription_id)
            if binding is not None and binding.expires_ms == at:
                expired[subscription_id] = binding
        return list(expired.values())

    def put_back(self, bindings: list[Binding]) -> None:
        """Undo :meth:`due` when the expiry could not be recorded."""
        for binding in bindings:
            if binding.expires_ms is not None:
                heapq.heappush(self._expiries, (binding.expires_ms, binding.subscription_id))

    def after(self, serial: int) -> Iterator[Binding]:
        """Iterate in order of creation over the live bindings whose serial is above ``serial``."""
        serials = self._serials
        for index in range(bisect_right(serials, serial), len(serials)):
            binding = self._by_serial.get(serials[index])
            if binding is not None:
                yield binding

    def _drop_leftovers(self) -> None:
        if len(self._expiries) <= 2 * len(self.by_id) + _SLACK:
            return
        live = self.by_id.values()
        self._expiries = [(b.expires_ms, b.subscription_id) for b in live if b.expires_ms is not None]
        heapq.heapify(self._expiries)

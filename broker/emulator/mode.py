"""What the rest of the emulator asks of a mode. A mode is pure rules over its own state: no clock, no I/O.

A mode decides, the core records the decision in the journal, and only then is it applied; a replay applies the same
changes without deciding again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Protocol, Self

from broker.emulator.areas import is_landline, is_service_number
from broker.emulator.binding import Binding
from broker.emulator.registry import App, ModeName
from broker.emulator.release import NORMAL


class Op(StrEnum):
    """What a ledger row is about: an interface of the wire, or what the platform does by itself."""

    BIND = "bind"
    UNBIND = "unbind"
    MODIFY = "modify"
    QUERY = "query"
    CALLEE = "callee"
    STOP = "stop"
    RECORDING = "recording"
    EXPIRE = "expire"
    CALL = "call"  # a call changed whom A reaches by dialling X


INTERFACES: Final = tuple(op for op in Op if op not in {Op.EXPIRE, Op.CALL})
WITH_BODY: Final = frozenset({Op.BIND, Op.MODIFY, Op.CALLEE})


@dataclass(slots=True)
class Ask:
    """One authenticated, admitted request. ``serial`` is the number its binding gets if it makes one."""

    app: App
    op: Op
    query: str
    body: bytes | None
    now_ms: int
    serial: int
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Filled in by the mode as soon as the request is parsed, so that a refusal can be recorded with its numbers."""


@dataclass(frozen=True, slots=True)
class Mention:
    """The names a request gives to the things it is about, whether or not they exist."""

    subscription_id: str | None = None
    x: str | None = None
    a: str | None = None
    b: str | None = None
    user_data: str | None = None


@dataclass(slots=True)
class Decision:
    """The answer to a request that is not refused, and the changes that make it true.

    ``effect`` is what it does beside bindings; it is carried out once the request is recorded.
    """

    reply: bytes
    changes: list[tuple[Op, Binding]]
    http: int = 200
    location: str = ""
    """The path, on this very emulator, that a redirection leads to."""
    effect: Callable[[], object] | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What the wire says to a request, carried out or refused; ``location`` as in :class:`Decision`."""

    http: int
    code: str
    body: bytes
    location: str = ""


@dataclass(frozen=True, slots=True)
class Dial:
    """Somebody dials X. ``serial`` is the number of a binding that the call itself makes, if it makes one."""

    caller: str
    x: str
    digits: str
    now_ms: int
    serial: int
    app: App

    @property
    def from_landline(self) -> bool:
        """Whether a landline calls, which may not (8023); a 400 or 95 number may."""
        return is_landline(self.caller) and not is_service_number(self.caller)


@dataclass(frozen=True, slots=True)
class Terms:
    """What a connected call keeps to; ``max_minutes`` 0 is without end."""

    max_minutes: int = 0
    recorded: bool = False
    subscription_id: str | None = None
    user_data: str | None = None


@dataclass(frozen=True, slots=True)
class Connection:
    """Where a call to X went, and what that changes. ``state_code`` is 0 or a release cause of contract 8.1."""

    connected_to: str | None
    shown: str | None
    state_code: int
    changes: list[tuple[Op, Binding]] = field(default_factory=list)
    terms: Terms = Terms()

    @classmethod
    def over(
        cls, binding: Binding, to: str, shown: str | None, changes: list[tuple[Op, Binding]] | None = None
    ) -> Self:
        """Return a call that is connected on the terms of ``binding``."""
        return cls(to, shown, NORMAL, changes or [], _terms(binding))

    @classmethod
    def refused(cls, state_code: int, binding: Binding | None = None) -> Self:
        """Return a call that reached nobody, if it met a binding, because of it."""
        return cls(None, None, state_code, terms=_terms(binding) if binding is not None else Terms())


def _terms(binding: Binding) -> Terms:
    recorded = (binding.extras or {}).get("recordFlag") == "true"
    return Terms(binding.max_duration, recorded, binding.subscription_id, binding.user_data)


class Interfaces(Protocol):
    """The rules of some interfaces of the wire."""

    routes: Mapping[tuple[str, str], Op]
    """(method, path) to operation."""

    def decide(self, ask: Ask) -> Decision:
        """Judge a request; raises :class:`~broker.emulator.codes.Refusal`. Changes nothing."""
        ...

    def mention(self, op: Op, fields: Mapping[str, Any]) -> Mention:
        """Say what a request is about, from fields that may be of any shape."""
        ...

    def parse(self, ask: Ask) -> None:
        """Fill in ``ask.fields``; raises a refusal for what cannot be parsed."""
        ...


class Mode(Interfaces, Protocol):
    """The rules and the indexes of one mode."""

    name: ModeName

    def attach(self, binding: Binding) -> None:
        """Index a new binding."""
        ...

    def detach(self, binding: Binding) -> None:
        """Forget a binding that has ended."""
        ...

    def swap(self, old: Binding, new: Binding) -> None:
        """Index ``new`` in the place of ``old``, which has the same X."""
        ...

    def bindings_of(self, x: str) -> Iterable[Binding]:
        """Return the live bindings on ``x``, oldest first."""
        ...

    def call(self, dial: Dial) -> Connection:
        """Say where a call goes; nothing on its X may be past its expiry. Changes nothing."""
        ...


def printable(value: object) -> str | None:
    """Return ``value`` if it is a string fit for the ledger, however the request came by it."""
    return value[:256] if isinstance(value, str) else None

"""The platform's state and the one way to change it: decide, write to the journal, apply."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import orjson
import structlog

from broker.emulator.ax import Ax
from broker.emulator.axb import Axb
from broker.emulator.axe import Axe
from broker.emulator.axyb import Axyb
from broker.emulator.binding import Binding, Book
from broker.emulator.codes import Refusal
from broker.emulator.journal import Journal
from broker.emulator.ledger import Cause, binding_of, effect_row, live_record, other_row
from broker.emulator.mode import Answer, Ask, Connection, Dial, Interfaces, Mention, Mode, Op
from broker.emulator.recordings import Recording, Recordings
from broker.emulator.registry import App, AppConfig, ModeName, Registry
from broker.emulator.sessions import Sessions
from broker.emulator.settings import EmulatorSettings
from broker.emulator.shared import CallStop, RecordingAddress
from broker.emulator.times import EmulatorClock

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_CHUNK = 10_000
_CHANGES = frozenset({Op.MODIFY, Op.CALLEE, Op.CALL})


class OwnedElsewhereError(Exception):
    """A number belongs to another application; ``position`` is its place in the list that was put."""

    def __init__(self, position: int) -> None:
        self.position = position
        super().__init__(f"number {position} belongs to another app")


class KindFixedError(Exception):
    """Neither the mode nor the extension digits of an application that has numbers can change (contract 4.5)."""


class Core:
    """Applications, numbers, bindings of all modes, and the journal under them."""

    def __init__(self, settings: EmulatorSettings) -> None:
        self.clock = EmulatorClock()
        self.registry = Registry()
        self.book = Book()
        self.modes: dict[ModeName, Mode] = {
            ModeName.AXB: Axb(settings, self.book),
            ModeName.AX: Ax(settings, self.book),
            ModeName.AXE: Axe(settings, self.book),
            ModeName.AXYB: Axyb(settings, self.book),
        }
        self.recordings = Recordings(settings.keep_recordings)
        self.sessions = Sessions(self.clock, settings.keep_calls, self._keep_recording)
        self.shared: dict[Op, Interfaces] = {
            Op.STOP: CallStop(settings, self.sessions),
            Op.RECORDING: RecordingAddress(settings, self.recordings),
        }
        self._requests = 0
        self.journal = Journal(settings.state_dir, fsync=settings.fsync)
        try:
            self._restore(settings)
        except BaseException:
            self.journal.close()
            raise

    # --- requests

    def execute(self, app: App, op: Op, query: str, body: bytes | None, cause: Cause) -> Answer:
        """Carry out one admitted request.

        Raises ``OSError`` when the journal cannot be written; then nothing has changed.
        """
        now_ms = self.clock.now_ms()
        self.expire(now_ms)
        ask = Ask(app, op, query, body, now_ms, self.journal.next_seq)
        rules = self.shared.get(op) or self.modes[app.config.mode]
        try:
            decision = rules.decide(ask)
        except Refusal as refusal:
            self._write_other(ask, rules.mention(op, ask.fields), cause, refusal.code, refusal.http)
            return Answer(refusal.http, refusal.code, refusal.body)
        if decision.changes:
            self._commit(now_ms, decision.changes, cause, http=200)
        else:
            self._write_other(ask, rules.mention(op, ask.fields), cause, "0", decision.http)
        if decision.effect is not None:
            decision.effect()
        return Answer(decision.http, "0", decision.reply, decision.location)

    def note(
        self, app: App, op: Op, query: str, body: bytes | None, cause: Cause, *, code: str | None, http: int | None
    ) -> None:
        """Record a request that is not executed: refused by flow control, or hit by a fault."""
        now_ms = self.clock.now_ms()
        ask = Ask(app, op, query, body, now_ms, self.journal.next_seq)
        rules = self.shared.get(op) or self.modes.get(app.config.mode)
        mention = Mention()
        if rules is not None and cause.fault is not None:
            try:
                rules.parse(ask)
            except Refusal:
                pass  # it would not have been executed either; the row stays without names
            else:
                mention = rules.mention(op, ask.fields)
        self._write_other(ask, mention, cause, code, http)

    def dialled(self, caller: str, number: str, digits: str) -> Dial | None:
        """Return a call that comes in now, ``None`` to a number of no app."""
        now_ms = self.clock.now_ms()
        self.expire(now_ms)
        app = self.registry.owners.get(number)
        return None if app is None else Dial(caller, number, digits, now_ms, self.journal.next_seq, app)

    def connect(self, dial: Dial) -> Connection:
        """Let a call that just came in go where its mode says; what it changes is recorded before it counts.

        Raises ``OSError`` when the journal cannot be written; then nothing has changed.
        """
        connection = self.modes[dial.app.config.mode].call(dial)
        if connection.changes:
            self._commit(dial.now_ms, connection.changes, Cause(reason="call"), http=None)
        return connection

    def next_request(self) -> int:
        """Return a number that ties the rows of one request together."""
        self._requests += 1
        return self._requests

    def expire(self, now_ms: int) -> None:
        """End whatever has run out by ``now_ms``; its rows carry the moment it ran out."""
        if not self.book.has_due(now_ms):
            return
        due = self.book.due(now_ms)
        for first in range(0, len(due), _CHUNK):
            chunk = due[first : first + _CHUNK]
            try:
                self._commit(now_ms, [(Op.EXPIRE, binding) for binding in chunk], Cause(), http=None)
            except OSError:
                self.book.put_back(due[first:])
                raise

    # --- the operator's side

    def put_app(self, config: AppConfig) -> None:
        """Create or change an application."""
        app = self.registry.apps.get(config.app_key)
        if app is not None and app.numbers and app.config.kind != config.kind:
            raise KindFixedError
        self.journal.append(_line(_app_record(config)))
        self.registry.put_app(config)

    def put_numbers(self, app: App, numbers: Iterable[tuple[str, str]]) -> None:
        """Replace the numbers of ``app``. Bindings on a number taken away end with it (contract 9.4)."""
        wanted = dict(numbers)
        for position, number in enumerate(wanted):
            if self.registry.owners.get(number, app) is not app:
                raise OwnedElsewhereError(position)
        self.expire(self.clock.now_ms())
        mode = self.modes.get(app.config.mode)
        removed = app.numbers.keys() - wanted.keys() if mode is not None else ()
        # By id: of AXYB a relation is on its X and on its Y, and both may go.
        lost = list({b.subscription_id: b for x in removed for b in mode.bindings_of(x)}.values()) if mode else []
        for first in range(0, len(lost), _CHUNK):
            changes = [(Op.UNBIND, binding) for binding in lost[first : first + _CHUNK]]
            self._commit(self.clock.now_ms(), changes, Cause(reason="number_removed"), http=None)
        self.journal.append(_line(_numbers_record(app.config.app_key, wanted)))
        self.registry.put_numbers(app, wanted.items())

    def put_tones(self, app: App, tones: set[str]) -> None:
        """Make ``tones`` the approved voice files of ``app``. What is bound keeps what it has."""
        self.journal.append(_line(_tones_record(app.config.app_key, tones)))
        app.tones = tones

    def advance(self, milliseconds: int) -> int:
        """Move the clock forward and expire what that makes due; returns the new time."""
        offset_ms = self.clock.offset_ms + milliseconds
        self.journal.append(_line({"t": "clock", "offset_ms": offset_ms}))
        self.clock.offset_ms = offset_ms
        now_ms = self.clock.now_ms()
        self.expire(now_ms)
        return now_ms

    def _keep_recording(self, recording: Recording) -> None:
        self.journal.append(_line(_recording_record(recording)))
        self.recordings.put(recording)

    # --- the one way to change bindings

    def _commit(self, now_ms: int, changes: list[tuple[Op, Binding]], cause: Cause, *, http: int | None) -> None:
        seq = self.journal.next_seq
        rows = [
            effect_row(
                seq + place,
                binding.expires_ms if op is Op.EXPIRE and binding.expires_ms is not None else now_ms,
                op,
                binding,
                cause,
                http=http,
                old=self.book.by_id[binding.subscription_id] if op in _CHANGES else None,
            )
            for place, (op, binding) in enumerate(changes)
        ]
        self.journal.append(b"".join(rows), rows=len(rows))
        for op, binding in changes:
            self._apply(op, binding)

    def _apply(self, op: Op, binding: Binding) -> None:
        mode = self.modes[ModeName(binding.mode)]
        match op:
            case Op.BIND:
                self.book.put(binding)
                mode.attach(binding)
            case Op.MODIFY | Op.CALLEE | Op.CALL:
                mode.swap(self.book.by_id[binding.subscription_id], binding)
                self.book.put(binding)
            case Op.UNBIND | Op.EXPIRE:
                ended = self.book.by_id[binding.subscription_id]
                self.book.remove(ended)
                mode.detach(ended)
            case _:
                raise AssertionError(f"{op} changes no binding")

    def _write_other(self, ask: Ask, mention: Mention, cause: Cause, code: str | None, http: int | None) -> None:
        app_key = ask.app.config.app_key
        row = other_row(self.journal.next_seq, ask.now_ms, ask.op, app_key, mention, cause, code=code, http=http)
        self.journal.append(row, rows=1)

    # --- start

    def _restore(self, settings: EmulatorSettings) -> None:
        lines = self.journal.replay_lines
        for record in self.journal.replay():
            self._replay(record)
        surplus = self.journal.next_seq - self.journal.first_seq > settings.keep_rows
        if lines > settings.compact_after or surplus:
            self.journal.compact(self._snapshot(), keep_rows=settings.keep_rows)
        log.info("emulator_state_read", lines=lines, bindings=len(self.book.by_id))

    def _replay(self, record: dict[str, Any]) -> None:
        match record.get("t"):
            case None:
                self._requests = max(self._requests, record["request"] or 0)
                if record["result_code"] == "0" and "serial" in record:
                    self._apply(Op(record["op"]), binding_of(record))
            case "live":
                self._apply(Op.BIND, binding_of(record))
            case "app":
                self.registry.put_app(AppConfig(**{**record["app"], "mode": ModeName(record["app"]["mode"])}))
            case "numbers":
                self.registry.put_numbers(self.registry.apps[record["app_key"]], record["numbers"].items())
            case "tones":
                self.registry.apps[record["app_key"]].tones = set(record["tones"])
            case "recording":
                self.recordings.put(Recording(**record["recording"]))
            case "clock":
                self.clock.offset_ms = record["offset_ms"]
            case _:
                self._requests = max(self._requests, record.get("request", 0))  # a reset: nothing was applied before it

    def _snapshot(self) -> Iterator[dict[str, Any]]:
        yield {"t": "requests", "request": self._requests}
        yield {"t": "clock", "offset_ms": self.clock.offset_ms}
        for app in self.registry.apps.values():
            yield _app_record(app.config)
            yield _numbers_record(app.config.app_key, app.numbers)
            yield _tones_record(app.config.app_key, app.tones)
        yield from map(_recording_record, self.recordings.live(self.clock.now_ms()))
        yield from map(live_record, self.book.after(0))


def _line(record: dict[str, Any]) -> bytes:
    return orjson.dumps(record) + b"\n"


def _app_record(config: AppConfig) -> dict[str, Any]:
    return {"t": "app", "app": dataclasses.asdict(config)}


def _numbers_record(app_key: str, numbers: dict[str, str]) -> dict[str, Any]:
    return {"t": "numbers", "app_key": app_key, "numbers": numbers}


def _recording_record(recording: Recording) -> dict[str, Any]:
    return {"t": "recording", "recording": dataclasses.asdict(recording)}


def _tones_record(app_key: str, tones: set[str]) -> dict[str, Any]:
    return {"t": "tones", "app_key": app_key, "tones": sorted(tones)}

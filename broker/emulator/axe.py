"""AXE: others dial X and an extension and get A; A dials X and gets whoever reached A last (contract 4)."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterable, Mapping
from typing import Any, Final

import orjson

from broker.emulator import axe_terms as terms
from broker.emulator import fields as check
from broker.emulator.binding import Binding, Book, NextCallee, new_subscription_id
from broker.emulator.choice import candidates
from broker.emulator.codes import BINDING_EXISTS, NO_IDLE_EXTENSION, NO_SUCH_BINDING, SUCCESS, Refusal
from broker.emulator.mode import WITH_BODY, Ask, Connection, Decision, Dial, Mention, Op, printable
from broker.emulator.registry import App, ModeName
from broker.emulator.release import (
    EXTENSION_NOT_ENTERED,
    LANDLINE_CALLER,
    NO_CALLBACK,
    NO_EXTENSION,
    REAL_CALLER_BARRED,
)
from broker.emulator.settings import EmulatorSettings
from broker.emulator.tones import ToneRule

PATH: Final = "/rest/caas/extendnumber/v1.0"


class _Line:
    """What is bound on one X, by extension and by A; each in order of binding."""

    __slots__ = ("of_a", "of_extension")

    def __init__(self) -> None:
        self.of_extension: dict[str, Binding] = {}
        self.of_a: dict[str, dict[str, Binding]] = {}


class Axe:
    """The AXE rules over an index per (X, extension) and per (X, A)."""

    name = ModeName.AXE
    routes: Mapping[tuple[str, str], Op] = {
        ("POST", PATH): Op.BIND,
        ("DELETE", PATH): Op.UNBIND,
        ("PUT", PATH): Op.MODIFY,
        ("GET", PATH): Op.QUERY,
    }

    def __init__(self, settings: EmulatorSettings, book: Book) -> None:
        self._settings = settings
        self._book = book
        self._lines: dict[str, _Line] = {}
        self._tones = ToneRule(settings)
        self._random = random.Random(settings.seed)  # noqa: S311 - which free number is no secret

    # --- the interfaces

    def parse(self, ask: Ask) -> None:
        """Fill in ``ask.fields`` from the body (bind, modify) or the query string."""
        ask.fields = check.body_fields(ask.body) if ask.op in WITH_BODY else check.query_fields(ask.query)

    def decide(self, ask: Ask) -> Decision:
        """Judge one request by the section of the contract that describes its interface."""
        self.parse(ask)
        match ask.op:
            case Op.BIND:
                return self._bind(ask)
            case Op.UNBIND:
                return Decision(SUCCESS, [(Op.UNBIND, self._named(ask.app, ask.fields))])
            case Op.MODIFY:
                return self._modify(ask)
            case _:
                answer = {"resultcode": "0", "resultdesc": "Success", **_info(self._named(ask.app, ask.fields))}
                return Decision(orjson.dumps(answer), [])

    def mention(self, op: Op, fields: Mapping[str, Any]) -> Mention:
        """Read the numbers a request names; all its interfaces use the same names."""
        del op
        return Mention(
            subscription_id=printable(fields.get("subscriptionId")),
            x=printable(fields.get("virtualNum")),
            a=printable(fields.get("bindNum")),
            user_data=printable(fields.get("userData")),
        )

    def _bind(self, ask: Ask) -> Decision:
        fields = ask.fields
        a = check.party(fields, "bindNum")
        if a is None:
            raise check.bad("bindNum")
        wanted = check.text(fields, "virtualNum", 0, 32) or None
        area_code = check.area(fields, "areaCode")
        match_mode = check.lenient_choice(fields, "areaMatchMode", "0", "1")
        if match_mode is not None and area_code is None:
            raise check.bad("areaMatchMode")
        if wanted is None and area_code is None:
            raise check.bad("virtualNum")
        extension = terms.extension(fields, self._digits(ask.app)) if wanted is not None else None
        times = terms.times(fields)
        bind_s = self._settings.axe_bind_hours * terms.HOUR_S if times.bind_s is None else times.bind_s
        callback_s = times.callback_s
        if callback_s is None:
            callback_s = min(self._settings.axe_callback_hours * terms.HOUR_S, bind_s or terms.MAX_S)
        terms.admit_times(bind_s, callback_s)
        user_data = check.user_data(fields)
        extras = {"displayNumMode": "0", "recordFlag": "false", **terms.options(fields)}
        self._tones.admit(ask.app, extras, extras=extras, max_duration=0)
        extras |= {
            "timeUnit": times.unit,
            "bindExpiredTime": times.shown(bind_s),
            "callbackExpiredTime": times.shown(callback_s),
        }
        x, extension = self._place(ask.app, a, wanted, extension, area_code or "", relaxed=match_mode == "1")
        binding = Binding(
            serial=ask.serial,
            subscription_id=new_subscription_id(),
            app_key=ask.app.config.app_key,
            mode=self.name,
            x=x,
            a=a,
            b="",
            since_ms=ask.now_ms,
            expires_ms=_expiry(ask.now_ms, bind_s),
            duration=bind_s,
            call_direction=0,
            max_duration=0,
            user_data=user_data,
            extension=extension,
            extras=extras,
            callback_s=callback_s,
        )
        answer = {
            "resultcode": "0",
            "resultdesc": "Success",
            "subscriptionId": binding.subscription_id,
            "virtualNum": x,
            "extendNum": extension,
        }
        if user_data is not None:
            answer["userData"] = user_data
        return Decision(orjson.dumps(answer), [(Op.BIND, binding)])

    def _modify(self, ask: Ask) -> Decision:
        fields = ask.fields
        a = check.party(fields, "bindNum") if self._settings.axe_modify_changes_a else None
        times = terms.times(fields)
        user_data = check.user_data(fields)
        extras = terms.options(fields)
        old = self._named(ask.app, fields)
        kept = dict(old.extras or {})
        if "callbackTone" in extras or "callbackNum" in extras:  # the one replaces the other
            kept.pop("callbackTone", None)
            kept.pop("callbackNum", None)
        new = dataclasses.replace(
            old,
            a=a or old.a,
            user_data=old.user_data if user_data is None else user_data,
            extras={**kept, **extras},
        )
        if times.bind_s is not None:
            # The query goes on to show the unit and the lifetime of the bind (4.4).
            restarts = self._settings.axe_modify_restarts_clock
            new.duration = times.bind_s
            new.expires_ms = _expiry(ask.now_ms if restarts else old.since_ms, times.bind_s)
        if times.callback_s is not None:
            new.callback_s = times.callback_s
            new.extras = {**kept, **extras, "callbackExpiredTime": times.shown(times.callback_s)}
        terms.admit_times(new.duration, new.callback_s or 0)
        self._tones.admit(ask.app, extras, extras=new.extras, max_duration=0)
        return Decision(SUCCESS, [(Op.MODIFY, new)])

    # --- rules

    def _digits(self, app: App) -> int:
        return app.config.extension_digits or self._settings.axe_extension_digits

    def _named(self, app: App, fields: Mapping[str, Any]) -> Binding:
        """Return the binding that ``subscriptionId``, or else ``virtualNum`` and ``extendNum`` together name."""
        subscription_id = check.text(fields, "subscriptionId", 0, 64)
        if subscription_id:
            binding = self._book.by_id.get(subscription_id)
        else:
            x, extension = check.text(fields, "virtualNum", 1, 32), check.text(fields, "extendNum", 1, 4)
            if x is None:
                raise check.bad("subscriptionId" if extension is None else "virtualNum")
            if extension is None:
                raise check.bad("extendNum")
            line = self._lines.get(x)
            binding = line.of_extension.get(extension) if line else None
        if binding is None or binding.app_key != app.config.app_key:
            raise Refusal(NO_SUCH_BINDING)
        return binding

    def _place(
        self, app: App, a: str, wanted: str | None, extension: str | None, area_code: str, *, relaxed: bool
    ) -> tuple[str, str]:
        """Return the X and the extension of a bind."""
        if wanted is not None:
            if wanted not in app.numbers:
                raise Refusal(self._settings.axe_foreign_x_code)
            line = self._lines.get(wanted)
            if line is not None and a in line.of_a and not self._settings.axe_repeats_a:
                raise Refusal(BINDING_EXISTS)
            if line is not None and extension in line.of_extension:
                raise Refusal(self._settings.axe_taken_code)
            extension = extension or self._free_extension(app, wanted)
            if extension is None:
                raise Refusal(NO_IDLE_EXTENSION)
            return wanted, extension
        code = self._settings.axe_none_in_area_code
        for x in candidates(app, area_code, self._random, relaxed=relaxed):
            code = NO_IDLE_EXTENSION
            line = self._lines.get(x)
            if line is not None and a in line.of_a and not self._settings.axe_repeats_a:
                continue
            extension = self._free_extension(app, x)
            if extension is not None:
                return x, extension
        raise Refusal(code)

    def _free_extension(self, app: App, x: str) -> str | None:
        digits = self._digits(app)
        capacity = 10**digits - 1
        line = self._lines.get(x)
        taken = line.of_extension if line else {}
        if len(taken) >= capacity:
            return None
        start = self._random.randrange(capacity)
        numbers = (str((start + step) % capacity + 1).zfill(digits) for step in range(capacity))
        return next((number for number in numbers if number not in taken), None)

    # --- state

    def bindings_of(self, x: str) -> Iterable[Binding]:
        """Return the live bindings on ``x``, oldest first."""
        line = self._lines.get(x)
        return line.of_extension.values() if line else ()

    def attach(self, binding: Binding) -> None:
        """Give an extension of X to its A."""
        line = self._lines.get(binding.x)
        if line is None:
            line = self._lines[binding.x] = _Line()
        extension = binding.extension or ""
        line.of_extension[extension] = binding
        line.of_a.setdefault(binding.a, {})[extension] = binding

    def detach(self, binding: Binding) -> None:
        """Free an extension of X."""
        line = self._lines[binding.x]
        extension = binding.extension or ""
        del line.of_extension[extension], line.of_a[binding.a][extension]
        if not line.of_a[binding.a]:
            del line.of_a[binding.a]
        if not line.of_extension:
            del self._lines[binding.x]

    def swap(self, old: Binding, new: Binding) -> None:
        """Put a changed binding where it was, also if A is another."""
        if old.a != new.a:
            self.detach(old)
        self.attach(new)

    def call(self, dial: Dial) -> Connection:
        """Connect A to whoever reached A last, and anyone else to the A of the extension, who will call them back."""
        if dial.from_landline:
            return Connection.refused(LANDLINE_CALLER)
        line = self._lines.get(dial.x)
        if line is not None and dial.caller in line.of_a:
            return _call_back(dial, line.of_a[dial.caller].values())
        if not dial.digits:
            return Connection.refused(EXTENSION_NOT_ENTERED)
        binding = line.of_extension.get(dial.digits) if line else None
        if binding is None:
            return Connection.refused(NO_EXTENSION)
        shown = dial.x
        if (binding.extras or {}).get("displayNumMode") == "1":
            if not self._settings.real_caller_allowed:
                return Connection.refused(REAL_CALLER_BARRED, binding)
            shown = dial.caller
        return Connection.over(binding, binding.a, shown, self._remembering(binding, dial))

    def _remembering(self, binding: Binding, dial: Dial) -> list[tuple[Op, Binding]]:
        seconds = binding.callback_s or 0
        if not seconds and self._settings.axe_callback_zero == "at_once":
            return []
        last = NextCallee(dial.caller, dial.now_ms, _expiry(dial.now_ms, seconds))
        return [(Op.CALL, dataclasses.replace(binding, callee=last))]


def _call_back(dial: Dial, bindings: Iterable[Binding]) -> Connection:
    """Connect A, who holds ``bindings`` on X: to the last of their callers, else as the newest of them says."""
    records = [(b.callee, b) for b in bindings if b.callee is not None and b.callee.lives(dial.now_ms)]
    if records:
        last, binding = max(records, key=lambda record: record[0].since_ms)
        return Connection.over(binding, last.number, dial.x)
    *_, newest = bindings
    number = (newest.extras or {}).get("callbackNum")
    return Connection.over(newest, number, dial.x) if number else Connection.refused(NO_CALLBACK, newest)


def _info(binding: Binding) -> dict[str, Any]:
    info: dict[str, Any] = {
        "subscriptionId": binding.subscription_id,
        "virtualNum": binding.x,
        "extendNum": binding.extension,
        "bindNum": binding.a,
        **(binding.extras or {}),
    }
    if binding.user_data is not None:
        info["userData"] = binding.user_data
    return info


def _expiry(now_ms: int, seconds: int) -> int | None:
    return now_ms + seconds * 1000 if seconds else None

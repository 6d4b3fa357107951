"""AX: anyone dials X and gets A; A dials X and gets the temporary callee set before (contract 3)."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterable, Mapping
from typing import Any, Final

import orjson

from broker.emulator import fields as check
from broker.emulator.binding import Binding, Book, NextCallee, new_subscription_id
from broker.emulator.choice import candidates
from broker.emulator.codes import (
    NO_SUCH_BINDING,
    NONE_FREE,
    NOT_OF_APP,
    SUCCESS,
    TOO_MANY_X,
    X_ALLOCATED,
    X_NOT_BOUND,
    Refusal,
)
from broker.emulator.mode import WITH_BODY, Ask, Connection, Decision, Dial, Mention, Op, printable
from broker.emulator.options import MAX_CALL_MIN, options
from broker.emulator.registry import App, ModeName
from broker.emulator.release import (
    DIRECTION_BARRED,
    LANDLINE_CALLER,
    NO_SERVICE,
    REAL_CALLER_BARRED,
)
from broker.emulator.settings import EmulatorSettings
from broker.emulator.times import subscribe_time
from broker.emulator.tones import ToneRule

PATH: Final = "/rest/provision/caas/privatenumber/v1.0"
CALLEE_PATH: Final = "/rest/caas/privatenumber/calleenumber/v1.0"
NUMBER_TYPE: Final = "mobile-virtual"
MAX_CALLEE_S: Final = 259_200
CALLEE_S: Final = 60
A_DIALS: Final = 1
OTHERS_DIAL: Final = 2

_NEWEST: Final = frozenset({"origNum", "privateSms", "recordFlag", "maxDuration", "lastMinVoice", "userData"})
_KEYS: Final = frozenset({"subscriptionId", "privateNum"})


class Ax:
    """The AX rules over one binding per X and an index per (app, A)."""

    name = ModeName.AX
    routes: Mapping[tuple[str, str], Op] = {
        ("POST", PATH): Op.BIND,
        ("DELETE", PATH): Op.UNBIND,
        ("PUT", PATH): Op.MODIFY,
        ("GET", PATH): Op.QUERY,
        ("PUT", CALLEE_PATH): Op.CALLEE,
    }

    def __init__(self, settings: EmulatorSettings, book: Book) -> None:
        self._settings = settings
        self._book = book
        self._by_x: dict[str, Binding] = {}
        self._by_a: dict[tuple[str, str], dict[str, Binding]] = {}
        self._defaults = {"recordFlag": "false", "privateSms": "true"}
        if settings.ax_turn_flag != "unknown":
            self._defaults["turnFlag"] = settings.ax_turn_flag
        self._tones = ToneRule(settings)
        self._random = random.Random(settings.seed)  # noqa: S311 - which free number is no secret

    # --- the interfaces

    def parse(self, ask: Ask) -> None:
        """Fill in ``ask.fields`` from the body (bind, modify, temporary callee) or the query string."""
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
            case Op.CALLEE:
                return self._set_callee(ask)
            case _:
                return self._query(ask)

    def mention(self, op: Op, fields: Mapping[str, Any]) -> Mention:
        """Read the numbers a request names; a temporary callee stands where other modes have B."""
        return Mention(
            subscription_id=printable(fields.get("subscriptionId")),
            x=printable(fields.get("privateNum")),
            a=printable(fields.get("origNum")),
            b=printable(fields.get("calleeNum")) if op is Op.CALLEE else None,
            user_data=printable(fields.get("userData")),
        )

    def _bind(self, ask: Ask) -> Decision:
        fields = ask.fields
        a = check.party(fields, "origNum")
        if a is None:
            raise check.bad("origNum")
        wanted = check.text(fields, "privateNum", 1, 31)
        number_type = check.choice(fields, "privateNumType", NUMBER_TYPE)
        area_code = check.area(fields, "areaCode")
        match_mode = check.lenient_choice(fields, "areaMatchMode", "0", "1")
        call_direction = check.integer(fields, "callDirection", 0, 2) or 0
        max_duration = check.integer(fields, "maxDuration", 0, MAX_CALL_MIN) or 0
        user_data = check.user_data(fields)
        extras = {**self._defaults, **self._extras(fields)}
        if "calleeNumDisplay" not in extras:
            raise check.bad("calleeNumDisplay")
        if match_mode is not None and area_code is None:
            raise check.bad("areaMatchMode")
        if wanted is None and area_code is None:
            raise check.bad("privateNum")
        if wanted is None and number_type is None:
            raise check.bad("privateNumType")
        self._tones.admit(ask.app, extras, extras=extras, max_duration=max_duration)
        x = self._choose_x(ask.app, a, wanted, area_code or "", relaxed=match_mode == "1")
        binding = Binding(
            serial=ask.serial,
            subscription_id=new_subscription_id(),
            app_key=ask.app.config.app_key,
            mode=self.name,
            x=x,
            a=a,
            b="",
            since_ms=ask.now_ms,
            expires_ms=None,
            duration=0,
            call_direction=call_direction,
            max_duration=max_duration,
            user_data=user_data,
            extras=extras,
        )
        answer = {
            "resultcode": "0",
            "resultdesc": "Success",
            "origNum": a,
            "privateNum": x,
            "subscriptionId": binding.subscription_id,
        }
        return Decision(orjson.dumps(answer), [(Op.BIND, binding)])

    def _modify(self, ask: Ask) -> Decision:
        fields = ask.fields
        if self._settings.ax_modify_fields == "newest":
            fields = {name: value for name, value in fields.items() if name in _NEWEST or name in _KEYS}
        a = check.party(fields, "origNum")
        call_direction = check.integer(fields, "callDirection", 0, 2)
        max_duration = check.integer(fields, "maxDuration", 0, MAX_CALL_MIN)
        user_data = check.user_data(fields)
        extras = self._extras(fields)
        old = self._named(ask.app, fields)
        new = dataclasses.replace(
            old,
            a=a or old.a,
            call_direction=old.call_direction if call_direction is None else call_direction,
            max_duration=old.max_duration if max_duration is None else max_duration,
            user_data=old.user_data if user_data is None else user_data,
            extras={**(old.extras or {}), **extras},
        )
        if new.callee is not None and new.callee.number == new.a:
            new.callee = None  # A would reach themselves
        self._tones.admit(ask.app, extras, extras=new.extras, max_duration=new.max_duration)
        if new.a != old.a:
            self._admit_a(ask.app, new.a)
        return Decision(SUCCESS, [(Op.MODIFY, new)])

    def _set_callee(self, ask: Ask) -> Decision:
        fields = ask.fields
        number = check.phone(fields, "calleeNum")
        duration = check.integer(fields, "duration", 1, MAX_CALLEE_S) or CALLEE_S
        user_data = check.user_data(fields)
        if number is None:
            raise check.bad("calleeNum")
        old = self._named(ask.app, fields)
        if number == old.a:
            raise check.bad("calleeNum")
        callee = NextCallee(number, ask.now_ms, ask.now_ms + duration * 1000, user_data)
        answer = {"resultcode": "0", "resultdesc": "Success"}
        if user_data is not None:
            answer["userData"] = user_data
        return Decision(orjson.dumps(answer), [(Op.CALLEE, dataclasses.replace(old, callee=callee))])

    def _query(self, ask: Ask) -> Decision:
        fields = ask.fields
        a = check.text(fields, "origNum", 1, 31)
        if a is None or fields.get("subscriptionId"):
            try:
                found: Iterable[Binding] = [self._named(ask.app, fields)]
            except Refusal as refusal:
                if refusal.code not in {NO_SUCH_BINDING, X_NOT_BOUND}:
                    raise
                found = ()
        else:
            found = self._of_a(ask.app, a).values()
        if not found:
            raise Refusal(self._settings.ax_query_missing_code)
        answer = {"resultcode": "0", "resultdesc": "Success", "privateNumList": list(map(_info, found))}
        return Decision(orjson.dumps(answer), [])

    # --- rules

    def _named(self, app: App, fields: Mapping[str, Any]) -> Binding:
        """Return the binding that ``subscriptionId`` or else ``privateNum`` names."""
        subscription_id = check.text(fields, "subscriptionId", 0, 64)
        x = check.text(fields, "privateNum", 1, 32)
        if subscription_id:
            binding, missing = self._book.by_id.get(subscription_id), NO_SUCH_BINDING
        elif x is None:
            raise check.bad("privateNum")
        else:
            binding, missing = self._by_x.get(x), X_NOT_BOUND
        if binding is None or binding.app_key != app.config.app_key:
            raise Refusal(missing)
        return binding

    def _extras(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        extras = options(fields)
        display = check.lenient_choice(fields, "calleeNumDisplay", "0", "1")
        if display is not None:
            extras["calleeNumDisplay"] = display
        turned = check.choice(fields, "turnFlag", "on", "off") if "turnFlag" in self._defaults else None
        if turned is not None:
            extras["turnFlag"] = turned
        return extras

    def _choose_x(self, app: App, a: str, wanted: str | None, area_code: str, *, relaxed: bool) -> str:
        if wanted is not None:
            if wanted not in app.numbers:
                raise Refusal(NOT_OF_APP)
            held = self._by_x.get(wanted)
            if held is not None:
                raise Refusal(self._settings.ax_same_pair_code if held.a == a else X_ALLOCATED)
        self._admit_a(app, a)
        if wanted is not None:
            return wanted
        for x in candidates(app, area_code, self._random, relaxed=relaxed):
            if x not in self._by_x:
                return x
        raise Refusal(NONE_FREE)

    def _admit_a(self, app: App, a: str) -> None:
        if len(self._of_a(app, a)) >= self._settings.ax_x_per_a:
            raise Refusal(TOO_MANY_X)

    # --- state

    def _of_a(self, app: App, a: str) -> dict[str, Binding]:
        return self._by_a.get((app.config.app_key, a), {})

    def bindings_of(self, x: str) -> Iterable[Binding]:
        """Return the binding of ``x``, if it has one."""
        return (self._by_x[x],) if x in self._by_x else ()

    def attach(self, binding: Binding) -> None:
        """Give X to its A."""
        self._by_x[binding.x] = binding
        self._by_a.setdefault((binding.app_key, binding.a), {})[binding.x] = binding

    def detach(self, binding: Binding) -> None:
        """Free X."""
        del self._by_x[binding.x]
        of_a = self._by_a[binding.app_key, binding.a]
        del of_a[binding.x]
        if not of_a:
            del self._by_a[binding.app_key, binding.a]

    def swap(self, old: Binding, new: Binding) -> None:
        """Put a changed binding where it was, also if A is another."""
        if old.a != new.a:
            self.detach(old)
        self.attach(new)

    def call(self, dial: Dial) -> Connection:
        """Connect A to the temporary callee, who sees X, and anyone else to A."""
        binding = self._by_x.get(dial.x)
        if binding is None:
            return Connection.refused(NO_SERVICE)
        if dial.from_landline:
            return Connection.refused(LANDLINE_CALLER, binding)
        extras = binding.extras or {}
        if extras.get("turnFlag") == "off":
            return Connection.refused(self._settings.ax_turned_off_state, binding)
        from_a = dial.caller == binding.a
        if binding.call_direction == (OTHERS_DIAL if from_a else A_DIALS):
            return Connection.refused(DIRECTION_BARRED, binding)
        if from_a:
            return self._call_of_a(binding, dial.now_ms)
        if extras["calleeNumDisplay"] == "0":
            return Connection.over(binding, binding.a, binding.x)
        if not self._settings.real_caller_allowed:
            return Connection.refused(REAL_CALLER_BARRED, binding)
        return Connection.over(binding, binding.a, dial.caller)

    def _call_of_a(self, binding: Binding, now_ms: int) -> Connection:
        callee = binding.callee
        if callee is None or not callee.lives(now_ms):
            return Connection.refused(self._settings.ax_no_callee_state, binding)
        used_up = dataclasses.replace(binding, callee=None)
        changes = [(Op.CALL, used_up)] if self._settings.ax_call_uses_up_callee else []
        connection = Connection.over(binding, callee.number, binding.x, changes)
        if callee.user_data is None:
            return connection
        # What was given with the callee is this call's (3.5).
        return dataclasses.replace(connection, terms=dataclasses.replace(connection.terms, user_data=callee.user_data))


def _info(binding: Binding) -> dict[str, Any]:
    info: dict[str, Any] = {
        "origNum": binding.a,
        "privateNum": binding.x,
        "privateNumType": NUMBER_TYPE,
        "subscriptionId": binding.subscription_id,
        "subscribeTime": subscribe_time(binding.since_ms),
        **(binding.extras or {}),
        "callDirection": binding.call_direction,
        "maxDuration": binding.max_duration,
    }
    if binding.user_data is not None:
        info["userData"] = binding.user_data
    return info

"""AXYB: A owns an X, whoever A deals with gets a Y; B dials X, A dials Y, and neither sees the other (contract 5.2).

A relation (a B with its Y) is a binding of its own here, with X and A of the AX it belongs to; on the wire it goes by
the ``subscriptionId`` of that AX.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, Final

import orjson

from broker.emulator import fields as check
from broker.emulator.binding import Binding, Book, new_subscription_id
from broker.emulator.codes import NO_SUCH_BINDING, SUCCESS, UNKNOWN_APP, Refusal
from broker.emulator.mode import Ask, Connection, Decision, Dial, Mention, Op, printable
from broker.emulator.registry import App, ModeName
from broker.emulator.release import DIRECTION_BARRED, LANDLINE_CALLER, NO_AXYB_BINDING, NO_Y, OWN_NUMBER
from broker.emulator.roles import Roles
from broker.emulator.settings import EmulatorSettings
from broker.emulator.times import subscribe_time
from broker.emulator.tones import ToneRule

PATH: Final = "/rest/omp/xyrelationnumber/v1.0"
_A_TO_B: Final = 1
_B_TO_A: Final = 2
_DEFAULT_S: Final = 7_200
_LOW_S, _HIGH_S = 60, 7_776_000
_SHOWN: Final = ("recordFlag", "recordHintTone", "preVoiceX", "preVoiceY")


class Axyb:
    """The AXYB rules; :class:`Roles` knows who is on which number."""

    name = ModeName.AXYB
    routes: Mapping[tuple[str, str], Op] = {
        ("POST", PATH): Op.BIND,
        ("DELETE", PATH): Op.UNBIND,
        ("GET", PATH): Op.QUERY,
    }

    def __init__(self, settings: EmulatorSettings, book: Book) -> None:
        self._book = book
        self._roles = Roles(settings)
        self._settings = settings
        self._tones = ToneRule(settings)

    # --- the interfaces

    def parse(self, ask: Ask) -> None:
        """Fill in ``ask.fields``: of a bind from the body, of all else from the query string."""
        ask.fields = check.body_fields(ask.body) if ask.op is Op.BIND else check.query_fields(ask.query)

    def decide(self, ask: Ask) -> Decision:
        """Judge one request; all of them name the app in the query string, too."""
        self.parse(ask)
        app_key = check.text(check.query_fields(ask.query), "app_key", 1, 128)
        if app_key is None:
            raise check.bad("app_key")
        if app_key != ask.app.config.app_key:
            raise Refusal(UNKNOWN_APP)
        match ask.op:
            case Op.BIND if ask.fields.get("subscriptionId") is not None:
                return self._bind_yb(ask)
            case Op.BIND:
                return self._bind_ax(ask)
            case Op.UNBIND:
                return self._unbind(ask)
            case _:
                return self._query(ask)

    def mention(self, op: Op, fields: Mapping[str, Any]) -> Mention:
        """Read the numbers a request names; ``origNum`` is B where a relation is bound."""
        party, subscription_id = printable(fields.get("origNum")), printable(fields.get("subscriptionId"))
        return Mention(
            subscription_id=subscription_id,
            x=printable(fields.get("relationNum")),
            a=None if subscription_id else party,
            b=party if subscription_id and op is Op.BIND else printable(fields.get("bNum")),
            user_data=printable(fields.get("userData")),
        )

    def _bind_ax(self, ask: Ask) -> Decision:
        fields = ask.fields
        a = _party(fields)
        area_code = check.area(fields, "areaCode")
        relaxed = check.choice(fields, "areaMatchMode", "0", "1") == "1"
        call_direction = check.integer(fields, "callDirection", 0, 2) or 0
        duration = _seconds(fields, "duration")
        duration = _DEFAULT_S if duration is None else duration
        extras = {
            "recordFlag": check.flag(fields, "recordFlag"),
            "recordHintTone": check.voice_file(fields, "recordHintTone"),
            "preVoiceX": check.voice_file(fields, "preVoiceX"),
            "ybDuration": _cut(_seconds(fields, "ybDuration") or 0, duration),
        }
        extras = {name: value for name, value in extras.items() if value is not None}
        user_data = check.user_data(fields)
        self._tones.admit(ask.app, extras, extras=extras, max_duration=0)
        if area_code is None:
            raise check.bad("areaCode")
        binding = Binding(
            serial=ask.serial,
            subscription_id=new_subscription_id(),
            app_key=ask.app.config.app_key,
            mode=self.name,
            x=self._choose_x(ask.app, a, area_code, relaxed=relaxed),
            a=a,
            b="",
            since_ms=ask.now_ms,
            expires_ms=ask.now_ms + duration * 1000 if duration else None,
            duration=duration,
            call_direction=call_direction,
            max_duration=0,
            user_data=user_data,
            extras=extras,
        )
        return Decision(_bound(binding.subscription_id, binding.x), [(Op.BIND, binding)])

    def _bind_yb(self, ask: Ask) -> Decision:
        fields = ask.fields
        subscription_id = check.text(fields, "subscriptionId", 1, 64) or ""
        b = _party(fields)
        area_code = check.area(fields, "areaCode")
        relaxed = check.choice(fields, "areaMatchMode", "0", "1") == "1"
        lifetime = _seconds(fields, "ybDuration")
        tone = check.voice_file(fields, "preVoiceY")
        user_data = check.user_data(fields)
        extras = {} if tone is None else {"preVoiceY": tone}
        self._tones.admit(ask.app, extras, extras=extras, max_duration=0)
        ax = self._own(ask.app, subscription_id)
        if b == ax.a:
            raise check.bad("origNum")
        if self._roles.relation(ax, b) is not None:
            raise Refusal(self._settings.axyb_duplicate_code)
        y = self._roles.free_y(ask.app, ax, area_code, relaxed=relaxed)
        if y is None:
            raise Refusal(self._settings.axyb_exhausted_code)
        binding = self._yb(ax, b, y, ask.serial, ask.now_ms, lifetime=lifetime, user_data=user_data, extras=extras)
        return Decision(_bound(subscription_id, y), [(Op.BIND, binding)])

    def _unbind(self, ask: Ask) -> Decision:
        subscription_id = check.text(ask.fields, "subscriptionId", 1, 64)
        y, b = check.text(ask.fields, "yNum", 4, 31), check.text(ask.fields, "bNum", 4, 31)
        if subscription_id is None:
            raise check.bad("subscriptionId")
        ax = self._own(ask.app, subscription_id)
        if y is None and b is None:
            return Decision(SUCCESS, [*((Op.UNBIND, yb) for yb in self._roles.relations(ax).values()), (Op.UNBIND, ax)])
        relation = self._roles.relations(ax).get(y) if y is not None else self._roles.relation(ax, b or "")
        if relation is None:
            raise Refusal(NO_SUCH_BINDING)
        return Decision(SUCCESS, [(Op.UNBIND, relation)])

    def _query(self, ask: Ask) -> Decision:
        subscription_id = check.text(ask.fields, "subscriptionId", 1, 64)
        x = check.text(ask.fields, "relationNum", 4, 31)
        if subscription_id is not None:
            ax = self._own(ask.app, subscription_id)
        elif x is None:
            raise check.bad("relationNum")
        elif x not in ask.app.numbers or x not in self._roles.owned:
            raise Refusal(NO_SUCH_BINDING)
        else:
            ax = self._roles.owned[x]
        relations = islice(self._roles.relations(ax).values(), self._settings.axyb_query_rows)
        shown = [_info(ax, yb) for yb in relations] or [_info(ax, None)]
        return Decision(
            orjson.dumps({"resultcode": "0", "resultdesc": "Success", "xyRelationNumList": shown}),
            [],
        )

    # --- rules

    def _own(self, app: App, subscription_id: str) -> Binding:
        """Return the AX with this id; a relation has none of its own on the wire."""
        binding = self._book.by_id.get(subscription_id)
        if binding is None or binding.app_key != app.config.app_key or binding.y is not None:
            raise Refusal(NO_SUCH_BINDING)
        return binding

    def _choose_x(self, app: App, a: str, area_code: str, *, relaxed: bool) -> str:
        if self._roles.x_count(app, a) >= self._settings.axyb_x_per_a:
            raise Refusal(self._settings.axyb_x_limit_code)
        x = self._roles.free_x(app, area_code, relaxed=relaxed)
        if x is not None:
            return x
        raise Refusal(self._settings.axyb_exhausted_code)

    def _yb(
        self,
        ax: Binding,
        b: str,
        y: str,
        serial: int,
        now_ms: int,
        *,
        lifetime: int | None = None,
        user_data: str | None = None,
        extras: dict[str, Any] | None = None,
    ) -> Binding:
        lifetime = _cut((ax.extras or {}).get("ybDuration", 0) if lifetime is None else lifetime, ax.duration)
        ends = [at for at in (ax.expires_ms, now_ms + lifetime * 1000 if lifetime else None) if at is not None]
        return Binding(
            serial=serial,
            subscription_id=new_subscription_id(),
            app_key=ax.app_key,
            mode=self.name,
            x=ax.x,
            a=ax.a,
            b=b,
            y=y,
            since_ms=now_ms,
            expires_ms=min(ends, default=None),
            duration=lifetime,
            call_direction=ax.call_direction,
            max_duration=0,
            user_data=user_data,
            extras=extras or None,
        )

    # --- state

    def bindings_of(self, x: str) -> Iterable[Binding]:
        """Return the AX of ``x`` and its relations, or the relations that ``x`` is the Y of."""
        return self._roles.bindings_of(x)

    def attach(self, binding: Binding) -> None:
        """Index an AX or a relation."""
        self._roles.attach(binding)

    def detach(self, binding: Binding) -> None:
        """Free what an AX or a relation held."""
        self._roles.detach(binding)

    def swap(self, old: Binding, new: Binding) -> None:
        """Never called: this mode has no modify interface and its calls change no binding."""
        raise AssertionError((old.subscription_id, new.subscription_id))

    # --- calls

    def call(self, dial: Dial) -> Connection:
        """Connect B who dials X, or A who dials a Y."""
        ax = self._roles.owned.get(dial.x)
        if ax is not None:
            return self._call_x(ax, dial)
        on_y = self._roles.on_y(dial.x)
        relation = on_y.get(dial.caller)
        if relation is not None:
            return self._call_y(relation, dial)
        own = any(yb.b == dial.caller for yb in on_y.values())
        return Connection.refused(OWN_NUMBER if own else NO_AXYB_BINDING)

    def _call_x(self, ax: Binding, dial: Dial) -> Connection:
        if dial.caller == ax.a:
            return Connection.refused(OWN_NUMBER)
        refusal = _barred(dial, ax.call_direction, _A_TO_B)
        if refusal:
            return Connection.refused(refusal)
        relation = self._roles.relation(ax, dial.caller)
        if relation is not None:
            return Connection.over(ax, ax.a, relation.y)
        y = self._roles.free_y(dial.app, ax, None, relaxed=True)
        if y is None:
            return Connection.refused(NO_Y)
        relation = self._yb(ax, dial.caller, y, dial.serial, dial.now_ms)
        return Connection.over(ax, ax.a, y, [(Op.BIND, relation)])

    def _call_y(self, relation: Binding, dial: Dial) -> Connection:
        refusal = _barred(dial, relation.call_direction, _B_TO_A)
        if refusal:
            return Connection.refused(refusal)
        return Connection.over(self._roles.owned[relation.x], relation.b, relation.x)


def _party(fields: Mapping[str, Any]) -> str:
    number = check.party(fields, "origNum")
    if number is None:
        raise check.bad("origNum")
    return number


def _seconds(fields: Mapping[str, Any], name: str) -> int | None:
    """Return a lifetime: 0, which is without end of its own, or a minute to 90 days."""
    value = check.integer(fields, name, 0, _HIGH_S)
    if value is not None and 0 < value < _LOW_S:
        raise check.bad(name)
    return value


def _cut(lifetime: int, duration: int) -> int:
    """Return a relation's lifetime, cut to that of its AX (0 is without end)."""
    return min(lifetime, duration) if duration else lifetime


def _barred(dial: Dial, call_direction: int, barring: int) -> int:
    """Return the release cause of a call that may not be made, 0 for one that may."""
    if dial.from_landline:
        return LANDLINE_CALLER
    return DIRECTION_BARRED if call_direction == barring else 0


def _bound(subscription_id: str, number: str) -> bytes:
    answer = {"resultcode": "0", "resultdesc": "Success", "subscriptionId": subscription_id, "relationNumber": number}
    return orjson.dumps(answer)


def _info(ax: Binding, yb: Binding | None) -> dict[str, Any]:
    """Describe a relation, or an AX that has none; lifetimes are text here."""
    extras = {**(ax.extras or {}), **((yb.extras or {}) if yb else {})}
    last = yb or ax
    info: dict[str, Any] = {
        "bindId": ax.subscription_id,
        "numA": ax.a,
        "numX": ax.x,
        **({"numY": yb.y, "numB": yb.b} if yb else {}),
        "recordFlag": "false",
        "subscribeTime": subscribe_time(last.since_ms),
        "callDirection": ax.call_direction,
        "duration": str(ax.duration),
        "ybDuration": str(yb.duration if yb else extras.get("ybDuration", 0)),
        **{name: extras[name] for name in _SHOWN if name in extras},
    }
    return info if last.user_data is None else {**info, "userData": last.user_data}

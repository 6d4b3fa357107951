"""AXB: A and B both dial X and each sees X (contract 2)."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, Final

import orjson

from broker.emulator import fields as check
from broker.emulator.areas import landline_area
from broker.emulator.binding import Binding, Book, new_subscription_id
from broker.emulator.choice import candidates
from broker.emulator.codes import ALREADY_BOUND, INSUFFICIENT, NO_RECORD, NUMBER_NOT_APPLIED, SUCCESS, Refusal
from broker.emulator.mode import WITH_BODY, Ask, Connection, Decision, Dial, Mention, Op, printable
from broker.emulator.options import MAX_CALL_MIN, options
from broker.emulator.registry import App, ModeName
from broker.emulator.release import DIRECTION_BARRED, LANDLINE_CALLER, NO_BINDING
from broker.emulator.settings import EmulatorSettings
from broker.emulator.times import subscribe_time
from broker.emulator.tones import ToneRule

PATH: Final = "/rest/caas/relationnumber/partners/v1.0"
MAX_DURATION_S: Final = 7_776_000
A_TO_B: Final = 1
B_TO_A: Final = 2

_DEFAULT_PAGE: Final = 50


class _Line:
    """What is bound on one X: users in either role, and the pairs in order of binding."""

    __slots__ = ("pairs", "users")

    def __init__(self) -> None:
        self.users: dict[str, Binding] = {}
        self.pairs: dict[str, Binding] = {}


class Axb:
    """The AXB rules over an index per X and per (X, number)."""

    name = ModeName.AXB
    routes: Mapping[tuple[str, str], Op] = {
        ("POST", PATH): Op.BIND,
        ("DELETE", PATH): Op.UNBIND,
        ("PUT", PATH): Op.MODIFY,
        ("GET", PATH): Op.QUERY,
    }

    def __init__(self, settings: EmulatorSettings, book: Book) -> None:
        self._book = book
        self._lines: dict[str, _Line] = {}
        self._pairs_per_x = settings.pairs_per_x
        self._own_area_first = settings.landline_explicit_x == "own_area"
        self._echoes_extras = settings.query_echoes_extras
        self._paging_as_text = settings.paging_as_text
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
                return self._unbind(ask)
            case Op.MODIFY:
                return self._modify(ask)
            case _:
                return self._query(ask)

    def mention(self, op: Op, fields: Mapping[str, Any]) -> Mention:
        """Read the numbers a request names; all its interfaces use the same names."""
        del op
        return Mention(
            subscription_id=printable(fields.get("subscriptionId")),
            x=printable(fields.get("relationNum")),
            a=printable(fields.get("callerNum")),
            b=printable(fields.get("calleeNum")),
            user_data=printable(fields.get("userData")),
        )

    def _bind(self, ask: Ask) -> Decision:
        fields = ask.fields
        a, b = _parties(fields)
        wanted = check.text(fields, "relationNum", 4, 31)
        area_code = check.area(fields, "areaCode")
        match_mode = check.choice(fields, "areaMatchMode", "0", "1") or "0"
        duration = check.integer(fields, "duration", 0, MAX_DURATION_S) or 0
        call_direction = check.integer(fields, "callDirection", 0, 2) or 0
        max_duration = check.integer(fields, "maxDuration", 0, MAX_CALL_MIN) or 0
        user_data = check.user_data(fields, caret=False)
        extras = options(fields) or None
        self._tones.admit(ask.app, extras, extras=extras, max_duration=max_duration)
        if wanted is None and area_code is None:
            raise check.bad("relationNum")
        x = self._choose_x(ask.app, wanted, area_code, a, b, relaxed=match_mode == "1")
        binding = Binding(
            serial=ask.serial,
            subscription_id=new_subscription_id(),
            app_key=ask.app.config.app_key,
            mode=self.name,
            x=x,
            a=a,
            b=b,
            since_ms=ask.now_ms,
            expires_ms=_expiry(ask.now_ms, duration),
            duration=duration,
            call_direction=call_direction,
            max_duration=max_duration,
            user_data=user_data,
            extras=extras,
        )
        answer: dict[str, Any] = {
            "resultcode": "0",
            "resultdesc": "Success",
            "subscriptionId": binding.subscription_id,
            "relationNum": x,
            "callDirection": call_direction,
            "duration": duration,
            "maxDuration": max_duration,
        }
        if user_data is not None:
            answer["userData"] = user_data
        return Decision(orjson.dumps(answer), [(Op.BIND, binding)])

    def _unbind(self, ask: Ask) -> Decision:
        subscription_id = check.text(ask.fields, "subscriptionId", 1, 64)
        if subscription_id is not None:
            return Decision(SUCCESS, [(Op.UNBIND, self._own(ask.app, subscription_id))])
        x = check.text(ask.fields, "relationNum", 4, 31)
        if x is None:
            raise check.bad("subscriptionId")
        if x not in ask.app.numbers:
            raise Refusal(NUMBER_NOT_APPLIED)
        changes = [(Op.UNBIND, binding) for binding in self.bindings_of(x)]
        if not changes:
            raise Refusal(NO_RECORD)
        return Decision(SUCCESS, changes)

    def _modify(self, ask: Ask) -> Decision:
        fields = ask.fields
        subscription_id = check.text(fields, "subscriptionId", 1, 64)
        if subscription_id is None:
            raise check.bad("subscriptionId")
        caller, callee = check.party(fields, "callerNum"), check.party(fields, "calleeNum")
        duration = check.integer(fields, "duration", 0, MAX_DURATION_S)
        call_direction = check.integer(fields, "callDirection", 0, 2)
        max_duration = check.integer(fields, "maxDuration", 0, MAX_CALL_MIN)
        user_data = check.user_data(fields, caret=False)
        extras = options({**fields, "recordHintTone": None})  # no field of this interface: kept as it was bound
        old = self._own(ask.app, subscription_id)
        new = dataclasses.replace(
            old,
            a=caller or old.a,
            b=callee or old.b,
            since_ms=ask.now_ms,
            call_direction=old.call_direction if call_direction is None else call_direction,
            max_duration=old.max_duration if max_duration is None else max_duration,
            user_data=old.user_data if user_data is None else user_data,
            extras={**(old.extras or {}), **extras} or None,
        )
        if duration is not None:  # the clock restarts at the modification (faq); without the field it runs on
            new.duration, new.expires_ms = duration, _expiry(ask.now_ms, duration)
        if new.a == new.b:
            raise check.bad("calleeNum")
        self._tones.admit(ask.app, extras, extras=new.extras, max_duration=new.max_duration)
        users = self._lines[old.x].users
        if any(users.get(number, old) is not old for number in (new.a, new.b)):
            raise Refusal(ALREADY_BOUND)
        return Decision(SUCCESS, [(Op.MODIFY, new)])

    def _query(self, ask: Ask) -> Decision:
        fields = ask.fields
        subscription_id = check.text(fields, "subscriptionId", 1, 64)
        x = check.text(fields, "relationNum", 4, 31)
        a, b = check.text(fields, "callerNum", 4, 128), check.text(fields, "calleeNum", 4, 128)
        page, size = _number(fields.get("pageIndex")), _number(fields.get("pageSize"))
        page = max(page, 1)
        size = size if 10 <= size <= 100 else _DEFAULT_PAGE  # noqa: PLR2004 - the contract's bounds
        if subscription_id is not None:
            found = [self._own(ask.app, subscription_id)]
            total = 1
        elif x is None:
            raise check.bad("relationNum")
        elif x not in ask.app.numbers:
            raise Refusal(NO_RECORD)
        elif a is not None or b is not None:
            found = self._of_parties(x, a, b)
            total = len(found)
        else:
            return self._page(ask.app, self.bindings_of(x), len(self._pairs(x)), page, size)
        return self._page(ask.app, found, total, page, size)

    def _page(self, app: App, found: Iterable[Binding], total: int, page: int, size: int) -> Decision:
        if not total:
            raise Refusal(NO_RECORD)
        first = (page - 1) * size
        shown = islice(found, first, first + size) if first < total else ()
        answer = {
            "resultcode": "0",
            "resultdesc": "Success",
            "app_key": app.config.app_key,
            "totalCount": total,
            "pageIndex": str(page) if self._paging_as_text else page,
            "pageSize": str(size) if self._paging_as_text else size,
            "relationNumList": [self._info(binding) for binding in shown],
        }
        return Decision(orjson.dumps(answer), [])

    def _info(self, binding: Binding) -> dict[str, Any]:
        extras = binding.extras or {}
        info: dict[str, Any] = {
            "subscriptionId": binding.subscription_id,
            "relationNum": binding.x,
            "callerNum": binding.a,
            "calleeNum": binding.b,
            "callDirection": binding.call_direction,
            "duration": binding.duration,
            "maxDuration": binding.max_duration,
            "recordFlag": extras.get("recordFlag", "false"),
            "subscribeTime": subscribe_time(binding.since_ms),
        }
        if self._echoes_extras:
            info.update(extras)
        if binding.user_data is not None:
            info["userData"] = binding.user_data
        return info

    # --- rules

    def _own(self, app: App, subscription_id: str) -> Binding:
        binding = self._book.by_id.get(subscription_id)
        if binding is None or binding.app_key != app.config.app_key:
            raise Refusal(NO_RECORD)
        return binding

    def _of_parties(self, x: str, a: str | None, b: str | None) -> list[Binding]:
        line = self._lines.get(x)
        binding = line.users.get(a or b or "") if line else None
        if binding is None or (a is not None and binding.a != a) or (b is not None and binding.b != b):
            return []
        return [binding]

    def _choose_x(self, app: App, wanted: str | None, area_code: str | None, a: str, b: str, *, relaxed: bool) -> str:
        own_area = landline_area(a)
        if wanted is not None and not (own_area and self._own_area_first):
            if wanted not in app.numbers:
                raise Refusal(NUMBER_NOT_APPLIED)
            self._admit(wanted, a, b)
            return wanted
        for x in candidates(app, own_area or area_code or "", self._random, relaxed=relaxed):
            line = self._lines.get(x)
            if line is None or (len(line.pairs) < self._pairs_per_x and a not in line.users and b not in line.users):
                return x
        raise Refusal(INSUFFICIENT)

    def _admit(self, x: str, a: str, b: str) -> None:
        line = self._lines.get(x)
        if line is None:
            return
        if a in line.users or b in line.users:
            raise Refusal(ALREADY_BOUND)
        if len(line.pairs) >= self._pairs_per_x:
            raise Refusal(INSUFFICIENT)

    # --- state

    def _pairs(self, x: str) -> dict[str, Binding]:
        line = self._lines.get(x)
        return line.pairs if line else {}

    def bindings_of(self, x: str) -> Iterable[Binding]:
        """Return the live pairs on ``x``, oldest first."""
        return self._pairs(x).values()

    def attach(self, binding: Binding) -> None:
        """Index a new pair."""
        line = self._lines.get(binding.x)
        if line is None:
            line = self._lines[binding.x] = _Line()
        line.users[binding.a] = line.users[binding.b] = binding
        line.pairs[binding.subscription_id] = binding

    def detach(self, binding: Binding) -> None:
        """Free both numbers on their X."""
        line = self._lines[binding.x]
        del line.users[binding.a], line.users[binding.b], line.pairs[binding.subscription_id]
        if not line.pairs:
            del self._lines[binding.x]

    def swap(self, old: Binding, new: Binding) -> None:
        """Put a modified pair where it was."""
        line = self._lines[old.x]
        del line.users[old.a], line.users[old.b]
        line.users[new.a] = line.users[new.b] = new
        line.pairs[new.subscription_id] = new

    def call(self, dial: Dial) -> Connection:
        """Connect a party of a pair on X to the other one, who sees X."""
        caller, x = dial.caller, dial.x
        line = self._lines.get(x)
        binding = line.users.get(caller) if line else None
        if binding is None:
            return Connection.refused(NO_BINDING)
        if dial.from_landline:
            return Connection.refused(LANDLINE_CALLER, binding)
        if binding.call_direction == (B_TO_A if caller == binding.a else A_TO_B):
            return Connection.refused(DIRECTION_BARRED, binding)
        return Connection.over(binding, binding.b if caller == binding.a else binding.a, x)


def _parties(fields: Mapping[str, Any]) -> tuple[str, str]:
    a, b = check.party(fields, "callerNum"), check.party(fields, "calleeNum")
    if a is None:
        raise check.bad("callerNum")
    if b is None or a == b:
        raise check.bad("calleeNum")
    return a, b


def _expiry(now_ms: int, duration: int) -> int | None:
    return now_ms + duration * 1000 if duration else None


def _number(value: str | None) -> int:
    """Read a paging parameter; whatever is no plain number counts as out of range."""
    return int(value) if value is not None and value.isascii() and value.isdigit() and len(value) < 10 else -1  # noqa: PLR2004

"""The admin port: the operator's console of the platform, and the controls a test needs. Loopback only.

Every refusal is ``{"detail": "..."}``. Paged lists answer ``next``: the ``after`` of the next page, or
``null`` at the end.
"""

from __future__ import annotations

from itertools import islice
from typing import Annotated, Any, Final

import orjson
from aiohttp import web
from pydantic import Field, StringConstraints, TypeAdapter, ValidationError, model_validator

from broker.emulator.admin_http import Input, explain, paging, plain_errors, read, refuse, reply
from broker.emulator.binding import Binding
from broker.emulator.core import Core, KindFixedError, OwnedElsewhereError
from broker.emulator.faults import Fault, FaultKind, Faults, When
from broker.emulator.fields import is_voice_file
from broker.emulator.ledger import callee_record
from broker.emulator.mode import INTERFACES, Op
from broker.emulator.registry import App, AppConfig, ModeName
from broker.emulator.settings import EmulatorSettings
from broker.emulator.times import rfc3339
from broker.emulator.wire import Wire

_BODY_CAP: Final = 256 * 1024 * 1024  # a pool of a million numbers is one request
_TONES_MAX: Final = 1_000
_MAX_ADVANCE_S: Final = 10 * 366 * 86_400

Number = Annotated[str, StringConstraints(min_length=4, max_length=31)]
AreaCode = Annotated[str, StringConstraints(pattern=r"^(0\d{2,3})?$")]

Address = Annotated[str, StringConstraints(max_length=2_048, pattern=r"^https?://[^\s]+$")] | None


class _AppIn(Input):
    secret: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    mode: Annotated[ModeName, Field(strict=False)]
    rate: Annotated[float, Field(ge=0)] | None = None
    burst: Annotated[float, Field(ge=1)] | None = None
    extension_digits: Annotated[int, Field(ge=1, le=4)] | None = None
    events_url: Address = None
    callin_url: Address = None
    cdr_url: Address = None
    sms_url: Address = None
    sms_control_url: Address = None
    status_url: Address = None
    push_wsse: bool = False


class _NumberIn(Input):
    number: Number
    area_code: AreaCode = ""


class _FaultIn(Input):
    interface: str
    kind: Annotated[FaultKind, Field(strict=False)]
    code: Annotated[str, StringConstraints(min_length=1, max_length=32)] | None = None
    http: Annotated[int, Field(ge=200, le=599)] | None = None
    ms: Annotated[int, Field(ge=0, le=3_600_000)] | None = None
    when: Annotated[When, Field(strict=False)] = When.AFTER
    share: Annotated[float, Field(ge=0, le=1)] = 1.0
    count: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _has_what_its_kind_needs(self) -> _FaultIn:
        if self.interface not in {"*", *INTERFACES}:
            raise ValueError(f"interface must be one of * {' '.join(INTERFACES)}")
        if self.kind is FaultKind.CODE and self.code is None and self.http is None:
            raise ValueError("kind code needs code, http or both")
        if self.kind in {FaultKind.DELAY, FaultKind.LATE_COMMIT} and self.ms is None:
            raise ValueError(f"kind {self.kind} needs ms")
        return self


class _ClockIn(Input):
    advance_s: Annotated[float, Field(gt=0, le=_MAX_ADVANCE_S)]


_ADDRESSES: Final = ("events_url", "callin_url", "cdr_url", "sms_url", "sms_control_url", "status_url")
_NUMBERS_IN: Final = TypeAdapter(list[_NumberIn])


class Admin:
    """Handlers of the admin port over one emulator, but for those of calls."""

    def __init__(self, settings: EmulatorSettings, core: Core, faults: Faults, wire: Wire) -> None:
        self._settings = settings
        self._core = core
        self._faults = faults
        self._wire = wire

    def application(self) -> web.Application:
        """Return the routes."""
        app = web.Application(middlewares=[plain_errors], client_max_size=_BODY_CAP)
        app.add_routes(
            [
                web.put("/emulator/apps/{app_key}", self.put_app),
                web.put("/emulator/apps/{app_key}/numbers", self.put_numbers),
                web.get("/emulator/apps/{app_key}/tones", self.list_tones),
                web.put("/emulator/apps/{app_key}/tones/{name}", self.add_tone),
                web.delete("/emulator/apps/{app_key}/tones/{name}", self.remove_tone),
                web.get("/emulator/bindings", self.bindings),
                web.get("/emulator/ledger", self.ledger),
                web.post("/emulator/faults", self.add_fault),
                web.get("/emulator/faults", self.list_faults),
                web.delete("/emulator/faults", self.clear_faults),
                web.delete("/emulator/faults/{id}", self.remove_fault),
                web.post("/emulator/clock", self.advance),
                web.get("/emulator/health", self.health),
            ]
        )
        return app

    async def put_app(self, request: web.Request) -> web.Response:
        """Create or change an application; ``rate`` null or 0 is without flow control, absent is the setting's."""
        given = await read(request, _AppIn)
        chosen = given.model_fields_set
        app_key = request.match_info["app_key"]
        rate = given.rate if "rate" in chosen else self._settings.default_rate
        burst = given.burst if given.burst is not None else self._settings.default_burst
        addresses = {name: getattr(given, name) for name in _ADDRESSES}
        config = AppConfig(
            app_key, given.secret, given.mode, rate or None, burst, given.extension_digits,
            push_wsse=given.push_wsse, **addresses,
        )  # fmt: skip
        try:
            self._core.put_app(config)
        except KindFixedError:
            raise refuse(409, "an app that has numbers keeps its mode and its extension digits") from None
        shown = {"app_key": app_key, "mode": config.mode, "rate": config.rate, "burst": config.burst}
        return reply({**shown, "extension_digits": config.extension_digits, "push_wsse": config.push_wsse, **addresses})

    async def put_numbers(self, request: web.Request) -> web.Response:
        """Replace the numbers of an application; a number left out loses its bindings."""
        app = self._app(request)
        try:
            given = _NUMBERS_IN.validate_json(await request.read())
        except ValidationError as error:
            raise refuse(422, explain(error)) from None
        numbers = {item.number: item.area_code for item in given}
        if len(numbers) != len(given):
            raise refuse(422, "a number is listed twice")
        try:
            self._core.put_numbers(app, numbers.items())
        except OwnedElsewhereError as error:
            raise refuse(409, f"item {error.position} belongs to another app") from None
        return reply({"numbers": len(numbers)})

    async def list_tones(self, request: web.Request) -> web.Response:
        """List the voice files that are approved for an application."""
        return reply({"items": sorted(self._app(request).tones | set(self._settings.known_tones))})

    async def add_tone(self, request: web.Request) -> web.Response:
        """Approve a voice file; the file itself is not wanted."""
        app, name = self._app(request), request.match_info["name"]
        if not is_voice_file(name):
            raise refuse(422, "a voice file's name is up to 128 of A-Z a-z 0-9 - _ . @")
        if name not in app.tones:
            if len(app.tones) >= _TONES_MAX:
                raise refuse(409, f"an app has at most {_TONES_MAX} voice files")
            self._core.put_tones(app, app.tones | {name})
        return reply({"name": name})

    async def remove_tone(self, request: web.Request) -> web.Response:
        """Take a voice file's approval away; bindings that have it keep it."""
        app, name = self._app(request), request.match_info["name"]
        if name not in app.tones:
            raise refuse(404, "this app has no such voice file")
        self._core.put_tones(app, app.tones - {name})
        return web.Response(status=204)

    async def bindings(self, request: web.Request) -> web.Response:
        """List live bindings in order of creation; ``after`` is the cursor of the page before."""
        after, limit = paging(request)
        self._core.expire(self._core.clock.now_ms())
        x, app_key = request.query.get("x"), request.query.get("app_key")
        if x is not None:
            owner = self._core.registry.owners.get(x)
            mode = self._core.modes.get(owner.config.mode) if owner else None
            on_x = sorted(mode.bindings_of(x), key=lambda b: b.serial) if mode else []
            found = (b for b in on_x if b.serial > after)
        else:
            found = (b for b in self._core.book.after(after))
        page = list(islice((b for b in found if app_key in {None, b.app_key}), limit + 1))
        more = len(page) > limit
        return reply({"items": [_shown(b) for b in page[:limit]], "next": page[limit - 1].serial if more else None})

    async def ledger(self, request: web.Request) -> web.Response:
        """List ledger rows by number; ``after`` is the ``seq`` of the last row already read."""
        after, limit = paging(request)
        self._core.expire(self._core.clock.now_ms())
        rows, cursor = self._core.journal.read(after, limit)
        body = b'{"items":[' + b",".join(rows) + b'],"next":' + orjson.dumps(cursor) + b"}"
        return web.Response(body=body, content_type="application/json")

    async def add_fault(self, request: web.Request) -> web.Response:
        """Put a fault in force."""
        given = await read(request, _FaultIn)
        fault = Fault(
            id=0,
            interface=None if given.interface == "*" else Op(given.interface),
            kind=given.kind,
            code=given.code,
            http=given.http,
            ms=given.ms or 0,
            when=given.when,
            share=given.share,
            count=given.count,
        )
        return reply({"id": self._faults.add(fault)}, status=201)

    async def list_faults(self, request: web.Request) -> web.Response:
        """List the faults in force and how often each has hit."""
        del request
        return reply({"items": [_shown_fault(fault) for fault in self._faults.rules.values()]})

    async def clear_faults(self, request: web.Request) -> web.Response:
        """Take all faults away."""
        del request
        self._faults.rules.clear()
        return web.Response(status=204)

    async def remove_fault(self, request: web.Request) -> web.Response:
        """Take one fault away."""
        text = request.match_info["id"]
        if not text.isdecimal() or not self._faults.remove(int(text)):
            raise refuse(404, "there is no fault with this id")
        return web.Response(status=204)

    async def advance(self, request: web.Request) -> web.Response:
        """Move the emulator's clock forward."""
        given = await read(request, _ClockIn)
        return reply({"now": rfc3339(self._core.advance(round(given.advance_s * 1000)))})

    async def health(self, request: web.Request) -> web.Response:
        """Say what the emulator holds, and what it has answered so far in this process."""
        del request
        core = self._core
        return reply(
            {
                "status": "ok",
                "now": rfc3339(core.clock.now_ms()),
                "apps": len(core.registry.apps),
                "numbers": len(core.registry.owners),
                "bindings": len(core.book.by_id),
                "ledger": core.journal.next_seq - 1,
                "faults": len(self._faults.rules),
                "answers": dict(self._wire.answers),
            }
        )

    def _app(self, request: web.Request) -> App:
        app = self._core.registry.apps.get(request.match_info["app_key"])
        if app is None:
            raise refuse(404, "there is no app with this key; PUT /emulator/apps/{app_key} creates it")
        return app


def _shown(binding: Binding) -> dict[str, Any]:
    return {
        "subscription_id": binding.subscription_id,
        "mode": binding.mode,
        "x": binding.x,
        "y": binding.y,
        "extension": binding.extension,
        "a": binding.a,
        "b": binding.b,
        "expires_at": None if binding.expires_ms is None else rfc3339(binding.expires_ms),
        "user_data": binding.user_data,
        "app_key": binding.app_key,
        "call_direction": binding.call_direction,
        "max_duration": binding.max_duration,
        "extras": binding.extras,
        "callee": callee_record(binding.callee),
    }


def _shown_fault(fault: Fault) -> dict[str, Any]:
    return {
        "id": fault.id,
        "interface": fault.interface or "*",
        "kind": fault.kind,
        "code": fault.code,
        "http": fault.http,
        "ms": fault.ms,
        "when": fault.when,
        "share": fault.share,
        "count": fault.count,
        "hits": fault.hits,
    }

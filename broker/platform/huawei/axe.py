"""AXE: others dial X and an extension and reach A; A dials X and reaches who called last (contract 4)."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote

import orjson

from broker.domain.options import CallOptions
from broker.platform.huawei.app import HuaweiApp
from broker.platform.huawei.codes import Operation
from broker.platform.huawei.reading import Fields, read_count, read_text
from broker.platform.huawei.writing import changed, filled, flag, given, one_binding
from broker.platform.protocol import Answer, BindLine, ModifyLine, Permit, PlatformLine, Verdict

PATH: Final = "/rest/caas/extendnumber/v1.0"
LONGEST_S: Final = 2_592_000

#: Lifetimes always go in minutes: they honour every ``ttl_s`` that hours would round, 720 hours fit, and a modification
#: that changes one of the two lifetimes cannot turn the other one's minutes into hours.
_MINUTES: Final = "1"
_MINUTE_S: Final = 60
_HOUR_S: Final = 3600
#: How long who called last is remembered when nobody says: the contract's samples have a day.
_CALLBACK_S: Final = 86_400
_UNASKED: Final[Fields] = {"recordFlag": "false"}


class Inexpressible(ValueError):
    """A modification has no words for this; a line that is bound anew can have it."""


class HuaweiAxe(HuaweiApp):
    """Implements ``Platform`` for an application of mode AXE. A lifetime is in whole minutes, up to ``LONGEST_S``."""

    async def bind(self, request: BindLine, *, permit: Permit, timeout_s: float) -> Answer:
        """Create the binding on X and extension (contract 4.1). ``bindings[0]`` has both as the answer echoes them."""
        body = bind_body(request)
        reading = await self._ask(Operation.BIND, lambda: self._writer.post(PATH, body), permit, timeout_s)
        return reading.made(read_line(reading.fields, x=request.x, extension=request.extension))

    async def modify(self, request: ModifyLine, *, permit: Permit, timeout_s: float) -> Answer:
        """Change that one binding, but for its A (contract 4.3); ``BAD_REQUEST``, unsent, what it cannot express."""
        try:
            body = modify_body(request)
        except Inexpressible as why:
            return Answer(Verdict.BAD_REQUEST, detail=str(why))
        reading = await self._ask(Operation.MODIFY, lambda: self._writer.put(PATH, body), permit, timeout_s)
        return reading.answer()

    async def unbind(self, subscription_id: str, *, permit: Permit, timeout_s: float) -> Answer:
        """End that one binding (contract 4.2)."""
        query = one_binding(subscription_id)
        reading = await self._ask(Operation.UNBIND, lambda: self._writer.delete(PATH, query), permit, timeout_s)
        return reading.answer()

    async def query(
        self,
        *,
        x: str,
        a: str = "",
        b: str = "",
        extension: str = "",
        page: int = 1,
        permit: Permit,
        timeout_s: float,
    ) -> Answer:
        """Show the binding on ``x`` and ``extension`` (contract 4.4), whoever its A is."""
        del a, b, page
        place = (
            f"virtualNum={quote(filled('x', x), safe='')}&extendNum={quote(filled('extension', extension), safe='')}"
        )
        return await self._show(place, permit, timeout_s, x=x, extension=extension)

    async def lookup(self, subscription_id: str, *, permit: Permit, timeout_s: float) -> Answer:
        """Show the one binding with this id (contract 4.4)."""
        return await self._show(one_binding(subscription_id), permit, timeout_s)

    async def _show(self, query: str, permit: Permit, timeout_s: float, *, x: str = "", extension: str = "") -> Answer:
        reading = await self._ask(Operation.QUERY, lambda: self._writer.get(PATH, query), permit, timeout_s)
        return reading.made(read_line(reading.fields, x=x, extension=extension))


def bind_body(request: BindLine) -> bytes:
    """Return the body of contract 4.1, with X, extension and both lifetimes always."""
    if request.callback and request.options.callback_tone is not None:
        raise ValueError("a callback is a number or a tone")
    body: dict[str, Any] = {
        "virtualNum": filled("x", request.x),
        "extendNum": filled("extension", request.extension),
        "bindNum": request.a,
        **_lifetimes(request.ttl_s, request.options),
        **_call_fields(request.options),
    }
    body |= given(
        {
            "recordHintTone": request.options.hint_tone,
            "callbackTone": request.options.callback_tone,
            "callbackNum": request.callback or None,
            "userData": request.token or None,
        }
    )
    return orjson.dumps(body)


def modify_body(request: ModifyLine) -> bytes:
    """Return the body of contract 4.3.

    Its texts cannot be empty. So a callback can be replaced but not taken away, and a hint tone is dropped, where it
    plays for nobody, by not being mentioned. A lifetime of callbacks that changes alone is taken as it is: it must not
    be longer than the binding's, which is not known here.
    """
    if request.a is not None:
        raise ValueError("the bound A cannot be changed")
    wanted = request.was if request.options is None else request.options
    body = given(
        {
            "subscriptionId": filled("subscription_id", request.subscription_id),
            "userData": request.token or None,
            **_changed_callback(request.callback, request.was, wanted),
            **_changed_hint_tone(request.was, wanted),
        }
    )
    body |= changed(_call_fields(request.was), _call_fields(wanted), _UNASKED)
    if request.ttl_s is not None:
        body |= _lifetimes(request.ttl_s, wanted)
    elif wanted.callback_ttl_s != request.was.callback_ttl_s:
        body |= {"timeUnit": _MINUTES, "callbackExpiredTime": _callback_minutes(LONGEST_S, wanted)}
    return orjson.dumps(body)


def _call_fields(options: CallOptions) -> dict[str, Any]:
    """Return the flat fields that bind and modification share."""
    shown = {"displayNumMode": "1" if options.display == "caller" else "0"}
    return shown if options.recording is None else {**shown, "recordFlag": flag(options.recording)}


def _changed_callback(number: str | None, was: CallOptions, wanted: CallOptions) -> dict[str, str | None]:
    """Return the one that A reaches from now on; at the platform, either takes the other's place."""
    tone = wanted.callback_tone
    if number and tone is not None:
        raise ValueError("a callback is a number or a tone")
    if number:
        return {"callbackNum": number}
    if tone is None and (number == "" or was.callback_tone is not None):
        raise Inexpressible("a callback cannot be taken away, only replaced")
    return {"callbackTone": tone if tone != was.callback_tone or number == "" else None}


def _changed_hint_tone(was: CallOptions, wanted: CallOptions) -> dict[str, str | None]:
    if wanted.hint_tone is None and was.hint_tone is not None and wanted.recording:
        raise Inexpressible("the hint tone of recorded calls cannot be taken away, only replaced")
    return {"recordHintTone": wanted.hint_tone if wanted.hint_tone != was.hint_tone else None}


def _lifetimes(ttl_s: int, options: CallOptions) -> dict[str, Any]:
    """Return the binding's lifetime and the shorter one of who called last."""
    if ttl_s % _MINUTE_S or not 0 <= ttl_s <= LONGEST_S:
        raise ValueError(f"ttl_s must be 0 (no expiry) or whole minutes up to {LONGEST_S}")
    return {
        "timeUnit": _MINUTES,
        "bindExpiredTime": ttl_s // _MINUTE_S,
        "callbackExpiredTime": _callback_minutes(ttl_s or LONGEST_S, options),
    }


def _callback_minutes(longest_s: int, options: CallOptions) -> int:
    """Return for how long a caller is remembered, rounded up; never 0, of which nobody says what it means."""
    asked_s = _CALLBACK_S if options.callback_ttl_s is None else options.callback_ttl_s
    return max(-(-min(asked_s, longest_s) // _MINUTE_S), 1)


def read_line(fields: Fields, *, x: str = "", extension: str = "") -> PlatformLine | None:
    """Return a bind's or a query's answer; ``None`` without a ``subscriptionId``.

    ``x`` and ``extension`` stand in for what is not echoed. After a modification a query still reports the lifetime
    that was given at the bind (contract 4.4).
    """
    subscription_id = read_text(fields, "subscriptionId").strip()
    if not subscription_id:
        return None
    unit_s = _MINUTE_S if read_text(fields, "timeUnit").strip() == _MINUTES else _HOUR_S
    return PlatformLine(
        subscription_id=subscription_id,
        x=read_text(fields, "virtualNum") or x,
        a=read_text(fields, "bindNum"),
        token=read_text(fields, "userData"),
        ttl_s=(read_count(fields, "bindExpiredTime") or 0) * unit_s,
        extension=read_text(fields, "extendNum") or extension,
    )

"""AX: anybody who dials X reaches A; A who dials X reaches the callee set beforehand (contract 3)."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote

import orjson

from broker.domain.options import CallOptions
from broker.platform.huawei.app import HuaweiApp
from broker.platform.huawei.codes import Operation
from broker.platform.huawei.reading import Fields, read_direction, read_list, read_text
from broker.platform.huawei.writing import (
    CALL_FIELDS_UNASKED,
    DIRECTION,
    call_fields,
    changed,
    changed_tones,
    filled,
    given,
    one_binding,
    tones,
)
from broker.platform.protocol import Answer, BindLine, ModifyLine, Permit, PlatformLine

PATH: Final = "/rest/provision/caas/privatenumber/v1.0"
CALLEE_PATH: Final = "/rest/caas/privatenumber/calleenumber/v1.0"
LONGEST_CALLEE_S: Final = 259_200

_UNASKED: Final[Fields] = {**CALL_FIELDS_UNASKED, "recordHintTone": ""}


class HuaweiAx(HuaweiApp):
    """Implements ``Platform`` for an application of mode AX, whose bindings the platform gives no lifetime."""

    async def bind(self, request: BindLine, *, permit: Permit, timeout_s: float) -> Answer:
        """Create the binding (contract 3.1); ``ttl_s`` is not the platform's matter."""
        body = bind_body(request)
        reading = await self._ask(Operation.BIND, lambda: self._writer.post(PATH, body), permit, timeout_s)
        return reading.made(read_line(reading.fields, x=request.x))

    async def modify(self, request: ModifyLine, *, permit: Permit, timeout_s: float) -> Answer:
        """Change that one binding, its A too (contract 3.3); a lifetime is not the platform's matter."""
        body = modify_body(request)
        reading = await self._ask(Operation.MODIFY, lambda: self._writer.put(PATH, body), permit, timeout_s)
        return reading.answer()

    async def unbind(self, subscription_id: str, *, permit: Permit, timeout_s: float) -> Answer:
        """End that one binding (contract 3.2)."""
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
        """List the binding on ``x``, whoever its A is, or without ``x`` all of ``a``'s (contract 3.4).

        The platform takes one criterion only, and shows at most the five bindings that an A can have.
        """
        del b, extension, page
        criterion = "privateNum=" + quote(x, safe="") if x else "origNum=" + quote(filled("a", a), safe="")
        return await self._list(criterion, permit, timeout_s, x=x)

    async def lookup(self, subscription_id: str, *, permit: Permit, timeout_s: float) -> Answer:
        """List the one binding with this id (contract 3.4)."""
        return await self._list(one_binding(subscription_id), permit, timeout_s)

    async def set_callee(
        self, subscription_id: str, *, callee: str, ttl_s: int, token: str, permit: Permit, timeout_s: float
    ) -> Answer:
        """Set whom A reaches who dials X (contract 3.5)."""
        body = callee_body(subscription_id, callee, ttl_s, token)
        reading = await self._ask(Operation.CALLEE, lambda: self._writer.put(CALLEE_PATH, body), permit, timeout_s)
        return reading.answer()

    async def _list(self, query: str, permit: Permit, timeout_s: float, *, x: str = "") -> Answer:
        reading = await self._ask(Operation.QUERY, lambda: self._writer.get(PATH, query), permit, timeout_s)
        return reading.listed(read_list(reading.fields.get("privateNumList"), lambda one: read_line(one, x=x)))


def bind_body(request: BindLine) -> bytes:
    """Return the body of contract 3.1, with X and ``calleeNumDisplay`` always."""
    body: dict[str, Any] = {
        "origNum": request.a,
        "privateNum": filled("x", request.x),
        "callDirection": DIRECTION[request.direction],
        **_call_fields(request.options),
        **tones(request.options),
    }
    if request.token:
        body["userData"] = request.token
    return orjson.dumps(body)


def modify_body(request: ModifyLine) -> bytes:
    """Return the body of contract 3.3."""
    body = given(
        {
            "subscriptionId": filled("subscription_id", request.subscription_id),
            "origNum": request.a,
            "callDirection": None if request.direction is None else DIRECTION[request.direction],
            "userData": request.token or None,
        }
    )
    if request.options is not None:
        body |= changed(_call_fields(request.was), _call_fields(request.options), _UNASKED)
        body |= changed_tones(request.was, request.options)
    return orjson.dumps(body)


def callee_body(subscription_id: str, callee: str, ttl_s: int, token: str) -> bytes:
    """Return the body of contract 3.5."""
    if not 1 <= ttl_s <= LONGEST_CALLEE_S:
        raise ValueError(f"ttl_s of a callee must be 1 to {LONGEST_CALLEE_S}")
    body: dict[str, Any] = {
        "subscriptionId": filled("subscription_id", subscription_id),
        "calleeNum": filled("callee", callee),
        "duration": ttl_s,
    }
    if token:
        body["userData"] = token
    return orjson.dumps(body)


def _call_fields(options: CallOptions) -> dict[str, Any]:
    """Return the flat fields that bind and modification share."""
    fields = {**call_fields(options), "calleeNumDisplay": "1" if options.display == "caller" else "0"}
    return fields if options.hint_tone is None else {**fields, "recordHintTone": options.hint_tone}


def read_line(fields: Fields, *, x: str = "") -> PlatformLine | None:
    """Return a bind's answer or an element of a query's list; ``None`` without a ``subscriptionId``.

    ``x`` stands in for an X that is not echoed. Everything else is as reported.
    """
    subscription_id = read_text(fields, "subscriptionId").strip()
    if not subscription_id:
        return None
    return PlatformLine(
        subscription_id=subscription_id,
        x=read_text(fields, "privateNum") or x,
        a=read_text(fields, "origNum"),
        token=read_text(fields, "userData"),
        direction=read_direction(fields),
    )

"""AXB: A and B both dial X and reach each other (contract 2)."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote

import orjson

from broker.domain.options import modifiable
from broker.platform.huawei.app import HuaweiApp
from broker.platform.huawei.codes import Operation
from broker.platform.huawei.reading import Fields, read_count, read_direction, read_list, read_text
from broker.platform.huawei.writing import (
    CALL_FIELDS_UNASKED,
    DIRECTION,
    call_fields,
    changed,
    changed_tones,
    filled,
    given,
    lifetime,
    one_binding,
    tones,
)
from broker.platform.protocol import Answer, BindLine, ModifyLine, Permit, PlatformLine

PATH: Final = "/rest/caas/relationnumber/partners/v1.0"
PAGE_SIZE: Final = 100  # the contract's maximum; anything above silently becomes 50


class HuaweiAxb(HuaweiApp):
    """Implements ``Platform`` for an application of mode AXB."""

    async def bind(self, request: BindLine, *, permit: Permit, timeout_s: float) -> Answer:
        """Create the binding (contract 2.1). ``bindings[0]`` holds what the answer echoes, X always."""
        body = bind_body(request)
        reading = await self._ask(Operation.BIND, lambda: self._writer.post(PATH, body), permit, timeout_s)
        return reading.made(read_line(reading.fields, x=request.x))

    async def modify(self, request: ModifyLine, *, permit: Permit, timeout_s: float) -> Answer:
        """Change that one binding (contract 2.3)."""
        body = modify_body(request)
        reading = await self._ask(Operation.MODIFY, lambda: self._writer.put(PATH, body), permit, timeout_s)
        return reading.answer()

    async def unbind(self, subscription_id: str, *, permit: Permit, timeout_s: float) -> Answer:
        """End that one binding (contract 2.2)."""
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
        """List bindings on ``x`` (contract 2.4); a success with nothing in it is ``NOT_FOUND``."""
        del extension
        return await self._list(bindings_on(x, a, b, page), permit, timeout_s, x=x, page=page)

    async def lookup(self, subscription_id: str, *, permit: Permit, timeout_s: float) -> Answer:
        """List the one binding with this id (contract 2.4)."""
        return await self._list(one_binding(subscription_id), permit, timeout_s)

    async def _list(self, query: str, permit: Permit, timeout_s: float, *, x: str = "", page: int = 1) -> Answer:
        reading = await self._ask(Operation.QUERY, lambda: self._writer.get(PATH, query), permit, timeout_s)
        lines = read_list(reading.fields.get("relationNumList"), lambda one: read_line(one, x=x))
        total = read_count(reading.fields, "totalCount") or 0
        return reading.listed(lines, total, earlier=(page - 1) * PAGE_SIZE)


def bind_body(request: BindLine) -> bytes:
    """Return the body of contract 2.1."""
    body: dict[str, Any] = {
        "relationNum": request.x,
        "callerNum": request.a,
        "calleeNum": request.b,
        "callDirection": DIRECTION[request.direction],
        "duration": lifetime(request.ttl_s),
        **call_fields(request.options),
        **tones(request.options),
    }
    if request.options.hint_tone is not None:
        body["recordHintTone"] = request.options.hint_tone
    if request.token:
        body["userData"] = request.token
    return orjson.dumps(body)


def modify_body(request: ModifyLine) -> bytes:
    """Return the body of contract 2.3, which knows no hint tone: another one is refused."""
    if request.options is not None and not modifiable(request.was, request.options):
        raise ValueError("the hint tone of a bound line cannot be changed")
    body = given(
        {
            "subscriptionId": filled("subscription_id", request.subscription_id),
            "callerNum": request.a,
            "calleeNum": request.b,
            "callDirection": None if request.direction is None else DIRECTION[request.direction],
            "duration": None if request.ttl_s is None else lifetime(request.ttl_s),
            "userData": request.token or None,
        }
    )
    if request.options is not None:
        body |= changed(call_fields(request.was), call_fields(request.options), CALL_FIELDS_UNASKED)
        body |= changed_tones(request.was, request.options)
    return orjson.dumps(body)


def bindings_on(x: str, a: str, b: str, page: int) -> str:
    """Return the query string of contract 2.4; ``quote`` turns the ``+`` of a number into ``%2B``."""
    if not x or page < 1:
        raise ValueError("a query needs x and a page from 1")
    text = "relationNum=" + quote(x, safe="")
    if a:
        text += "&callerNum=" + quote(a, safe="")
    if b:
        text += "&calleeNum=" + quote(b, safe="")
    return f"{text}&pageIndex={page}&pageSize={PAGE_SIZE}"


def read_line(fields: Fields, *, x: str = "") -> PlatformLine | None:
    """Return a bind's answer or an element of a query's list; ``None`` without a ``subscriptionId``.

    ``x`` stands in for an X that is not echoed. Everything else is as reported.
    """
    subscription_id = read_text(fields, "subscriptionId").strip()
    if not subscription_id:
        return None
    return PlatformLine(
        subscription_id=subscription_id,
        x=read_text(fields, "relationNum") or x,
        a=read_text(fields, "callerNum"),
        b=read_text(fields, "calleeNum"),
        token=read_text(fields, "userData"),
        ttl_s=read_count(fields, "duration") or 0,
        direction=read_direction(fields),
    )

"""AXYB: A is behind X, and each B gets a Y; the platform picks both (contract 5.2). There is no modification."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final
from urllib.parse import quote

import orjson

from broker.platform.huawei.app import HuaweiApp, Reading
from broker.platform.huawei.codes import Operation
from broker.platform.huawei.reading import Fields, read_count, read_direction, read_list, read_text
from broker.platform.huawei.writing import DIRECTION, filled, flag, given, lifetime, one_binding
from broker.platform.protocol import Answer, BindLine, BindPeer, Permit, PlatformLine

PATH: Final = "/rest/omp/xyrelationnumber/v1.0"


class HuaweiAxyb(HuaweiApp):
    """Implements ``Platform`` for an application of mode AXYB; each of its requests names the application twice."""

    async def bind(self, request: BindLine, *, permit: Permit, timeout_s: float) -> Answer:
        """Give A an X; ``bindings[0].x`` is the one that the platform picked."""
        reading = await self._create(Operation.BIND, bind_body(request), permit, timeout_s)
        return reading.made(read_ax(reading.fields), lacking="subscriptionId or a relationNumber")

    async def bind_peer(self, request: BindPeer, *, permit: Permit, timeout_s: float) -> Answer:
        """Give B a Y under an AX; ``bindings[0].y`` is the one that the platform picked, and there is no X."""
        reading = await self._create(Operation.BIND_PEER, peer_body(request), permit, timeout_s)
        return reading.made(read_peer(reading.fields, request), lacking="relationNumber")

    async def unbind(self, subscription_id: str, *, permit: Permit, timeout_s: float) -> Answer:
        """End that one AX and all its relations."""
        return await self._end(Operation.UNBIND, one_binding(subscription_id), permit, timeout_s)

    async def unbind_peer(self, subscription_id: str, *, y: str, permit: Permit, timeout_s: float) -> Answer:
        """End the one relation of that AX whose Y this is."""
        return await self._end(Operation.UNBIND_PEER, one_peer(subscription_id, y), permit, timeout_s)

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
        """List the AX of ``x`` and its relations, as many as the platform shows; the X is the only criterion."""
        del a, b, extension, page
        return await self._list("relationNum=" + quote(filled("x", x), safe=""), permit, timeout_s, x=x)

    async def lookup(self, subscription_id: str, *, permit: Permit, timeout_s: float) -> Answer:
        """List the one AX with this id and its relations, as many as the platform shows."""
        return await self._list(one_binding(subscription_id), permit, timeout_s)

    async def _create(self, operation: Operation, body: bytes, permit: Permit, timeout_s: float) -> Reading:
        path = f"{PATH}?{self._key}"
        return await self._ask(operation, lambda: self._writer.post(path, body), permit, timeout_s)

    async def _end(self, operation: Operation, query: str, permit: Permit, timeout_s: float) -> Answer:
        keyed = f"{self._key}&{query}"
        reading = await self._ask(operation, lambda: self._writer.delete(PATH, keyed), permit, timeout_s)
        return reading.answer()

    async def _list(self, query: str, permit: Permit, timeout_s: float, *, x: str = "") -> Answer:
        keyed = f"{self._key}&{query}"
        reading = await self._ask(Operation.QUERY, lambda: self._writer.get(PATH, keyed), permit, timeout_s)
        return reading.listed(read_lines(reading.fields, x=x))

    @property
    def _key(self) -> str:
        return "app_key=" + quote(self._app_key, safe="")


def bind_body(request: BindLine) -> bytes:
    """Return the body that asks for an X: a city, no number. The tone of X is what B hears."""
    peer_ttl_s = request.options.peer_ttl_s
    body = {
        "origNum": request.a,
        "areaCode": filled("area_code", request.area_code),
        "callDirection": DIRECTION[request.direction],
        "duration": lifetime(request.ttl_s),
    }
    return orjson.dumps(
        body
        | given(
            {
                "areaMatchMode": "1" if request.relaxed else None,
                "ybDuration": peer_ttl_s and min(peer_ttl_s, request.ttl_s or peer_ttl_s),
                "recordFlag": flag(request.options.recording),
                "recordHintTone": request.options.hint_tone,
                "preVoiceX": request.options.callee_tone,
                "userData": request.token or None,
            }
        )
    )


def peer_body(request: BindPeer) -> bytes:
    """Return the body that asks for a Y; its lifetime wins over the one given with the AX, so it is always said."""
    body: dict[str, Any] = {
        "subscriptionId": filled("subscription_id", request.subscription_id),
        "origNum": request.b,
        "ybDuration": lifetime(request.ttl_s),
    }
    return orjson.dumps(
        body
        | given(
            {
                "areaCode": request.area_code or None,
                "areaMatchMode": "1" if request.area_code and request.relaxed else None,
                "preVoiceY": request.tone,
                "userData": request.token or None,
            }
        )
    )


def one_peer(subscription_id: str, y: str) -> str:
    """Return the query string that names one relation: without its Y it would name the AX with all of them."""
    return f"{one_binding(subscription_id)}&yNum={quote(filled('y', y), safe='')}"


def read_ax(fields: Fields) -> PlatformLine | None:
    """Return the answer to an AX's bind; ``None`` without its id or the X that the platform picked."""
    subscription_id, x = read_text(fields, "subscriptionId").strip(), read_text(fields, "relationNumber").strip()
    return PlatformLine(subscription_id, x, token=read_text(fields, "userData")) if subscription_id and x else None


def read_peer(fields: Fields, request: BindPeer) -> PlatformLine | None:
    """Return the answer to a peer's bind, without X; ``None`` without the Y that the platform picked."""
    subscription_id, y = read_text(fields, "subscriptionId").strip(), read_text(fields, "relationNumber").strip()
    token = read_text(fields, "userData")
    return PlatformLine(subscription_id or request.subscription_id, "", b=request.b, token=token, y=y) if y else None


def read_lines(fields: Fields, *, x: str = "") -> tuple[PlatformLine, ...] | None:
    """Return a query's list, the AX itself and its relations, or ``None`` when it is missing or cannot be read.

    The platform may show the AX only in its relations, which say everything of it but its token.
    """
    elements: Any = fields.get("xyRelationNumList")
    lines = read_list(elements, lambda one: read_line(one, x=x))
    if not lines or not all(line.y for line in lines):
        return lines
    ax = replace(lines[0], b="", y="", token="", ttl_s=read_count(elements[0], "duration") or 0)
    return (ax, *lines)


def read_line(fields: Fields, *, x: str = "") -> PlatformLine | None:
    """Return an element of a query's list: the AX itself, or with ``y`` a relation; ``None`` without a ``bindId``."""
    subscription_id = read_text(fields, "bindId").strip()
    if not subscription_id:
        return None
    y = read_text(fields, "numY")
    return PlatformLine(
        subscription_id=subscription_id,
        x=read_text(fields, "numX") or x,
        a=read_text(fields, "numA"),
        b=read_text(fields, "numB"),
        token=read_text(fields, "userData"),
        ttl_s=read_count(fields, "ybDuration" if y else "duration") or 0,
        direction=read_direction(fields),
        y=y,
    )

"""The AXB interfaces' bodies and query strings (contract 2), and lenient reading of answers (contract 1.5).

Reading never raises: a field that is missing, mistyped or unprintable is absent, and what an absent field means is
decided here towards doubt, so that no answer is taken for more than it says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

import orjson

from broker.domain.options import CallOptions, modifiable
from broker.platform.protocol import BindLine, Direction, ModifyLine, PlatformLine

AXB_PATH: Final = "/rest/caas/relationnumber/partners/v1.0"
PAGE_SIZE: Final = 100  # the contract's maximum; anything above silently becomes 50

_DIRECTION: Final[Mapping[Direction, int]] = {Direction.BOTH: 0, Direction.A_TO_B: 1, Direction.B_TO_A: 2}
_DIRECTION_READ: Final[Mapping[int, Direction]] = {number: direction for direction, number in _DIRECTION.items()}
#: What stands for "as if it had never been given" in a modification, which knows no other way to say it (contract 2.1).
_NEUTRAL: Final[Mapping[str, Any]] = {
    "recordFlag": "false",
    "maxDuration": 0,
    "lastMinVoice": "",
    "privateSms": "true",
}
_LONG_DIGITS: Final = re.compile(r"\d{7,}")
_CODE: Final = re.compile(r"[0-9A-Za-z_.-]{1,32}")
_DETAIL_CHARS: Final = 200
_PADDING: Final = b"\xef\xbb\xbf\x00 \t\r\n"

Fields = Mapping[str, Any]


def bind_body(request: BindLine) -> bytes:
    """Return the body of contract 2.1. Raises ``ValueError`` for a negative lifetime; it must never become 0."""
    if request.ttl_s < 0:
        raise ValueError("ttl_s must be 0 (no expiry) or positive")
    body: dict[str, Any] = {
        "relationNum": request.x,
        "callerNum": request.a,
        "calleeNum": request.b,
        "callDirection": _DIRECTION[request.direction],
        "duration": request.ttl_s,
        **_call_fields(request.options),
    }
    if request.options.hint_tone is not None:
        body["recordHintTone"] = request.options.hint_tone
    caller_tone, callee_tone = request.options.caller_tone, request.options.callee_tone
    if tones := _given({"callerHintTone": caller_tone, "calleeHintTone": callee_tone}):
        body["preVoice"] = tones
    if request.token:
        body["userData"] = request.token
    return orjson.dumps(body)


def modify_body(request: ModifyLine) -> bytes:
    """Return the body of contract 2.3. Raises ``ValueError`` for a blank id, a negative lifetime, another hint tone."""
    if request.options is not None and not modifiable(request.was, request.options):
        raise ValueError("the hint tone of a bound line cannot be changed")
    if not request.subscription_id.strip():
        raise ValueError("subscription_id must not be blank")
    if request.ttl_s is not None and request.ttl_s < 0:
        raise ValueError("ttl_s must be 0 (no expiry) or positive")
    body = _given(
        {
            "subscriptionId": request.subscription_id,
            "callerNum": request.a,
            "calleeNum": request.b,
            "callDirection": None if request.direction is None else _DIRECTION[request.direction],
            "duration": request.ttl_s,
            "userData": request.token or None,
        }
    )
    if request.options is not None:
        body |= _changed_options(request.was, request.options)
    return orjson.dumps(body)


def _changed_options(was: CallOptions, wanted: CallOptions) -> dict[str, Any]:
    old, new = _call_fields(was), _call_fields(wanted)
    full = {name: new.get(name, _NEUTRAL[name]) for name in old | new}
    changed = {name: value for name, value in full.items() if old.get(name) != value}
    if (was.caller_tone, was.callee_tone) != (wanted.caller_tone, wanted.callee_tone):
        # Both: nobody says whether a preVoice with one tone keeps the other. An empty one is the ordinary ring-back.
        changed["preVoice"] = {"callerHintTone": wanted.caller_tone or "", "calleeHintTone": wanted.callee_tone or ""}
    return changed


def _call_fields(options: CallOptions) -> dict[str, Any]:
    """Return the flat fields that bind and modify share; flags go as text, as the documentation types them."""
    return _given(
        {
            "recordFlag": _flag(options.recording),
            "maxDuration": options.max_call_minutes,
            "lastMinVoice": options.last_minute_tone,
            "privateSms": _flag(options.sms),
        }
    )


def _given(fields: Fields) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _flag(on: bool | None) -> str | None:  # noqa: FBT001 - the value itself
    return None if on is None else str(on).lower()


def one_binding(subscription_id: str) -> str:
    """Return the query string that names one binding, for unbind and lookup (contract 2.2, 2.4).

    An unbind knows no other form: ``relationNum`` alone would end every binding on that X. Raises ``ValueError`` for a
    blank id, which would leave the request without any.
    """
    if not subscription_id.strip():
        raise ValueError("subscription_id must not be blank")
    return "subscriptionId=" + quote(subscription_id, safe="")


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


def read_object(body: bytes) -> Fields | None:
    """Return the JSON object in ``body``, or ``None``: a BOM, padding around it and broken UTF-8 in it are forgiven."""
    found = _parse(body)
    if found is None:
        trimmed = body.strip(_PADDING)
        found = _parse(trimmed[max(trimmed.find(b"{"), 0) : trimmed.rfind(b"}") + 1].decode(errors="replace"))
    return found if isinstance(found, dict) else None


def _parse(text: bytes | str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None


def read_code(fields: Fields) -> str | None:
    """Return ``resultcode`` as text, or ``None`` when it is no code."""
    code = read_text(fields, "resultcode").strip()
    return code if _CODE.fullmatch(code) else None


def read_detail(fields: Fields) -> str:
    """Return ``resultdesc`` fit for records, or ``""``."""
    said = fields.get("resultdesc")
    return scrub(said) if isinstance(said, str) else ""


def read_text(fields: Fields, name: str) -> str:
    """Return a printable text; numbers become text, anything else is ``""``."""
    value = fields.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and value.isprintable() else ""


def read_count(fields: Fields, name: str) -> int | None:
    """Return a count that may come as a number or as text, or ``None``."""
    text = read_text(fields, name).strip()
    return int(text) if len(text) < 19 and text.isascii() and text.isdigit() else None  # noqa: PLR2004 - fits bigint


def read_direction(fields: Fields) -> Direction | None:
    """Return who may call whom, or ``None`` when it is not said."""
    count = read_count(fields, "callDirection")
    return None if count is None else _DIRECTION_READ.get(count)


def read_binding(fields: Fields, *, x: str = "") -> PlatformLine | None:
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


def read_bindings(fields: Fields, *, x: str = "") -> tuple[PlatformLine, ...] | None:
    """Return a query's list, or ``None`` when it is missing or any element is no binding.

    Skipping a bad element would make a binding look absent, and absence is what a query is asked to prove.
    """
    elements = fields.get("relationNumList")
    if not isinstance(elements, list):
        return None
    found = [read_binding(element, x=x) if isinstance(element, dict) else None for element in elements]
    kept = tuple(binding for binding in found if binding is not None)
    return kept if len(kept) == len(found) else None


def scrub(text: str) -> str:
    """Return ``text`` fit for records: one line, bounded, and no run of digits that could be a phone number."""
    line = text[: _DETAIL_CHARS * 4]
    if not line.isprintable():
        line = "".join(char if char.isprintable() else " " for char in line)
    return _LONG_DIGITS.sub("…", line)[:_DETAIL_CHARS]

"""What the bodies and query strings of several modes have in common.

Every function raises ``ValueError`` for arguments that no request can be made of.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from broker.domain.options import CallOptions
from broker.platform.huawei.reading import Fields
from broker.platform.protocol import Direction

#: ``callDirection``.
DIRECTION: Final[Mapping[Direction, int]] = {Direction.BOTH: 0, Direction.A_TO_B: 1, Direction.B_TO_A: 2}


def one_binding(subscription_id: str) -> str:
    """Return the query string that names one binding, for unbind and lookup.

    An unbind by X alone would end every binding on it, so no unbind knows another form. A blank id, which would leave
    the request without any, is refused.
    """
    return "subscriptionId=" + quote(filled("subscription_id", subscription_id), safe="")


def filled(name: str, value: str) -> str:
    """Return ``value``, which must not be blank."""
    if not value.strip():
        raise ValueError(f"{name} must not be blank")
    return value


def lifetime(ttl_s: int) -> int:
    """Return ``ttl_s``, which must not be negative; it must never become 0, which means for ever."""
    if ttl_s < 0:
        raise ValueError("ttl_s must be 0 (no expiry) or positive")
    return ttl_s


def given(fields: Fields) -> dict[str, Any]:
    """Return the fields that were asked for."""
    return {name: value for name, value in fields.items() if value is not None}


def flag(on: bool | None) -> str | None:  # noqa: FBT001 - the value itself
    """Return a flag as text, as the documentation types them."""
    return None if on is None else str(on).lower()


def call_fields(options: CallOptions) -> dict[str, Any]:
    """Return the flat fields that the binds and modifications of AXB and AX share."""
    return given(
        {
            "recordFlag": flag(options.recording),
            "maxDuration": options.max_call_minutes,
            "lastMinVoice": options.last_minute_tone,
            "privateSms": flag(options.sms),
        }
    )


#: What stands for "as if it had never been given" in a modification, which knows no other way to say it (contract 2.1).
CALL_FIELDS_UNASKED: Final[Fields] = {"recordFlag": "false", "maxDuration": 0, "lastMinVoice": "", "privateSms": "true"}


def tones(options: CallOptions) -> dict[str, Any]:
    """Return ``preVoice`` as a bind has it (AXB, AX), if any tone is asked for."""
    heard = given({"callerHintTone": options.caller_tone, "calleeHintTone": options.callee_tone})
    return {"preVoice": heard} if heard else {}


def changed_tones(was: CallOptions, wanted: CallOptions) -> dict[str, Any]:
    """Return ``preVoice`` as a modification has it, if a tone differs. An empty one is the ordinary ring-back."""
    if (was.caller_tone, was.callee_tone) == (wanted.caller_tone, wanted.callee_tone):
        return {}
    # Both: nobody says whether a preVoice with one tone keeps the other.
    return {"preVoice": {"callerHintTone": wanted.caller_tone or "", "calleeHintTone": wanted.callee_tone or ""}}


def changed(was: Fields, wanted: Fields, unasked: Fields) -> dict[str, Any]:
    """Return the fields that differ; one that is not asked for any more gets its value of ``unasked``."""
    full = {**{name: unasked[name] for name in was if name not in wanted}, **wanted}
    return {name: value for name, value in full.items() if was.get(name) != value}

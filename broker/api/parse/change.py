"""Changes of bindings that live."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field

from broker.api.parse.fields import (
    Callback,
    CallMinutes,
    Direction,
    Display,
    Extension,
    OnConflict,
    PeerTtl,
    Phone,
    ToneName,
    Tones,
    Ttl,
    UserData,
    check_metadata,
)
from broker.errors import FieldError, Invalid


class RecordingPatch(BaseModel):
    """What changes of the recording; absent = unchanged, null = none."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    enabled: bool | None = None
    hint_tone: ToneName | None = None


class ChangeRequest(BaseModel):
    """Body of ``PATCH /v1/bindings/{id}``, a merge patch: absent = unchanged, null = as if never asked for."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, arbitrary_types_allowed=True)

    a: Phone | None = None
    b: Phone | None = None
    ttl_s: Ttl | None = None
    direction: Direction | None = None
    display: Display | None = None
    recording: RecordingPatch | None = None
    max_call_minutes: CallMinutes | None = None
    last_minute_tone: ToneName | None = None
    sms: bool | None = None
    tones: Tones | None = None
    callback: Callback | None = None
    extension: Extension | None = None
    peer_ttl_s: PeerTtl | None = None
    user_data: UserData | None = None
    metadata: dict[str, Any] | None = None
    on_conflict: OnConflict = "refuse"


class HandOverRequest(BaseModel):
    """Body of ``POST /v1/bindings:hand-over``."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, arbitrary_types_allowed=True)

    from_: Annotated[Phone, Field(alias="from", description="Who hands over.")]
    to: Annotated[Phone, Field(description="Who takes over.")]
    dry_run: Annotated[bool, Field(description="Only tell what would be done.")] = False
    on_conflict: OnConflict = "refuse"


def merged_metadata(stored: str | None, patch: dict[str, Any] | None) -> str | None:
    """Return metadata after a merge patch (RFC 7396), as JSON; what is stored already comes back as it is.

    Raises:
        Invalid: the result may not be stored.
    """
    if patch is None:
        return None
    before = orjson.loads(stored) if stored is not None else None
    merged = _merged(before or {}, patch)
    if orjson.dumps(merged, option=orjson.OPT_SORT_KEYS) == orjson.dumps(before, option=orjson.OPT_SORT_KEYS):
        return stored
    try:
        check_metadata(merged)
    except ValueError as error:
        raise Invalid("Some fields are wrong; see errors.", errors=(FieldError("/metadata", str(error)),)) from None
    return orjson.dumps(merged).decode()


def _merged(target: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    result = dict(target)
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, dict):
            inner = result.get(name)
            result[name] = _merged(inner if isinstance(inner, dict) else {}, value)
        else:
            result[name] = value
    return result

"""The fields that requests are made of."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from broker.domain.modes import LONGEST_TTL_S
from broker.domain.phone import FORM, PhoneNumber

#: Mistakes that have a code of their own are pydantic's errors of that type.
CODES = frozenset({"ttl_out_of_range", "callback_exclusive"})

_METADATA_BYTES = 2048
_LONGEST_CALL_MIN = 1440
_SHORTEST_TTL_S = 60
#: What the platform's clocks of a callback record, of a Y and of a temporary callee can be set to.
_LONGEST_CALLBACK_S = 2_592_000
_LONGEST_PEER_S = 7_776_000
_LONGEST_CALLEE_S = 259_200


def _phone(value: object) -> PhoneNumber:
    if not isinstance(value, str):
        raise ValueError(FORM)  # noqa: TRY004 - pydantic reports ValueError as a field error
    return PhoneNumber(value)


def _ttl(value: int) -> int:
    return _within(value, LONGEST_TTL_S, zero="no expiry")


def _callback_ttl(value: int) -> int:
    return _within(value, _LONGEST_CALLBACK_S)


def _callee_ttl(value: int) -> int:
    return _within(value, _LONGEST_CALLEE_S, shortest_s=1)


def _peer_ttl(value: int) -> int:
    return _within(value, _LONGEST_PEER_S, zero="as long as the binding")


def _within(value: int, longest_s: int, *, shortest_s: int = _SHORTEST_TTL_S, zero: str | None = None) -> int:
    if (value == 0 and zero is not None) or shortest_s <= value <= longest_s:
        return value
    words = f"must be {f'0 ({zero}) or ' if zero else ''}{shortest_s} to {longest_s} seconds"
    raise PydanticCustomError("ttl_out_of_range", "{words}", {"words": words})


def _ttl_schema(longest_s: int, *, shortest_s: int = _SHORTEST_TTL_S, zero: bool = True) -> WithJsonSchema:
    limits = {"minimum": shortest_s, "maximum": longest_s}
    return WithJsonSchema({"type": "integer"} | ({"anyOf": [{"const": 0}, limits]} if zero else limits))


def storable(value: str) -> str:
    """Refuse a text that PostgreSQL cannot hold."""
    if "\x00" in value:
        raise ValueError("must not contain the character U+0000")
    return value


def check_metadata(value: dict[str, Any]) -> dict[str, Any]:
    """Refuse metadata that is too large, or that PostgreSQL's jsonb cannot hold."""
    try:
        packed = orjson.dumps(value)
    except TypeError:
        raise ValueError("must hold only JSON values, with integers of at most 64 bits") from None
    if len(packed) > _METADATA_BYTES:
        raise ValueError(f"must be at most {_METADATA_BYTES} bytes as JSON")
    _check_storable(value)
    return value


def _check_storable(value: object) -> None:
    """Refuse what PostgreSQL's jsonb cannot hold, or what has become infinite by being too large."""
    match value:
        case str():
            storable(value)
        case float() if not math.isfinite(value):
            raise ValueError("must not contain numbers beyond the range of a double")
        case dict():
            for name, item in value.items():
                storable(name)
                _check_storable(item)
        case list():
            for item in value:
                _check_storable(item)
        case _:
            pass


Phone = Annotated[
    PhoneNumber,
    PlainValidator(_phone),
    WithJsonSchema({"type": "string", "pattern": r"^[+][1-9][0-9]{6,14}$", "examples": ["+8613900000001"]}),
]
Ttl = Annotated[int, AfterValidator(_ttl), _ttl_schema(LONGEST_TTL_S)]
CallbackTtl = Annotated[int, AfterValidator(_callback_ttl), _ttl_schema(_LONGEST_CALLBACK_S, zero=False)]
PeerTtl = Annotated[int, AfterValidator(_peer_ttl), _ttl_schema(_LONGEST_PEER_S)]
CalleeTtl = Annotated[int, AfterValidator(_callee_ttl), _ttl_schema(_LONGEST_CALLEE_S, shortest_s=1, zero=False)]
PoolName = Annotated[str, Field(min_length=1, max_length=63)]
AreaCode = Annotated[str, Field(min_length=3, max_length=4)]
AreaMatch = Annotated[
    Literal["strict", "relaxed"],
    Field(description="relaxed: where the city has no X to give, one of its province, then any. Goes with an area."),
]
Direction = Literal["both", "a_to_b", "b_to_a"]
Display = Annotated[
    Literal["x", "caller"],
    Field(description="What the party who is called sees: X, or who calls. Operators want X."),
]
Extension = Annotated[
    str,
    Field(
        pattern=r"^[0-9]{1,8}$",
        description="The one wanted, with all of the app's digits; never all zeros.",
        examples=["0042"],
    ),
]
OrderId = Annotated[str, Field(min_length=1, max_length=128), AfterValidator(storable)]
GraceSeconds = Annotated[
    int,
    Field(
        ge=0,
        le=86_400,
        description="Seconds that X goes on to connect the two after the order has ended; absent: as the app says.",
    ),
]
ToneName = Annotated[
    str,
    Field(min_length=1, max_length=128, description="A voice file that the platform has approved for the app."),
    AfterValidator(storable),
]
CallMinutes = Annotated[
    int, Field(ge=0, le=_LONGEST_CALL_MIN, description="A call is cut after so many minutes; 0 = no limit.")
]
UserData = Annotated[
    str,
    Field(min_length=1, max_length=1024, description="Yours, any characters. Kept by us, never sent to the platform."),
    AfterValidator(storable),
]
OnConflict = Annotated[
    Literal["refuse", "rebind"],
    Field(description="Where this X or line cannot take the change: answer 409, or give the binding another X."),
]


class Recording(BaseModel):
    """Whether calls are recorded, and the voice file that tells so before."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    enabled: bool
    hint_tone: ToneName | None = None


class Tones(BaseModel):
    """Voice files instead of the ring-back: for A who dials X, for B who dials X."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    caller: ToneName | None = None
    callee: ToneName | None = None


def _one_callback(value: Any) -> Any:
    if isinstance(value, dict) and value.get("number") is not None and value.get("tone") is not None:
        raise PydanticCustomError("callback_exclusive", "give number or tone, not both")
    return value


class Callback(BaseModel):
    """Whom A reaches, or what A hears, who dials X when nobody has called; who has is remembered for ``ttl_s``."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, arbitrary_types_allowed=True)

    number: Phone | None = None
    tone: ToneName | None = None
    ttl_s: CallbackTtl | None = None

    _either = model_validator(mode="before")(_one_callback)

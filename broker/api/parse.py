"""Requests in: headers and bodies, with every error named by where it is."""

from __future__ import annotations

import asyncio
import json
import math
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

import orjson
from aiohttp import web
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import from_json

from broker.domain.modes import LONGEST_TTL_S
from broker.domain.phone import FORM, PhoneNumber
from broker.errors import BadRequest, FieldError, Invalid, TooLarge, TooSlow, UnsupportedMedia
from broker.log import scrubbed

#: A body that takes longer than this to arrive is not waited for.
BODY_S = 10.0
_METADATA_BYTES = 2048
_LONGEST_CALL_MIN = 1440
_SHORTEST_TTL_S = 60
_BATCH_ITEMS = 1000
_TIMEOUT = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,17})?")
_IDEMPOTENCY_KEY = re.compile(r'"[\x20-\x21\x23-\x5b\x5d-\x7e]{1,255}"|[\x21\x23-\x2b\x2d-\x5b\x5d-\x7e]{1,255}')


def _phone(value: object) -> PhoneNumber:
    if not isinstance(value, str):
        raise ValueError(FORM)  # noqa: TRY004 - pydantic reports ValueError as a field error
    return PhoneNumber(value)


def _ttl(value: int) -> int:
    if value != 0 and not _SHORTEST_TTL_S <= value <= LONGEST_TTL_S:
        raise ValueError(f"must be 0 (no expiry) or {_SHORTEST_TTL_S} to {LONGEST_TTL_S} seconds")
    return value


def _storable(value: str) -> str:
    if "\x00" in value:
        raise ValueError("must not contain the character U+0000")
    return value


def _metadata(value: dict[str, Any]) -> dict[str, Any]:
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
            _storable(value)
        case float() if not math.isfinite(value):
            raise ValueError("must not contain numbers beyond the range of a double")
        case dict():
            for name, item in value.items():
                _storable(name)
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
Ttl = Annotated[
    int,
    AfterValidator(_ttl),
    WithJsonSchema(
        {"type": "integer", "anyOf": [{"const": 0}, {"minimum": _SHORTEST_TTL_S, "maximum": LONGEST_TTL_S}]},
    ),
]
PoolName = Annotated[str, Field(min_length=1, max_length=63)]
AreaCode = Annotated[str, Field(min_length=3, max_length=4)]


ToneName = Annotated[
    str,
    Field(min_length=1, max_length=128, description="A voice file that the platform has approved for the app."),
    AfterValidator(_storable),
]
CallMinutes = Annotated[
    int, Field(ge=0, le=_LONGEST_CALL_MIN, description="A call is cut after so many minutes; 0 = no limit.")
]
UserData = Annotated[
    str,
    Field(min_length=1, max_length=1024, description="Yours, any characters. Kept by us, never sent to the platform."),
    AfterValidator(_storable),
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


class BindRequest(BaseModel):
    """Body of ``POST /v1/bindings``."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, arbitrary_types_allowed=True)

    a: Phone
    b: Phone
    pool: PoolName | None = None
    area_code: AreaCode | None = None
    areas: Annotated[list[AreaCode], Field(min_length=1, max_length=50)] | None = None
    ttl_s: Ttl | None = None
    direction: Literal["both", "a_to_b", "b_to_a"] = "both"
    policy: Literal["pack", "sticky", "avoid_sticky", "spread"] | None = None
    order_id: Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_storable)] | None = None
    user_data: UserData | None = None
    metadata: Annotated[dict[str, Any], AfterValidator(_metadata)] | None = None
    recording: Recording | None = None
    max_call_minutes: CallMinutes | None = None
    last_minute_tone: ToneName | None = None
    sms: bool | None = None
    tones: Tones | None = None
    share: Annotated[bool, Field(description="Whether it may share a line with other orders of its pair.")] = True
    explain: Annotated[bool, Field(description="Whether the answer has `explanation`: why this X.")] = False


_BIND = TypeAdapter(BindRequest)


@dataclass(frozen=True, slots=True)
class Asked:
    """A bind as far as it could be read: with ``errors``, the fields that they point to are None in ``request``."""

    request: BindRequest
    errors: tuple[FieldError, ...] = ()


def bind_request(body: bytes) -> Asked:
    """Read a bind, with one error for every bad field.

    Raises:
        BadRequest: the body is no JSON.
    """
    return bind_item(_json(body))


def bind_item(value: Any) -> Asked:
    """Read a bind from JSON that has been decoded."""
    try:
        return Asked(_BIND.validate_python(value))
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False, include_input=False)
    errors = tuple(FieldError(_pointer(detail["loc"]), _words(detail)) for detail in details)
    # What is good of it is still to be checked against what we know, so that all mistakes come back at once.
    bad = {detail["loc"][0] for detail in details if detail["loc"]}
    given: dict[str, Any] = value if isinstance(value, dict) else {}
    good = {name: item for name, item in given.items() if name in BindRequest.model_fields and name not in bad}
    for party in ("a", "b"):
        good[party] = PhoneNumber(good[party]) if party in good else None
    for name, model in (("recording", Recording), ("tones", Tones)):
        if good.get(name) is not None:
            good[name] = model.model_validate(good[name])
    return Asked(BindRequest.model_construct(**good), errors)


def _one_of_two(value: Any) -> Any:
    if isinstance(value, dict) and ("ids" in value) == ("order_ids" in value):
        raise ValueError("give either ids or order_ids")
    return value


class BatchRequest(BaseModel):
    """Body of ``POST /v1/bindings:batch``: each item is checked by itself."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    items: Annotated[list[Any], Field(min_length=1, max_length=_BATCH_ITEMS)]


class BatchReleaseRequest(BaseModel):
    """Body of ``POST /v1/bindings:batch-release``: ``ids`` or ``order_ids``."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    ids: Annotated[list[Any], Field(min_length=1, max_length=_BATCH_ITEMS)] | None = None
    order_ids: (
        Annotated[
            list[Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_storable)]],
            Field(min_length=1, max_length=_BATCH_ITEMS),
        ]
        | None
    ) = None

    _either = model_validator(mode="before")(_one_of_two)


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
    direction: Literal["both", "a_to_b", "b_to_a"] | None = None
    recording: RecordingPatch | None = None
    max_call_minutes: CallMinutes | None = None
    last_minute_tone: ToneName | None = None
    sms: bool | None = None
    tones: Tones | None = None
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


class ListRequest(BaseModel):
    """Filters of ``GET /v1/bindings``."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, arbitrary_types_allowed=True)

    order_id: Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_storable)] | None = None
    x: Annotated[str, Field(pattern=r"^[+][0-9]{3,30}$")] | None = None
    state: Literal["pending", "active", "releasing", "released", "failed"] | None = None
    limit: Annotated[int, Field(ge=1, le=200)] = 50
    cursor: Annotated[str, Field(min_length=1, max_length=200)] | None = None


class SearchRequest(ListRequest):
    """Body of ``POST /v1/bindings:search``: a party never stands in a URL."""

    party: Phone | None = None


M = TypeVar("M", bound=BaseModel)


def body_as(model: type[M], body: bytes) -> M:
    """Read a body of this shape.

    Raises:
        BadRequest: it is no JSON.
        Invalid: with one error for every bad field.
    """
    return checked(model, _json(body))


def checked(model: type[M], value: Any) -> M:
    """Check decoded JSON, or the parameters of a query.

    Raises:
        Invalid: with one error for every bad field.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False, include_input=False)
    errors = tuple(FieldError(_pointer(detail["loc"]), _words(detail)) for detail in details)
    raise Invalid("Some fields are wrong; see errors.", errors=errors)


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
        _metadata(merged)
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


def if_match(request: web.Request) -> frozenset[str] | None:
    """Return the entity tags of ``If-Match``; None = no condition."""
    text = ",".join(request.headers.getall("If-Match", []))
    tags = frozenset(tag.strip() for tag in text.split(",") if tag.strip())
    return None if not tags or "*" in tags else tags


def list_query(request: web.Request) -> ListRequest:
    """Read the filters of a listing from the query string; a blank before an X is its ``+``.

    Raises:
        Invalid: with one error for every bad parameter.
    """
    given: dict[str, Any] = {}
    for name in request.query:
        if len(request.query.getall(name)) > 1:
            raise Invalid(
                "A parameter is wrong; see errors.", errors=(FieldError(_pointer((name,)), "is given more than once"),)
            )
        given[name] = request.query[name]
    if "x" in given and given["x"].startswith(" "):
        given["x"] = "+" + given["x"][1:]
    if "limit" in given and given["limit"].isascii() and given["limit"].isdigit() and len(given["limit"]) <= 6:  # noqa: PLR2004 - more digits are refused as they are
        given["limit"] = int(given["limit"])
    return checked(ListRequest, given)


def canonical(body: bytes) -> bytes:
    """Return the body in one form for all spellings of the same JSON; an empty body is itself.

    Raises:
        BadRequest: the body is no JSON.
    """
    if not body:
        return b""
    return json.dumps(_json(body), sort_keys=True, separators=(",", ":")).encode()


def _json(body: bytes) -> Any:
    """Read JSON with integers of any size kept as they are, and no NaN or Infinity."""
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError:
        raise BadRequest("The body is not valid JSON.", code="malformed_json") from None


async def body_of(request: web.Request, limit: int) -> bytes:
    """Read the body, at most ``limit`` bytes.

    Raises:
        TooLarge, UnsupportedMedia: before anything is read, if the headers tell.
        TooSlow: if it takes longer than ``BODY_S`` seconds.
    """
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in {"", "identity"}:
        raise UnsupportedMedia("Compressed bodies are not accepted.", code="compressed_body")
    if request.content_length is not None and request.content_length > limit:
        raise TooLarge(f"The body may have at most {limit} bytes.")
    if not request.body_exists:
        return b""
    try:
        async with asyncio.timeout(BODY_S):
            return await _read(request, limit)
    except TimeoutError:
        raise TooSlow(f"The body did not arrive within {BODY_S:g} s.") from None


async def _read(request: web.Request, limit: int) -> bytes:
    # aiohttp's own limit is one for the whole application, so it is the largest of all routes and this one counts.
    parts: list[bytes] = []
    length = 0
    async for part in request.content.iter_any():
        length += len(part)
        if length > limit:
            raise TooLarge(f"The body may have at most {limit} bytes.")
        parts.append(part)
    return b"".join(parts)


def deadline_s(request: web.Request, *, default: float, longest: float) -> float:
    """Return how long the answer may take, from ``Request-Timeout`` (seconds).

    Raises:
        Invalid: if the header is no number from 0.1 to ``longest``.
    """
    text = request.headers.get("Request-Timeout")
    if text is None:
        return default
    if _TIMEOUT.fullmatch(text.strip()) is None or not 0.1 <= float(text) <= longest:  # noqa: PLR2004 - documented floor
        raise Invalid(
            "A header is wrong; see errors.",
            errors=(FieldError("header:Request-Timeout", f"must be seconds from 0.1 to {longest:g}"),),
        )
    return float(text)


def respond_async(request: web.Request) -> bool:
    """Tell whether the request has ``Prefer: respond-async``."""
    if "Prefer" not in request.headers:
        return False
    wishes = ",".join(request.headers.getall("Prefer")).split(",")
    return any(wish.split(";")[0].strip().lower() == "respond-async" for wish in wishes)


def idempotency_key(request: web.Request) -> str | None:
    """Return the key; its quoted and bare forms are the same.

    Raises:
        Invalid: if it is empty, over 255 characters or not printable ASCII.
    """
    text = request.headers.get("Idempotency-Key")
    if text is None:
        return None
    text = text.strip()
    if _IDEMPOTENCY_KEY.fullmatch(text) is None:
        raise Invalid(
            "A header is wrong; see errors.",
            errors=(FieldError("header:Idempotency-Key", "must be 1 to 255 printable ASCII characters"),),
        )
    return text[1:-1] if text.startswith('"') else text


def _pointer(loc: tuple[int | str, ...]) -> str:
    """Return the JSON Pointer; a phone number where a field's name should be is not repeated."""
    return "".join("/" + scrubbed(str(part)).replace("~", "~0").replace("/", "~1") for part in loc)


def _words(detail: Any) -> str:
    message: str = detail["msg"]
    if detail["type"] == "extra_forbidden":
        return "is not a field of this request"
    return message.removeprefix("Value error, ")

"""Bodies as JSON, and what is wrong with them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, from_json

from broker.api.parse.fields import CODES
from broker.errors import BadRequest, FieldError, Invalid
from broker.log import scrubbed

M = TypeVar("M", bound=BaseModel)


def decoded(body: bytes) -> Any:
    """Read JSON with integers of any size kept as they are, and no NaN or Infinity.

    Raises:
        BadRequest: it is no JSON.
    """
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError:
        raise BadRequest("The body is not valid JSON.", code="malformed_json") from None


def canonical(body: bytes) -> bytes:
    """Return the body in one form for all spellings of the same JSON; an empty body is itself.

    Raises:
        BadRequest: the body is no JSON.
    """
    if not body:
        return b""
    return json.dumps(decoded(body), sort_keys=True, separators=(",", ":")).encode()


def body_as(model: type[M], body: bytes) -> M:
    """Read a body of this shape.

    Raises:
        BadRequest: it is no JSON.
        Invalid: with one error for every bad field.
    """
    return checked(model, decoded(body))


def checked(model: type[M], value: Any) -> M:
    """Check decoded JSON, or the parameters of a query.

    Raises:
        Invalid: with one error for every bad field.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        details = details_of(error)
    raise Invalid("Some fields are wrong; see errors.", errors=mistakes(details))


def details_of(error: ValidationError) -> list[ErrorDetails]:
    """Return pydantic's errors without anything of what was given."""
    return error.errors(include_url=False, include_context=False, include_input=False)


def mistakes(details: Iterable[ErrorDetails]) -> tuple[FieldError, ...]:
    """Return pydantic's errors as ours."""
    return tuple(
        FieldError(pointer(detail["loc"]), _words(detail), detail["type"] if detail["type"] in CODES else None)
        for detail in details
    )


def pointer(loc: tuple[int | str, ...]) -> str:
    """Return the JSON Pointer; a phone number where a field's name should be is not repeated."""
    return "".join("/" + scrubbed(str(part)).replace("~", "~0").replace("/", "~1") for part in loc)


def _words(detail: Mapping[str, Any]) -> str:
    message: str = detail["msg"]
    if detail["type"] == "extra_forbidden":
        return "is not a field of this request"
    return message.removeprefix("Value error, ")

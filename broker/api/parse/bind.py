"""Binds: the fields of every mode; which of them an app's mode knows is told by its row of the table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from broker.api.parse.body import decoded, details_of, mistakes
from broker.api.parse.fields import (
    AreaCode,
    AreaMatch,
    Callback,
    CallMinutes,
    Direction,
    Display,
    Extension,
    OrderId,
    PeerTtl,
    Phone,
    PoolName,
    Recording,
    ToneName,
    Tones,
    Ttl,
    UserData,
    check_metadata,
)
from broker.domain.phone import PhoneNumber
from broker.errors import FieldError


class BindRequest(BaseModel):
    """Body of ``POST /v1/bindings``."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, arbitrary_types_allowed=True)

    a: Phone
    b: Phone | None = None
    pool: PoolName | None = None
    area_code: AreaCode | None = None
    areas: Annotated[list[AreaCode], Field(min_length=1, max_length=50)] | None = None
    area_match: AreaMatch | None = None
    routing: (
        Annotated[Literal["pair", "one"], Field(description="What is behind X: two parties, or one that all reach.")]
        | None
    ) = None
    extension: Extension | None = None
    ttl_s: Ttl | None = None
    direction: Direction = "both"
    display: Display | None = None
    policy: Literal["pack", "sticky", "avoid_sticky", "spread"] | None = None
    order_id: OrderId | None = None
    user_data: UserData | None = None
    metadata: Annotated[dict[str, Any], AfterValidator(check_metadata)] | None = None
    recording: Recording | None = None
    max_call_minutes: CallMinutes | None = None
    last_minute_tone: ToneName | None = None
    sms: bool | None = None
    tones: Tones | None = None
    callback: Callback | None = None
    peer_ttl_s: (
        Annotated[PeerTtl, Field(description="Lifetime of a Y; 0 = as long as the binding, which ends it in any case.")]
        | None
    ) = None
    share: Annotated[bool, Field(description="Whether it may share a line with other orders of its pair.")] = True
    explain: Annotated[bool, Field(description="Whether the answer has `explanation`: why this X.")] = False

    def given(self) -> frozenset[str]:
        """Return the fields that were sent, and not as null."""
        return frozenset(name for name in self.model_fields_set if getattr(self, name) is not None)


_BIND = TypeAdapter(BindRequest)


@dataclass(frozen=True, slots=True)
class Asked:
    """A bind as far as it could be read: with ``errors``, the fields that they point to are None in ``request``."""

    request: BindRequest
    errors: tuple[FieldError, ...] = ()

    @property
    def bad(self) -> frozenset[str]:
        """The fields that could not be read."""
        if any(not error.pointer for error in self.errors):  # the whole is no object
            return frozenset(BindRequest.model_fields)
        return frozenset(error.pointer.split("/")[1] for error in self.errors)


def bind_request(body: bytes) -> Asked:
    """Read a bind, with one error for every bad field.

    Raises:
        BadRequest: the body is no JSON.
    """
    return bind_item(decoded(body))


def bind_item(value: Any) -> Asked:
    """Read a bind from JSON that has been decoded."""
    try:
        return Asked(_BIND.validate_python(value))
    except ValidationError as error:
        details = details_of(error)
    # What is good of it is still to be checked against what we know, so that all mistakes come back at once.
    bad = {detail["loc"][0] for detail in details if detail["loc"]}
    given: dict[str, Any] = value if isinstance(value, dict) else {}
    good = {name: item for name, item in given.items() if name in BindRequest.model_fields and name not in bad}
    for party in ("a", "b"):
        good[party] = PhoneNumber(good[party]) if good.get(party) is not None else None
    for name, model in (("recording", Recording), ("tones", Tones), ("callback", Callback)):
        if good.get(name) is not None:
            good[name] = model.model_validate(good[name])
    return Asked(BindRequest.model_construct(**good), mistakes(details))

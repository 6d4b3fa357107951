"""Many at once: each item is checked by itself."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from broker.api.parse.fields import GraceSeconds, OrderId

_BATCH_ITEMS = 1000


class BatchRequest(BaseModel):
    """Body of ``POST /v1/bindings:batch``: each item is checked by itself."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    items: Annotated[list[Any], Field(min_length=1, max_length=_BATCH_ITEMS)]


def _one_of_two(value: Any) -> Any:
    if isinstance(value, dict) and ("ids" in value) == ("order_ids" in value):
        raise ValueError("give either ids or order_ids")
    return value


class BatchReleaseRequest(BaseModel):
    """Body of ``POST /v1/bindings:batch-release``: ``ids`` or ``order_ids``."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    ids: Annotated[list[Any], Field(min_length=1, max_length=_BATCH_ITEMS)] | None = None
    order_ids: (
        Annotated[
            list[OrderId],
            Field(min_length=1, max_length=_BATCH_ITEMS),
        ]
        | None
    ) = None
    grace_s: GraceSeconds | None = None

    _either = model_validator(mode="before")(_one_of_two)

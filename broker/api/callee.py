"""``PUT /v1/bindings/{id}/callee``: whom A reaches who dials X, for a while."""

from __future__ import annotations

from typing import Annotated

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from broker.api import parse
from broker.api.bindings import read
from broker.api.checks import PARTIES, party_errors
from broker.api.context import Heard, Reply, Services
from broker.api.reply import pack
from broker.api.shape import etag, shape
from broker.domain.change import Callee, LineChange
from broker.domain.modes import MODES
from broker.domain.party import Kind
from broker.errors import Conflict, FieldError, Invalid
from broker.flows.change import Plan, Stale, Wait

#: What the platform does without being told (contract 3.5).
_DEFAULT_S = 60
_AGAIN = 5
_CALLEES = PARTIES | {Kind.SERVICE}


class CalleeRequest(BaseModel):
    """Body of ``PUT /v1/bindings/{id}/callee``."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, arbitrary_types_allowed=True)

    callee: parse.Phone
    ttl_s: Annotated[parse.CalleeTtl, Field(description="How long A can reach the callee.")] = _DEFAULT_S
    user_data: parse.UserData | None = None


async def put(request: web.Request, services: Services, heard: Heard) -> Reply:
    """Set or overwrite the callee: 200 once it is so, 202 while the platform has not confirmed."""
    asked = parse.body_as(CalleeRequest, heard.body)
    until = Wait(heard.deadline, wait=not heard.respond_async)
    for _ in range(_AGAIN):
        binding = await read(request, services, heard)
        mode = MODES[services.registry().apps[binding.app_id].mode]
        if not mode.has_callee or binding.b is not None:
            raise Conflict("A binding of this mode has no temporary callee.", code="not_modifiable")
        if binding.state not in {"pending", "active"}:
            raise Conflict("The binding has ended, or is about to.", code="binding_ended")
        if asked.callee == binding.a:
            same = FieldError("/callee", "must differ from a", "callee_is_a")
            raise Invalid("Some fields are wrong; see errors.", errors=(same,))
        if errors := tuple(party_errors({"/callee": asked.callee}, services.registry(), allowed=_CALLEES)):
            raise Invalid("Some fields are wrong; see errors.", errors=errors)
        callee = Callee(asked.callee, asked.ttl_s, asked.user_data)
        try:
            binding = await services.changer.change(binding, Plan(line=LineChange(callee=callee)), until)
        except Stale:
            continue
        body = shape(binding, services.registry())
        return Reply(202 if body["pending_change"] is not None else 200, pack(body), etag=etag(binding))
    raise Conflict("Others keep changing the binding.", code="change_in_progress", retry_after_s=1)

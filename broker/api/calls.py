"""Calls while they last, and what was recorded of them: asked of the platform, for one who waits."""

from __future__ import annotations

import re
from typing import Annotated

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from broker.api import parse
from broker.api.context import Heard, Reply, Services
from broker.api.reply import pack
from broker.domain.ids import parse_public_id
from broker.errors import FieldError, Gone, Invalid, NotFound
from broker.flows.projection import call_id
from broker.store import told

#: As call events have it (contract 6.4).
_SESSION_ID = re.compile(r"[!-~]{1,256}")
_NAME = r"^[!-~]+$"


class RecordingRequest(BaseModel):
    """Which recording: that of a call detail record, or as one names it."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    cdr_id: Annotated[str, Field(pattern=r"^cdr_[0-9a-v]{32}$", description="`id` of the record.")] | None = None
    file_name: (
        Annotated[str, Field(min_length=1, max_length=128, pattern=_NAME, description="`recordObjectName`.")] | None
    ) = None
    record_domain: (
        Annotated[str, Field(min_length=1, max_length=128, pattern=_NAME, description="`recordDomain`.")] | None
    ) = None


async def stop(request: web.Request, services: Services, heard: Heard) -> Reply:
    """``POST /v1/calls/{session_id}:stop``."""
    session_id = request.match_info["session_id"]
    if _SESSION_ID.fullmatch(session_id) is None:
        wrong = FieldError("path:session_id", "must be 1 to 256 printable ASCII characters without blanks")
        raise Invalid("The path is wrong; see errors.", errors=(wrong,))
    # What its events say spares a question, and the app's limit.
    if await told.call_over(services.reach.db, heard.key.app.id, call_id(services.vault, heard.key.app.id, session_id)):
        raise NotFound("There is no such call, or it is over.", code="call_over")
    await services.asking.stop_call(heard.key, session_id, deadline=heard.deadline)
    return Reply(200, pack({"stopped": True}))


async def recording(request: web.Request, services: Services, heard: Heard) -> Reply:
    """``GET /v1/recordings``."""
    return await _located(_named(request), services, heard)


async def locate(_request: web.Request, services: Services, heard: Heard) -> Reply:
    """``POST /v1/recordings:locate``: the same, with nothing of it in a URL."""
    return await _located(parse.body_as(RecordingRequest, heard.body), services, heard)


def _named(request: web.Request) -> RecordingRequest:
    given = {name: value.replace(" ", "+") for name, value in parse.query_of(request).items()}
    return parse.checked(RecordingRequest, given)


async def _located(asked: RecordingRequest, services: Services, heard: Heard) -> Reply:
    name, domain = await _named_by_record(asked, services, heard) if asked.cdr_id is not None else _names(asked)
    url = await services.asking.recording(heard.key, name, domain, deadline=heard.deadline)
    # Whoever has the address has the recording: it is kept nowhere, not even for repeats.
    return Reply(200, pack({"url": url, "file_name": name, "record_domain": domain}), keep=False)


def _names(asked: RecordingRequest) -> tuple[str, str]:
    if asked.file_name is not None and asked.record_domain is not None:
        return asked.file_name, asked.record_domain
    given = {"file_name": asked.file_name, "record_domain": asked.record_domain}
    missing = tuple(FieldError(f"/{name}", "is needed where cdr_id is not given") for name in given if not given[name])
    raise Invalid("Some fields are wrong; see errors.", errors=missing)


async def _named_by_record(asked: RecordingRequest, services: Services, heard: Heard) -> tuple[str, str]:
    if asked.file_name is not None or asked.record_domain is not None:
        wrong = FieldError("/cdr_id", "stands in the place of file_name and record_domain: give one or the others")
        raise Invalid("Some fields are wrong; see errors.", errors=(wrong,))
    key = parse_public_id(asked.cdr_id or "", "cdr_")
    found = await told.recording(services.reach.db, heard.key.app.id, key[1]) if key is not None else None
    if found is None:
        raise NotFound("There is no such call detail record.")
    name, domain = found
    if name is None or domain is None:
        raise Gone("This call was not recorded.")
    return name, domain

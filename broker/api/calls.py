"""Calls while they last, and what was recorded of them: asked of the platform, for one who waits."""

from __future__ import annotations

import re
from typing import Annotated

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from broker.api import parse
from broker.api.context import Heard, Reply, Services
from broker.api.reply import pack
from broker.errors import FieldError, Invalid

#: As call events have it (contract 6.4).
_SESSION_ID = re.compile(r"[!-~]{1,256}")
_NAME = r"^[!-~]+$"


class RecordingRequest(BaseModel):
    """Which recording: as its call detail record names it."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    file_name: Annotated[str, Field(min_length=1, max_length=128, pattern=_NAME, description="`recordObjectName`.")]
    record_domain: Annotated[str, Field(min_length=1, max_length=128, pattern=_NAME, description="`recordDomain`.")]


async def stop(request: web.Request, services: Services, heard: Heard) -> Reply:
    """``POST /v1/calls/{session_id}:stop``."""
    session_id = request.match_info["session_id"]
    if _SESSION_ID.fullmatch(session_id) is None:
        wrong = FieldError("path:session_id", "must be 1 to 256 printable ASCII characters without blanks")
        raise Invalid("The path is wrong; see errors.", errors=(wrong,))
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
    url = await services.asking.recording(heard.key, asked.file_name, asked.record_domain, deadline=heard.deadline)
    # Whoever has the address has the recording: it is kept nowhere, not even for repeats.
    return Reply(200, pack({"url": url, **asked.model_dump()}), keep=False)

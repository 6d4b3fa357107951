"""How the admin port reads and answers, whatever it is about."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import orjson
import structlog
from aiohttp import web
from pydantic import BaseModel, ConfigDict, ValidationError

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_PAGE: Final = 1_000
_PAGE_MAX: Final = 10_000


class Input(BaseModel):
    """A request's body: nothing unknown, nothing converted."""

    model_config = ConfigDict(extra="forbid", strict=True)


InputT = TypeVar("InputT", bound=Input)


@web.middleware
async def plain_errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Answer whatever goes wrong with one sentence."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.content_type == "application/json":
            raise
        return reply({"detail": error.reason}, status=error.status)
    except Exception as error:  # noqa: BLE001 - the operator gets a sentence, the log the kind
        log.error("emulator_admin_failed", error=type(error).__name__)  # noqa: TRY400 - a traceback may show numbers
        return reply({"detail": f"the emulator failed: {type(error).__name__}"}, status=500)


async def read(request: web.Request, kind: type[InputT]) -> InputT:
    """Return the body, or refuse it."""
    try:
        return kind.model_validate_json(await request.read())
    except ValidationError as error:
        raise refuse(422, explain(error)) from None


def explain(error: ValidationError) -> str:
    """Name each place and what is wrong with it, without repeating the input."""
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    return "; ".join(f"{'.'.join(map(str, p['loc'])) or 'body'}: {p['msg']}" for p in problems[:5])


def paging(request: web.Request) -> tuple[int, int]:
    """Return ``after`` and ``limit`` of a list's query string."""
    values = []
    for name, default, low, high in (("after", 0, 0, 2**62), ("limit", _PAGE, 1, _PAGE_MAX)):
        text = request.query.get(name, str(default))
        if not text.isdecimal() or not text.isascii() or not low <= int(text[:20]) <= high:
            raise refuse(422, f"{name} must be a whole number from {low} to {high}")
        values.append(int(text))
    return values[0], values[1]


def reply(content: object, status: int = 200) -> web.Response:
    """Return JSON."""
    return web.Response(body=orjson.dumps(content), status=status, content_type="application/json")


def refuse(status: int, detail: str) -> web.HTTPException:
    """Return a refusal to raise."""
    kinds = {404: web.HTTPNotFound, 409: web.HTTPConflict, 422: web.HTTPUnprocessableEntity}
    return kinds[status](text=orjson.dumps({"detail": detail}).decode(), content_type="application/json")

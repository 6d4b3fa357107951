"""Answers out."""

from __future__ import annotations

from typing import Any

import orjson
from aiohttp import web

from broker.api.context import Reply
from broker.errors import FieldError, Problem

#: Where `type` URIs point: served by us, one page for all codes.
_TYPES = "/problems#"
#: Conflicts that are over in a moment.
_PASSING = frozenset({"idempotency_in_progress", "change_in_progress"})


def pack(value: Any) -> bytes:
    """Return JSON; times as RFC 3339 in UTC with Z."""
    return orjson.dumps(value, option=orjson.OPT_UTC_Z)


def problem_reply(problem: Problem, request_id: str, *, keep: bool = True) -> Reply:
    """Return the answer of RFC 9457 for ``problem``; 429 and 5xx are never kept for repeats."""
    return Reply(
        status=problem.status,
        body=pack(problem_body(problem, request_id)),
        retry_after_s=problem.retry_after_s,
        problem=problem.code,
        keep=keep and kept(problem),
    )


def kept(problem: Problem) -> bool:
    """Tell whether repeats with the same Idempotency-Key are to get this problem again."""
    return problem.status in {409, 422} and problem.code not in _PASSING


def problem_body(problem: Problem, request_id: str) -> dict[str, Any]:
    """Return the members of RFC 9457 and ours."""
    body: dict[str, Any] = {
        "type": _TYPES + problem.code,
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
        "instance": request_id,
        "code": problem.code,
    }
    if problem.errors:
        body["errors"] = [_told(error) for error in problem.errors]
    return {**problem.extra, **body}


def _told(error: FieldError) -> dict[str, str]:
    told = {"pointer": error.pointer, "detail": error.detail}
    return told if error.code is None else told | {"code": error.code}


def headers_of(reply: Reply, request_id: str) -> dict[str, str]:
    """Return the headers of the answer that depend on what is answered."""
    headers = {"X-Request-Id": request_id}
    if reply.location is not None:
        headers["Location"] = reply.location
    if reply.etag is not None:
        headers["ETag"] = reply.etag
    if reply.next_page is not None:
        headers["Link"] = f'<{reply.next_page}>; rel="next"'
    if reply.replayed:
        headers["Idempotency-Replayed"] = "true"
    if reply.retry_after_s is not None:
        headers["Retry-After"] = str(reply.retry_after_s)
    if reply.status == 401:  # noqa: PLR2004 - RFC 9110 wants the challenge
        headers["WWW-Authenticate"] = "Bearer"
    kind = "application/problem+json" if reply.status >= 400 else "application/json"  # noqa: PLR2004
    headers["Content-Type"] = kind
    return headers


def to_http(reply: Reply, request_id: str) -> web.Response:
    """Return the HTTP response."""
    return web.Response(status=reply.status, body=reply.body, headers=headers_of(reply, request_id))

"""Requests with an ``Idempotency-Key``: carried out once, answered the same for 24 hours.

The record is made before anything else and the answer is stored before it is sent. The binding is linked to the record
in the transaction that makes it, so a repeat after a crash finds the binding instead of making another.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from aiohttp import web

from broker.api import parse
from broker.api.context import Heard, Reply, Services
from broker.api.reply import problem_reply
from broker.api.request import Request
from broker.api.shape import check_kept
from broker.clock import boottime
from broker.errors import Conflict, Invalid, Problem
from broker.store.idempotency import Finish, KeyAsk, Stored

R = TypeVar("R", bound=Request)

Handler = Callable[[web.Request, Services, Heard], Awaitable[Reply]]
#: A handler of GET may answer with a stream instead.
Reader = Callable[[web.Request, Services, Heard], Awaitable[Reply | web.StreamResponse]]

_ACCEPTED = 202
#: A twin may take over this long after the first request's deadline.
_GRACE_S = 2.0


async def once(
    request: R, services: Services, heard: Heard, handler: Callable[[R, Services, Heard], Awaitable[Reply]]
) -> Reply:
    """Run ``handler``, or answer from what an earlier request with the same key got.

    Raises:
        Conflict: a twin is at work, or what was accepted then has been withdrawn.
        Invalid: the key was used for another request.
    """
    text = parse.idempotency_key(request)
    if text is None:
        return await handler(request, services, heard)
    hashed = services.vault.request_hash
    ask = KeyAsk(
        app_id=heard.key.app.id,
        caller_id=heard.key.caller_id,
        key_hash=hashed(b"key", text.encode())[:16],
        request_hash=hashed(
            request.method.encode(),
            request.raw_path.encode(errors="surrogateescape"),  # bytes that are no UTF-8 come as surrogates
            parse.canonical(heard.body),
        ),
        busy_s=max(heard.deadline - boottime(), 0.0) + _GRACE_S,
    )
    state = await services.begin_key.submit(ask)
    if not state.same and state.token is None:
        raise Invalid("This Idempotency-Key was used for another request.", code="idempotency_key_reused")
    if state.stored is not None:
        if state.stored.status == _ACCEPTED:
            await check_kept(services, state.stored.location)
        return Reply(state.stored.status, state.stored.body, location=state.stored.location, replayed=True)
    if state.token is None:
        raise _in_progress()
    heard.key_ask, heard.key_token, heard.made = ask, state.token, state.made
    return await _carry_out(request, services, heard, handler, ask, state.token)


async def _carry_out(
    request: R,
    services: Services,
    heard: Heard,
    handler: Callable[[R, Services, Heard], Awaitable[Reply]],
    ask: KeyAsk,
    token: int,
) -> Reply:
    try:
        reply = await handler(request, services, heard)
    except Problem as problem:
        reply = problem_reply(problem, heard.request_id)
    except BaseException:
        await services.forget_key.submit((ask, token))
        raise
    if not reply.keep:
        await services.forget_key.submit((ask, token))
        return reply
    answer = Stored(reply.status, reply.location, reply.body)
    if not await services.finish_key.submit(Finish(ask, token, answer)):
        raise _in_progress()
    return reply


def _in_progress() -> Conflict:
    return Conflict(
        "A request with this Idempotency-Key is being carried out.", code="idempotency_in_progress", retry_after_s=1
    )

"""``/v1/bindings``: bind, show, release."""

from __future__ import annotations

from aiohttp import web

from broker.api import parse
from broker.api.context import Heard, Reply, Services
from broker.api.ordering import order_of
from broker.api.reply import pack
from broker.api.request import Request
from broker.api.shape import Bound, bound_before, etag, shape, told
from broker.domain.ids import parse_public_id, public_id
from broker.errors import NotFound
from broker.flows.bind import bind
from broker.flows.release import release
from broker.store.bindings import Binding, ReleaseAsk

#: States of a binding that nobody is behind any more.
OVER = frozenset({"released", "failed"})


async def create(_request: Request, services: Services, heard: Heard) -> Reply:
    """``POST /v1/bindings``."""
    if heard.made is not None:
        heard.notes["binding"] = public_id(*heard.made)
        return _bound(await bound_before(services, heard, heard.made))
    ask = heard.key_ask
    order = order_of(
        parse.bind_request(heard.body),
        services,
        heard.key,
        key_hash=ask.key_hash if ask is not None else None,
        key_token=heard.key_token,
    )
    accepted = await bind(
        order,
        services.allocator,
        services.dispatch,
        lease_s=services.limits.lease_s,
        deadline=heard.deadline,
        wait=not heard.respond_async,
    )
    heard.notes["binding"] = public_id(accepted.pool_id, accepted.binding_id)
    return _bound(await told(order, accepted, services, heard))


async def show(request: web.Request, services: Services, heard: Heard) -> Reply:
    """``GET /v1/bindings/{id}``."""
    binding = await read(request, services, heard)
    return Reply(200, pack(shape(binding, services.registry())), etag=etag(binding))


async def delete(request: web.Request, services: Services, heard: Heard) -> Reply:
    """``DELETE /v1/bindings/{id}``."""
    asked = parse.release_query(request)
    binding = await end(await read(request, services, heard), services, heard, grace_s=asked.grace_s)
    status = 200 if binding.state in OVER else 202
    return Reply(status, pack(shape(binding, services.registry())), etag=etag(binding))


async def end(binding: Binding, services: Services, heard: Heard, *, grace_s: int | None = None) -> Binding:
    """Release a binding of the caller's app and return it as it is then.

    Its line, if that has no other, outlives it by ``grace_s``; None = by as much as the app says.

    Raises:
        Conflict: the release could not begin.
    """
    row = (binding.pool_id, binding.id)

    async def read_again() -> Binding:
        return await services.show.submit(row) or binding

    grace_s = heard.key.app.release_grace_s if grace_s is None else grace_s
    ask = ReleaseAsk(binding.pool_id, binding.id, binding.app_id)
    if grace_s and binding.state == "active" and await services.release_later(ask, grace_s):
        return await read_again()
    return await release(
        binding,
        begin=services.begin_release.submit,
        read=read_again,
        dispatch=services.dispatch,
        lease_s=services.limits.lease_s,
        deadline=heard.deadline,
        wait=not heard.respond_async,
    )


async def read(request: web.Request, services: Services, heard: Heard) -> Binding:
    """Return the binding that the path names.

    Raises:
        NotFound: there is none that the caller may know of.
    """
    row = parse_public_id(request.match_info["id"])
    binding = seen(await services.show.submit(row) if row is not None else None, heard)
    heard.notes["binding"] = request.match_info["id"]
    return binding


def seen(binding: Binding | None, heard: Heard) -> Binding:
    """Return a binding that the caller may know of.

    Raises:
        NotFound: there is none, or it is another app's, which looks exactly the same.
    """
    if binding is None or binding.app_id != heard.key.app.id:
        raise NotFound("There is no such binding.", code="binding_not_found")
    return binding


def _bound(made: Bound) -> Reply:
    return Reply(made.status, pack(made.body), location=f"/v1/bindings/{made.binding_id}", etag=made.etag)

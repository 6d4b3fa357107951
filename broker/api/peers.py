"""``/v1/bindings/{id}/peers``: each B that deals with an A gets a number of its own, Y."""

from __future__ import annotations

from typing import Annotated, Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from broker.api.bindings import read
from broker.api.checks import party_errors
from broker.api.context import Heard, Reply, Services
from broker.api.parse import body_as
from broker.api.parse.fields import PeerTtl, Phone, ToneName
from broker.api.reply import pack
from broker.domain.ids import parse_public_id, public_id
from broker.domain.modes import MODES, Allocation
from broker.errors import Conflict, FieldError, Invalid, NotFound
from broker.flows.peers import Wanted
from broker.flows.tones import check_tones
from broker.store.bindings import Binding
from broker.store.peers import Peer
from broker.store.registry import App

_PREFIX = "per_"


class PeerRequest(BaseModel):
    """Body of ``POST /v1/bindings/{id}/peers``."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, arbitrary_types_allowed=True)

    b: Phone
    ttl_s: (
        Annotated[
            PeerTtl,
            Field(
                description="Seconds from the confirmation; 0 = as long as the binding, which ends it in any case."
                " Absent: the binding's `peer_ttl_s`."
            ),
        ]
        | None
    ) = None
    tone: (
        Annotated[ToneName, Field(description="Plays to A who dials Y. Absent: the binding's `tones.caller`.")] | None
    ) = None


async def create(request: web.Request, services: Services, heard: Heard) -> Reply:
    """Give B a Y: 201, or 202 while the platform has not confirmed; 200 with the one that B has already."""
    asked = body_as(PeerRequest, heard.body)
    binding = await _read(request, services, heard)
    app = heard.key.app
    if errors := _errors(asked, binding, app, services):
        raise Invalid("Some fields are wrong; see errors.", errors=errors)
    wanted = Wanted(asked.b, asked.ttl_s, asked.tone)
    peer, new = await services.peers.add(app, binding, wanted, deadline=heard.deadline, wait=not heard.respond_async)
    status = 202 if peer.state == "pending" else 201 if new else 200
    return Reply(status, pack(_shape(peer)), location=f"/v1/bindings/{_owner(peer)}/peers/{_public(peer)}")


async def show_all(request: web.Request, services: Services, heard: Heard) -> Reply:
    """List the peers of a binding."""
    listed = await services.peers.all_of(await _read(request, services, heard), deadline=heard.deadline)
    return Reply(200, pack({"items": [_shape(peer) for peer in listed.peers], "complete": listed.complete}))


async def show(request: web.Request, services: Services, heard: Heard) -> Reply:
    """Show one peer."""
    return Reply(200, pack(_shape(await _peer(request, services, await _read(request, services, heard)))))


async def delete(request: web.Request, services: Services, heard: Heard) -> Reply:
    """Take B's Y away: 200 once it is, 202 before."""
    binding = await _read(request, services, heard)
    peer = await _peer(request, services, binding)
    peer = await services.peers.drop(binding, peer, deadline=heard.deadline, wait=not heard.respond_async)
    return Reply(200 if peer.state in {"released", "failed"} else 202, pack(_shape(peer)))


async def _read(request: web.Request, services: Services, heard: Heard) -> Binding:
    binding = await read(request, services, heard)
    if MODES[heard.key.app.mode].allocation is not Allocation.PLATFORM:
        raise Conflict("Bindings of this mode have no peers.", code="not_modifiable")
    return binding


async def _peer(request: web.Request, services: Services, binding: Binding) -> Peer:
    key = parse_public_id(request.match_info["peer_id"], _PREFIX)
    peer = await services.peers.one(key) if key is not None else None
    if peer is None or (peer.pool_id, peer.binding_id) != (binding.pool_id, binding.id):
        raise NotFound("The binding has no such peer.", code="peer_not_found")
    return peer


def _errors(asked: PeerRequest, binding: Binding, app: App, services: Services) -> tuple[FieldError, ...]:
    errors = party_errors({"/b": asked.b}, services.registry())
    if asked.b == binding.a:
        errors.append(FieldError("/b", "must differ from a"))
    return tuple(errors + check_tones(app, {"/tone": asked.tone}))


def _shape(peer: Peer) -> dict[str, Any]:
    return {
        "id": _public(peer),
        "binding": _owner(peer),
        "state": peer.state,
        "reason": peer.reason,
        "b": str(peer.b),
        "y": peer.y if peer.state != "pending" else None,
        "ttl_s": peer.ttl_s,
        "tone": peer.tone,
        "made_by_platform": peer.found,
        "created_at": peer.created_at,
        "expires_at": peer.expires_at,
        "ended_at": peer.ended_at,
    }


def _public(peer: Peer) -> str:
    return public_id(peer.pool_id, peer.id, _PREFIX)


def _owner(peer: Peer) -> str:
    return public_id(peer.pool_id, peer.binding_id)

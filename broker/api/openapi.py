"""``/openapi.json``: the table of routes as an OpenAPI 3.1 document, made once at start."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from aiohttp import web
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from broker import __version__, errors
from broker.api.answers import Problem
from broker.api.capability import told
from broker.api.docs import cached, packed_once
from broker.api.operations import Answer, Operation
from broker.api.parse import BindRequest, ChangeRequest
from broker.api.problems import CODES
from broker.api.reply import pack
from broker.api.routes import Route

Json = dict[str, Any]

#: What every operation can answer: unreadable HTTP, an Expect header of another kind, our own mistakes.
_ALWAYS = (400, 417, 500)
#: What every operation with a key can answer beside that.
_KEYED = (401, 403, 408, 413, 415, 422, 429, 503)
_PROBLEM = "application/problem+json"

_INTRODUCTION = """\
Couriers and customers phone each other through an X number; this API binds an order's two phones to one.

Every error is `application/problem+json` with a stable `code` (see [/problems](/problems)). Every answer carries
`X-Request-Id`. Times are RFC 3339 in UTC, durations are seconds, phones are E.164. Each GET can be asked as HEAD.
Members may be added to answers: ignore those you do not know. A walk through all of it is in `docs/api.md`.
"""

_PARAMETERS: dict[str, Json] = {
    "Idempotency-Key": {
        "in": "header",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[A-Za-z0-9._:-]+$"},
        "description": "Carried out once per key and caller: repeats within 24 h get the first answer again. Any"
        " printable ASCII, bare or in double quotes.",
        "example": "order-1-bind",
    },
    "Request-Timeout": {
        "in": "header",
        "schema": {"type": "number", "minimum": 0.1, "maximum": 30, "default": 3},
        "description": "Seconds to wait for the platform.",
        "example": 1.5,
    },
    "Prefer": {
        "in": "header",
        "schema": {"type": "string", "enum": ["respond-async"]},
        "description": "`respond-async`: answer 202 as soon as it is committed. Other preferences are ignored.",
    },
    "If-Match": {
        "in": "header",
        "schema": {"type": "string", "maxLength": 200, "pattern": "^[!-~ ]*$"},
        "description": "ETags: change the binding only if it is still one of these (else 412).",
    },
    "If-None-Match": {
        "in": "header",
        "schema": {"type": "string", "pattern": '^(W/)?"[!#-~]*"$'},
        "description": "The ETag that you have.",
    },
    "grace_s": {
        "in": "query",
        "schema": {"type": "integer", "minimum": 0, "maximum": 86400},
        "description": "Seconds that X goes on to connect the two after the order has ended; absent: as the app says.",
        "example": 600,
    },
    "order_id": {
        "in": "query",
        "schema": {"type": "string", "minLength": 1, "maxLength": 128},
        "description": "Bindings of this order.",
    },
    "x": {
        "in": "query",
        "schema": {"type": "string", "pattern": "^[+][0-9]{3,30}$"},
        "description": "Bindings on this X number.",
    },
    "state": {
        "in": "query",
        "schema": {"type": "string", "enum": ["pending", "active", "releasing", "released", "failed"]},
        "description": "Bindings in this state.",
    },
    "limit": {
        "in": "query",
        "schema": {"type": "integer", "minimum": 1, "maximum": 200, "default": 50},
        "description": "Most bindings on a page.",
    },
    "cursor": {
        "in": "query",
        "schema": {"type": "string", "minLength": 1, "maxLength": 200},
        "description": "`next_cursor` of the page before, with the same filters.",
    },
    "binding_id": {
        "in": "query",
        "schema": {"type": "string", "pattern": "^bnd_[0-9a-v]{32}$"},
        "description": "What went through the line of this binding while it had it.",
    },
    "since": {
        "in": "query",
        "schema": {"type": "string", "format": "date-time"},
        "description": "Not before this moment.",
    },
    "until": {
        "in": "query",
        "schema": {"type": "string", "format": "date-time"},
        "description": "Before this moment.",
    },
    "first": {
        "in": "query",
        "required": True,
        "schema": {"type": "string", "format": "date"},
        "description": "The first day.",
    },
    "last": {
        "in": "query",
        "required": True,
        "schema": {"type": "string", "format": "date"},
        "description": "The last day, at most 91 later.",
    },
    "zone": {
        "in": "query",
        "schema": {"type": "string", "maxLength": 64, "default": "Asia/Shanghai"},
        "description": "Whose days.",
    },
    "by": {
        "in": "query",
        "schema": {"type": "string", "pattern": "^(pool|area|x)(,(pool|area|x)){0,2}$"},
        "description": "What is told apart: some of pool, area (city) and x, with commas.",
    },
    "cdr_id": {
        "in": "query",
        "schema": {"type": "string", "pattern": "^cdr_[0-9a-v]{32}$"},
        "description": "`id` of a call detail record, in place of the two names.",
    },
    "after": {
        "in": "query",
        "schema": {"type": "string", "pattern": "^(latest|evt_[0-9a-v]{20})$"},
        "description": "`next_after` of the answer before, or the id of an event. Absent: from the oldest that is kept;"
        " `latest`: from now on.",
    },
    "types": {
        "in": "query",
        "schema": {"type": "string", "pattern": "^[a-z_.*]+(,[a-z_.*]+)*$", "maxLength": 500},
        "description": "Types, comma separated; `call.*` is all of a kind.",
        "example": "binding.active,call.*",
    },
    "events_binding_id": {
        "name": "binding_id",
        "in": "query",
        "schema": {"type": "string", "pattern": "^bnd_[0-9a-v]{32}$"},
        "description": "Events about this binding.",
    },
    "events_limit": {
        "name": "limit",
        "in": "query",
        "schema": {"type": "integer", "minimum": 1, "maximum": 200, "default": 100},
        "description": "Most events in the answer.",
    },
    "wait_s": {
        "in": "query",
        "schema": {"type": "integer", "minimum": 0, "maximum": 30, "default": 0},
        "description": "How long to wait while there is none.",
    },
    "file_name": {
        "in": "query",
        "schema": {"type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[!-~]+$"},
        "description": "`recordObjectName` of the call detail record.",
    },
    "record_domain": {
        "in": "query",
        "schema": {"type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[!-~]+$"},
        "description": "`recordDomain` of the call detail record.",
    },
    "x_dialled": {
        "name": "x",
        "in": "query",
        "required": True,
        "schema": {"type": "string", "pattern": "^[+][0-9]{3,30}$"},
        "description": "The number that is dialled.",
    },
    "caller": {
        "in": "query",
        "required": True,
        "schema": {"type": "string", "pattern": "^[+][1-9][0-9]{6,14}$"},
        "description": "Who dials it.",
    },
    "digits": {
        "in": "query",
        "schema": {"type": "string", "pattern": "^[0-9]{1,4}$"},
        "description": "The extension that is dialled then; mode axe.",
    },
    "at": {
        "in": "query",
        "schema": {"type": "string", "format": "date-time"},
        "description": "At this moment, which has passed; absent = now.",
    },
    "verbose": {
        "in": "query",
        "schema": {"type": "string"},
        "allowEmptyValue": True,
        "description": "Tell each condition.",
    },
}

_PATH_SCHEMAS: dict[str, Json] = {
    "id": {"type": "string", "pattern": "^bnd_[0-9a-v]{32}$"},
    "peer_id": {"type": "string", "pattern": "^per_[0-9a-v]{32}$"},
    "order_id": {"type": "string", "minLength": 1, "maxLength": 128},
    "session_id": {"type": "string", "minLength": 1, "maxLength": 256, "pattern": "^[A-Za-z0-9@._+-]+$"},
    "file": {"type": "string", "pattern": "^[a-z.-]+$"},
}

_TEXT: Json = {"type": "string", "minLength": 1}

_HEADERS: dict[str, Json] = {
    "X-Request-Id": {
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
        "description": "Yours, if you sent a usable one, else ours.",
    },
    "Location": {"required": True, "schema": {"type": "string"}, "description": "Where it can be seen."},
    "Retry-After": {"schema": {"type": "integer", "minimum": 0}, "description": "Seconds to wait before a repeat."},
    "RateLimit-Policy": {
        "schema": {"type": "string"},
        "description": "The limits of requests, where there are any: q in w seconds, of the caller and of the app.",
    },
    "RateLimit": {
        "schema": {"type": "string"},
        "description": "What is left of each limit (r), and in how many seconds (t) it is whole again.",
    },
    "Idempotency-Replayed": {
        "schema": {"type": "string", "const": "true"},
        "description": "This is the answer that an earlier request with the same Idempotency-Key got.",
    },
    "Link": {"schema": {"type": "string"}, "description": "The next page, if there is one."},
    "ETag": {
        "schema": {"type": "string"},
        "description": "Changes with the content. Absent from a replay of an earlier answer.",
    },
    "WWW-Authenticate": {"required": True, "schema": {"type": "string"}, "description": "Bearer."},
}


class _Schemas(GenerateJsonSchema):
    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - repeating a field's name tells nothing
        """Leave titles to models."""
        return False


class Description:
    """The document as bytes, and its handler."""

    def __init__(self, document: Json) -> None:
        """Pack it."""
        self._plain = pack(document)
        self._packed, self._etag = packed_once(self._plain)

    async def show(self, request: web.Request) -> web.Response:
        """``GET /openapi.json``."""
        return cached(
            request, self._plain, packed=self._packed, etag=self._etag, content_type="application/json", charset=None
        )


def document(keyed: Iterable[Route], unkeyed: Mapping[str, Operation]) -> Json:
    """Return the OpenAPI document of the routes that need a key, and of the paths that all may GET."""
    paths: dict[str, Json] = {}
    models: set[type[BaseModel]] = {Problem}
    for route in keyed:
        told = route.operation or _undescribed(route)
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(told, route.path, scope=route.scope)
        models |= _models(told)
    for path, operation in unkeyed.items():
        paths[path] = {"get": _operation(operation, path)}
        models |= _models(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Binding broker",
            "version": __version__,
            "description": _INTRODUCTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [
            {"name": "bindings", "description": "What an order system does."},
            {"name": "calls", "description": "Calls while they last, and what was recorded of them."},
            {"name": "peers", "description": "In mode axyb: a number for each B that deals with an A."},
            {"name": "pools", "description": "Where X numbers come from."},
            {"name": "events", "description": "What happened, in order."},
            {"name": "service", "description": "For load balancers and readers; no key needed."},
        ],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "bbk_…", "description": "An API key."}
            },
            "parameters": {name: {"name": name} | _PARAMETERS[name] for name in _PARAMETERS},
            "headers": _HEADERS,
            "responses": {str(status): _problem(status) for status in sorted(_titles())},
            "schemas": _schemas(models),
        },
    }


def _undescribed(route: Route) -> Operation:
    """Return what is known of a route under construction; a test demands the rest."""
    name = "".join(re.findall(r"\w+", f"{route.method.lower()} {route.path.title()}"))
    return Operation(name, "bindings", "Not described yet", "", answers={200: Answer("Done.", ("application/json",))})


def _operation(told: Operation, path: str, *, scope: str | None = None) -> Json:
    statuses = {*_ALWAYS, *told.problems, *(_KEYED if scope else ())} - set(told.answers)
    responses = {str(status): _answer(answer) for status, answer in told.answers.items()}
    responses |= {str(status): {"$ref": f"#/components/responses/{status}"} for status in sorted(statuses)}
    made: Json = {
        "operationId": told.id,
        "tags": [told.tag],
        "summary": told.summary,
        "description": told.description,
        "parameters": [
            *(
                {"name": name, "in": "path", "required": True, "schema": _PATH_SCHEMAS.get(name, _TEXT)}
                for name in re.findall(r"{(\w+)}", path)
            ),
            *({"$ref": f"#/components/parameters/{name}"} for name in told.parameters),
        ],
        "responses": responses,
    }
    if told.request is not None:
        made["requestBody"] = {"required": True, "content": _content(told.request, told.example, told.examples)}
    if scope is not None:
        made["security"] = [{"bearer": []}]
        made["description"] += f"\n\nNeeds the scope `{scope}`."
    return made


def _answer(answer: Answer) -> Json:
    told: Json = {"description": answer.description, "headers": _heads("X-Request-Id", *answer.headers)}
    if answer.links:
        told["links"] = {
            name: {"operationId": name, "parameters": {"id": "$response.body#/id"}} for name in answer.links
        }
    if answer.body is not None:
        told["content"] = _content(answer.body, answer.example)
    return told


def _content(body: type[BaseModel] | tuple[str, ...], example: Any, examples: Mapping[str, Any] | None = None) -> Json:
    if isinstance(body, tuple):
        return {kind: {"schema": {"type": "object" if kind.endswith("json") else "string"}} for kind in body}
    shown: Json = {"examples": dict(examples)} if examples else {"example": example} if example is not None else {}
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{body.__name__}"}, **shown}}


def _problem(status: int) -> Json:
    # The first code of a status serves as its example; the answer's own members are in the schema.
    titles = _titles()
    code = next((kind.default_code for kind in errors.ALL if kind.status == status), "bad_request")
    example = {
        "type": f"/problems#{code}",
        "title": titles[status],
        "status": status,
        "detail": CODES[code],
        "instance": "req_00112233445566778899aabbccddeeff",
        "code": code,
    }
    heads = {
        401: ("WWW-Authenticate",),
        409: ("Retry-After", "Idempotency-Replayed"),
        422: ("Idempotency-Replayed",),
        429: ("Retry-After", "RateLimit-Policy", "RateLimit"),
        503: ("Retry-After",),
    }
    return {
        "description": f"{titles[status]}.",
        "headers": _heads("X-Request-Id", *heads.get(status, ())),
        "content": {_PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}, "example": example}},
    }


def _titles() -> dict[int, str]:
    titles = {417: errors.BadRequest.title}
    for kind in errors.ALL:
        titles.setdefault(kind.status, kind.title)
    titles.pop(errors.MethodNotAllowed.status)  # an answer to what is no operation
    return titles


def _heads(*names: str) -> Json:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _models(told: Operation) -> set[type[BaseModel]]:
    bodies = {answer.body for answer in told.answers.values()} | {told.request}
    return {body for body in bodies if body is not None and not isinstance(body, tuple)}


def _schemas(models: set[type[BaseModel]]) -> Json:
    ordered = sorted(models, key=lambda model: model.__name__)
    _, found = models_json_schema(
        [(model, "validation") for model in ordered],
        ref_template="#/components/schemas/{model}",
        schema_generator=_Schemas,
    )
    schemas: Json = found["$defs"]
    for model, changes in ((BindRequest, False), (ChangeRequest, True)):
        if model not in models:
            continue
        for name, schema in schemas[model.__name__]["properties"].items():
            _tell_modes(schema, told(name, changes=changes))
    return schemas


def _tell_modes(schema: Json, modes: str) -> None:
    """Add to a field which modes know it, after its own words: those pydantic keeps with its first kind of value."""
    kinds = schema.get("anyOf", [{}])
    words = schema.get("description") or kinds[0].pop("description", "")
    schema["description"] = f"{words} {modes}".strip()

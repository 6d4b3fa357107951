"""What each operation of the table is, for the OpenAPI document: words, bodies, answers. No logic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from broker.api import answers, callee, parse, rebinding
from broker.domain.modes import MODES


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of an operation that is no problem.

    ``body`` is a model, media types, or nothing; ``links`` are operations that take the ``id`` of the answer.
    """

    description: str
    body: type[BaseModel] | tuple[str, ...] | None
    headers: tuple[str, ...] = ()
    example: Any = None
    links: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation; ``problems`` are statuses beside those that every operation of its kind can answer.

    ``examples``, by name, take the place of the one ``example``.
    """

    id: str
    tag: str
    summary: str
    description: str
    answers: Mapping[int, Answer]
    request: type[BaseModel] | None = None
    example: Any = None
    examples: Mapping[str, Any] = field(default_factory=dict)
    parameters: tuple[str, ...] = ()
    problems: tuple[int, ...] = ()


_ACTIVE: dict[str, Any] = {
    "id": "bnd_06f3ls2c9t7qv0e8k1m4p5r6a2b3c4d5",
    "mode": "axb",
    "state": "active",
    "reason": None,
    "x": "+8617075500012",
    "extension": None,
    "y": None,
    "a": "+86*******0001",
    "b": "+86*******0002",
    "direction": "both",
    "pool": "shenzhen",
    "area_code": "0755",
    "order_id": "order-1",
    "user_data": None,
    "metadata": {"city": "Shenzhen"},
    "ttl_s": 3600,
    "expires_at": "2026-11-22T13:00:00.412Z",
    "created_at": "2026-11-22T12:00:00.250Z",
    "ended_at": None,
    "platform_binding_id": "9f2b7c1e-…",
    "shadow": False,
    "line": "019ab3c5e27f7c1d9a04b8f3d2e6170a",
    "shared": False,
    "recording": None,
    "max_call_minutes": None,
    "last_minute_tone": None,
    "sms": None,
    "tones": None,
    "display": None,
    "peer_ttl_s": None,
    "callback": None,
    "callee": None,
    "gap_ms": None,
    "warnings": [],
    "pending_change": None,
    "change_failed": None,
}
_PENDING = _ACTIVE | {"state": "pending", "x": None, "expires_at": None, "platform_binding_id": None}
_RELEASED = _ACTIVE | {"state": "released", "reason": "released", "ended_at": "2026-11-22T12:30:00.000Z"}
_REPLAYED = ("Idempotency-Replayed",)
_WAITING = ("Idempotency-Key", "Request-Timeout", "Prefer")
_NEXT = ("showBinding", "changeBinding", "releaseBinding")
_PLACE = ("Location", "ETag", "Idempotency-Replayed")

CREATE = Operation(
    id="createBinding",
    tag="bindings",
    summary="Bind an order's phones to an X number",
    description=(
        "Chooses an X, tells the platform, and answers when the platform has confirmed. If that takes longer than"
        " `Request-Timeout`, or with `Prefer: respond-async`, the answer is 202: the binding is committed and will be"
        " confirmed or fail; look at its `Location`. A pair that has a live line in the same pool with the same options"
        " shares it: the same `x` and `line`, an `id` and lifetime of its own, `shared: true`. An app has one"
        " mode; each field tells which modes know it, and what it is called on the platform's wire."
    ),
    request=parse.BindRequest,
    examples={mode.name: {"summary": mode.title, "value": mode.example} for mode in MODES.values()},
    parameters=("Idempotency-Key", "Request-Timeout", "Prefer"),
    answers={
        201: Answer("The platform has confirmed: calls to `x` are connected.", answers.Binding, _PLACE, _ACTIVE, _NEXT),
        202: Answer("Committed, not yet confirmed: `x` is null.", answers.Binding, _PLACE, _PENDING, _NEXT),
    },
    problems=(409, 502),
)
SHOW = Operation(
    id="showBinding",
    tag="bindings",
    summary="Show a binding",
    description="Its state now. Another app's binding is answered like one that does not exist.",
    parameters=("Request-Timeout",),
    answers={200: Answer("The binding.", answers.Binding, ("ETag",), _ACTIVE)},
    problems=(404,),
)
CHANGE = Operation(
    id="changeBinding",
    tag="bindings",
    summary="Change a binding that lives",
    description=(
        "A merge patch: what is absent stays. `ttl_s` counts anew from now; it, `user_data` and `metadata` take effect"
        " at once. The rest is changed at the platform: 200 when it has confirmed, 202 with `pending_change` before;"
        " until then the old and the new party both hold the X. Only one of `a` and `b` can be replaced. Where the X or"
        " the line cannot take the change, it is refused (409 `party_barred`, `line_shared`, `not_modifiable`), or with"
        " `on_conflict: rebind` the binding gets another X once it is confirmed. Options of a shared line change"
        " for all its orders."
    ),
    request=parse.ChangeRequest,
    example={"b": "+8613900000003", "ttl_s": 3600},
    parameters=("Idempotency-Key", "If-Match", "Request-Timeout", "Prefer"),
    answers={
        200: Answer("It is so.", answers.Binding, ("ETag", "Idempotency-Replayed"), _ACTIVE),
        202: Answer(
            "Begun, not yet confirmed.",
            answers.Binding,
            ("ETag", "Idempotency-Replayed"),
            _ACTIVE | {"pending_change": {"b": "+86*******0003"}},
        ),
    },
    problems=(404, 409, 412, 502),
)
CALLEE = Operation(
    id="setCallee",
    tag="bindings",
    summary="Set whom A reaches who dials X",
    description=(
        "For one party's X (modes ax and x). The callee is reached for `ttl_s` seconds from the confirmation; setting"
        " another one overwrites it. 400 and 95 numbers are allowed. To be set before each call of A's."
    ),
    request=callee.CalleeRequest,
    example={"callee": "+8613900000002", "ttl_s": 120},
    parameters=("Idempotency-Key", "Request-Timeout", "Prefer"),
    answers={
        200: Answer("It is so.", answers.Binding, ("ETag", "Idempotency-Replayed"), _ACTIVE),
        202: Answer("Begun, not yet confirmed.", answers.Binding, ("ETag", "Idempotency-Replayed"), _ACTIVE),
    },
    problems=(404, 409, 502),
)
HAND_OVER = Operation(
    id="handOver",
    tag="bindings",
    summary="Hand a courier's live bindings over to another",
    description=(
        "Replaces the phone `from` by `to` in every live binding of the app, at most 1,000, each with its own outcome."
        " With `dry_run` nothing is changed, and `would` says what were done. Where `to` may not have an X now, the"
        " binding stays as it is (`party_barred`), or gets another X with `on_conflict: rebind`."
    ),
    request=parse.HandOverRequest,
    example={"from": "+8613900000001", "to": "+8613900000009", "dry_run": True},
    parameters=_WAITING,
    answers={
        200: Answer(
            "The outcomes.",
            answers.Handed,
            _REPLAYED,
            {"items": [{"status": 200, "would": "change", "binding": _ACTIVE}]},
        ),
    },
    problems=(409,),
)
_NOT_CARRIED = {"code": "not_carried_over", "pointer": "/sms", "detail": "demo-axe does not offer it as it was"}
_MOVED: dict[str, Any] = {"replaces": "bnd_06f3ls2c9t7qv0e8k1m4p5r6a2b3c4d4", "warnings": [_NOT_CARRIED]}
REBIND_IN = Operation(
    id="rebindIn",
    tag="bindings",
    summary="Have a binding go on in another app of the same owner",
    description=(
        "Makes a new binding, with an X of its own, in the app named, for the caller of the same name there, and ends"
        " the old one (reason `moved`) once the new one is active; if that fails the old one stands. Parties, remaining"
        " lifetime, area and what both modes know are carried over; any field of a bind but `a` may be given instead,"
        " null leaves it out. What is not carried over is named in `warnings`. The new binding is seen with the other"
        " app's key. An app that does not exist, and one in which you do not bind, are both 404 `foreign_app`."
    ),
    request=rebinding.RebindRequest,
    example={"app": "demo-axe", "ttl_s": 3600},
    parameters=_WAITING,
    answers={
        201: Answer("The platform has confirmed the new binding.", answers.Successor, _PLACE, _ACTIVE | _MOVED),
        202: Answer("Committed, not yet confirmed; the old one stands.", answers.Successor, _PLACE, _PENDING | _MOVED),
    },
    problems=(404, 409, 502),
)
DELETE = Operation(
    id="releaseBinding",
    tag="bindings",
    summary="Release a binding",
    description=(
        "Ends it at the platform. 200 when that is confirmed or it had ended before; 202 when it is not yet confirmed:"
        " the release goes on by itself. Repeating it is harmless. With `grace_s` the order has ended at once"
        " (200), and X goes on to connect its two for that long; who binds them again until then gets the same X."
    ),
    parameters=("grace_s", "Idempotency-Key", "Request-Timeout", "Prefer"),
    answers={
        200: Answer("It has ended.", answers.Binding, _REPLAYED, _RELEASED),
        202: Answer("It is being ended.", answers.Binding, _REPLAYED, _ACTIVE | {"state": "releasing"}),
    },
    problems=(404, 409),
)

_FILTERS = ("order_id", "x", "state", "limit", "cursor")
_UNKNOWN: dict[str, Any] = {
    "type": "/problems#binding_not_found",
    "title": "Not found",
    "status": 404,
    "detail": "There is no such binding.",
    "instance": "req_00112233445566778899aabbccddeeff",
    "code": "binding_not_found",
}
_POOL: dict[str, Any] = {
    "name": "shenzhen",
    "area_code": "0755",
    "state": "open",
    "numbers": 40,
    "open": 40,
    "cap": 500,
    "live": 812,
    "resting": 63,
    "headroom": 19188,
    "x_in_use": 9,
    "x_needed": 8,
    "refusals": {"a_busy": 1},
    "sample": {"share": 0.01, "factor": 7, "of_resting": 0.0566},
    "exposure": {
        "rest_s": 14400,
        "releases": 21450,
        "calls": 2,
        "seen_s": 100800,
        "per_million": 93.2,
        "low": 11.3,
        "high": 336.8,
    },
    "as_of": "2026-11-22T12:00:00.250Z",
}

BATCH = Operation(
    id="bindBatch",
    tag="bindings",
    summary="Bind up to 1,000 orders",
    description=(
        "Each item is a bind and has its own outcome at its place; a bad one harms no other. Waits like a single bind,"
        " for all of them. One Idempotency-Key covers the batch: its answer is kept unless an item failed with 5xx;"
        " then a repeat tries those again and finds what was bound. Bodies of up to 4 MiB."
    ),
    request=parse.BatchRequest,
    example={"items": [{"a": "+8613900000001", "b": "+8613900000002", "order_id": "order-1"}]},
    parameters=_WAITING,
    answers={
        200: Answer("The outcomes.", answers.Batch, _REPLAYED, {"items": [{"status": 201, "binding": _ACTIVE}]}),
    },
    problems=(409,),
)
BATCH_RELEASE = Operation(
    id="releaseBatch",
    tag="bindings",
    summary="Release up to 1,000 bindings or orders",
    description=(
        "With `ids` an outcome for each; with `order_ids` one for each live binding of each order in turn, and a 404"
        " that names the order for one that has none. With `grace_s` each line outlives its last binding for so long."
        " Bodies of up to 4 MiB."
    ),
    request=parse.BatchReleaseRequest,
    example={"ids": ["bnd_06f3ls2c9t7qv0e8k1m4p5r6a2b3c4d5", "bnd_00000000000000000000000000000000"]},
    parameters=_WAITING,
    answers={
        200: Answer(
            "The outcomes.",
            answers.Batch,
            _REPLAYED,
            {"items": [{"status": 200, "binding": _RELEASED}, {"status": 404, "problem": _UNKNOWN}]},
        ),
    },
    problems=(409,),
)
RELEASE_ORDER = Operation(
    id="releaseOrder",
    tag="bindings",
    summary="Release all live bindings of an order",
    description=(
        "200 when nobody is behind any X of it any more; an order that has none is a 200 with an empty list. With"
        " `grace_s` it has ended at once (200), and its X go on to connect its parties for that long."
    ),
    parameters=("grace_s", *_WAITING),
    answers={
        200: Answer("It has ended.", answers.Bindings, _REPLAYED, {"items": [_RELEASED]}),
        202: Answer("It is being ended.", answers.Bindings, _REPLAYED, {"items": [_ACTIVE | {"state": "releasing"}]}),
    },
    problems=(404, 409),
)
LIST = Operation(
    id="listBindings",
    tag="bindings",
    summary="List bindings, newest first",
    description=(
        'Filters narrow the list together. `Link` with `rel="next"` leads to the next page; a page may be short while'
        " there are more. To find a party use `POST /v1/bindings:search`: phones do not belong into URLs."
    ),
    parameters=(*_FILTERS, "Request-Timeout"),
    answers={200: Answer("A page.", answers.BindingPage, ("Link",), {"items": [_ACTIVE], "next_cursor": None})},
)
SEARCH = Operation(
    id="searchBindings",
    tag="bindings",
    summary="Find bindings, by party too",
    description=(
        "The filters of the list in a body, and `party`: a phone on either side. Of what has ended, a party's search"
        " finds the last binding on each X."
    ),
    request=parse.SearchRequest,
    example={"party": "+8613900000001", "state": "active"},
    parameters=("Idempotency-Key", "Request-Timeout"),
    answers={
        200: Answer("A page.", answers.BindingPage, _REPLAYED, {"items": [_ACTIVE], "next_cursor": None}),
    },
    problems=(409,),
)
POOLS = Operation(
    id="listPools",
    tag="pools",
    summary="How full the pools are",
    description="Counted at most every 10 s by each process.",
    parameters=("Request-Timeout",),
    answers={200: Answer("The pools of the app.", answers.Pools, (), {"items": [_POOL]})},
)
POOL = Operation(
    id="showPool",
    tag="pools",
    summary="How full a pool is",
    description="Counted at most every 10 s by each process.",
    parameters=("Request-Timeout",),
    answers={200: Answer("The pool.", answers.Pool, (), _POOL)},
    problems=(404,),
)

_REACHED: dict[str, Any] = {
    "reached": True,
    "why": "bound",
    "detail": "is bound",
    "x": "+8617075500012",
    "caller": "+86*******0001",
    "digits": None,
    "at": None,
    "role": "b",
    "party": "+86*******0002",
    "bindings": ["bnd_06f3ls2c9t7qv0e8k1m4p5r6a2b3c4d5"],
}
REACH = Operation(
    id="queryReach",
    tag="bindings",
    summary="Who is reached when somebody dials an X",
    description=(
        "Now, or `at` a moment before, as far as the app's history is kept. `reached` is null where only the platform"
        " knows. With `reveal` and the scope `reveal` the party is shown in clear, and that is noted first; such an"
        " answer is not kept for a repeated Idempotency-Key."
    ),
    request=parse.ReachRequest,
    example={"x": "+8617075500012", "caller": "+8613900000001"},
    parameters=("Idempotency-Key", "Request-Timeout"),
    answers={200: Answer("Whom, or why nobody.", answers.Reach, _REPLAYED, _REACHED)},
    problems=(404, 409),
)
REACH_NOW = Operation(
    id="reach",
    tag="bindings",
    summary="The same, asked by GET",
    description="Phones in URLs end up in the logs of proxies: prefer `POST /v1/reach:query`. Never in clear.",
    parameters=("x_dialled", "caller", "digits", "at", "Request-Timeout"),
    answers={200: Answer("Whom, or why nobody.", answers.Reach, (), _REACHED)},
    problems=(404,),
)

LIVEZ = Operation(
    id="livez",
    tag="service",
    summary="Is the process alive",
    description="Answers as long as the process can answer anything.",
    answers={200: Answer("It is.", answers.Health, (), {"status": "ok"})},
)
READYZ = Operation(
    id="readyz",
    tag="service",
    summary="Should a load balancer send requests here",
    description="With PostgreSQL gone an instance stays ready and answers 503 with Retry-After to what needs it.",
    parameters=("verbose",),
    answers={
        200: Answer("Yes.", answers.Readiness, (), {"status": "ok"}),
        503: Answer("No: starting or draining.", answers.Readiness, (), {"status": "not_ready"}),
    },
)
VERSION = Operation(
    id="version",
    tag="service",
    summary="Which version runs",
    description="The version of the package.",
    answers={200: Answer("The version.", answers.Version, (), {"version": "0.1.0"})},
)
PROBLEMS = Operation(
    id="problems",
    tag="service",
    summary="What each problem code means",
    description="The page that `type` of every problem points into.",
    answers={200: Answer("The page.", ("text/html",))},
)
OPENAPI = Operation(
    id="openapi",
    tag="service",
    summary="This document",
    description="Changes only with the version: ask again with If-None-Match.",
    parameters=("If-None-Match",),
    answers={
        200: Answer("The document.", ("application/json",), ("ETag",)),
        304: Answer("You have it.", None, ("ETag",)),
    },
)
DOCS = Operation(
    id="docs",
    tag="service",
    summary="This document as a page",
    description="Loads nothing from anywhere else.",
    parameters=("If-None-Match",),
    answers={200: Answer("The page.", ("text/html",), ("ETag",)), 304: Answer("You have it.", None, ("ETag",))},
)
DOCS_FILE = Operation(
    id="docsFile",
    tag="service",
    summary="A file of the page",
    description="Script or style.",
    parameters=("If-None-Match",),
    answers={
        200: Answer("The file.", ("text/javascript", "text/css"), ("ETag",)),
        304: Answer("You have it.", None, ("ETag",)),
    },
    problems=(404,),
)

#: What needs no key, by path; all of it is GET.
OPEN: dict[str, Operation] = {
    "/livez": LIVEZ,
    "/readyz": READYZ,
    "/version": VERSION,
    "/problems": PROBLEMS,
    "/openapi.json": OPENAPI,
    "/docs": DOCS,
    "/docs/{file}": DOCS_FILE,
}

"""What the operation on events is, for the OpenAPI document. No logic."""

from __future__ import annotations

from typing import Any

from broker.api import answers
from broker.api.operations import Answer, Operation

_EVENT: dict[str, Any] = {
    "specversion": "1.0",
    "id": "evt_0000003000000000017g",
    "type": "binding.active",
    "source": "/apps/demo-axb",
    "subject": "bnd_06f3ls2c9t7qv0e8k1m4p5r6a2b3c4d5",
    "time": "2026-11-22T12:00:00.412Z",
    "datacontenttype": "application/json",
    "data": {
        "binding_id": "bnd_06f3ls2c9t7qv0e8k1m4p5r6a2b3c4d5",
        "order_id": "order-1",
        "user_data": "table 4",
        "state": "active",
        "x": "+8617075500012",
        "expires_at": "2026-11-22T13:00:00.412Z",
    },
}

EVENTS = Operation(
    id="listEvents",
    tag="events",
    summary="Read what happened, or wait for it",
    description=(
        "Events of the app after a cursor, none skipped; a binding's are in the order in which they happened. Store"
        " `next_after` with what you have done, and begin there after a restart. With `Accept: text/event-stream` they"
        " come as a stream of server-sent events, from `Last-Event-ID` on, else from now on; a reader that falls behind"
        " is cut off. `order_id`, `user_data` and `metadata` are as they are when the event is read."
    ),
    parameters=("after", "types", "events_binding_id", "events_limit", "wait_s"),
    answers={
        200: Answer(
            "Events, or none by the end of the wait.",
            answers.Events,
            (),
            {"items": [_EVENT], "next_after": "evt_0000003000000000017g", "more": False},
        )
    },
    problems=(410,),
)

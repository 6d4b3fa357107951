"""What the operations on calls are, and on what the platform told of them, for the OpenAPI document. No logic."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from broker.api import answers, calls, parse
from broker.api.operations import Answer, Operation

_REPLAYED = ("Idempotency-Replayed",)

STOP_CALL = Operation(
    id="stopCall",
    tag="calls",
    summary="Hang a call up",
    description=(
        "`session_id` is the one of the call's events; percent-encode what a path cannot hold. 404 `call_over` when the"
        " call has ended. A 503 leaves unknown whether the platform did it: ask again."
    ),
    parameters=("Idempotency-Key", "Request-Timeout"),
    answers={200: Answer("It is over.", answers.Stopped, _REPLAYED, {"stopped": True})},
    problems=(404, 409, 502),
)
_RECORDING = {"file_name": "1200_366_0_20240123091514.wav", "record_domain": "ostor.example.com"}
_LOCATED = Answer("Where it is.", answers.Located, (), _RECORDING | {"url": "https://ostor.example.com/…"})
RECORDING = Operation(
    id="findRecording",
    tag="calls",
    summary="Where a call's recording is",
    description=(
        "Asks the platform for an address from which the recording can be fetched for some days, and writes down who"
        " asked. The platform keeps recordings for seven days; afterwards 410 `recording_gone`. Names may hold phone"
        " numbers: `POST /v1/recordings:locate` keeps them out of URLs."
    ),
    parameters=("cdr_id", "file_name", "record_domain", "Request-Timeout"),
    answers={200: _LOCATED},
    problems=(404, 410, 502),
)
LOCATE = Operation(
    id="locateRecording",
    tag="calls",
    summary="Where a call's recording is, asked without names in the URL",
    description="As `GET /v1/recordings`. The answer is not kept for repeats: each of them asks the platform.",
    request=calls.RecordingRequest,
    example=_RECORDING,
    parameters=("Idempotency-Key", "Request-Timeout"),
    answers={200: _LOCATED},
    problems=(404, 409, 410, 502),
)
_WHOSE = {"bindings": ["bnd_06f3ls2c9t7qv0e8k1m4p5r6a2b3c4d5"], "found_by": "token", "x": "+8617075500012"}
_TIMES = {
    "ringing_at": "2026-11-22T12:00:06Z", "answered_at": "2026-11-22T12:00:10Z", "ended_at": "2026-11-22T12:01:15Z",
}  # fmt: skip
_CALL: dict[str, Any] = {
    "id": "cal_06f3ls2c9t7qv0e8k1m4p5r6a0000000", "session_id": "1200_366_0_20261122120000@node1", "state": "ended",
    **_WHOSE, "extension": None, "caller": "+86*******0001", "callee": "+86*******0002",
    "started_at": "2026-11-22T12:00:00Z", **_TIMES, "state_code": 0,
    "reason": "somebody hung up after the call was connected", "released_by": None,
    "timeline": [{"type": "callin", "at": "2026-11-22T12:00:00Z"}],
}  # fmt: skip
_CDR: dict[str, Any] = {
    "id": "cdr_06f3ls2c9t7qv0e8k1m4p5r6a0000000", "call": _CALL["id"], "session_id": _CALL["session_id"], **_WHOSE,
    "extension": None, "direction": 1, "caller": "+86*******0001", "callee": "+86*******0002",
    "at": "2026-11-22T12:01:15Z", "call_in_at": "2026-11-22T12:00:00Z", "forward_at": "2026-11-22T12:00:01Z", **_TIMES,
    "talk_s": 65, "release_code": 0, "q850": 0, "sip": 0, "reason": "hung up after the connection", "released_by": None,
    "recording": {"file_name": "1200.wav", "record_domain": "ostor.example.com", "at": "2026-11-22T12:00:10Z"},
}  # fmt: skip
_SMS: dict[str, Any] = {
    "id": "sms_06f3ls2c9t7qv0e8k1m4p5r6a0000000", **_WHOSE, "direction": 1, "sender": "+86*******0001",
    "receiver": "+86*******0002", "at": "2026-11-22T12:00:00Z", "result": 0, "reason": "forwarded", "segments": 1,
    "content": None,
}  # fmt: skip


_DAY: dict[str, Any] = {
    "day": "2026-11-22", "pool": "shenzhen", "calls": 1210, "answered": 968, "talk_s": 61952, "minutes": 1508,
    "messages": 12, "segments": 14, "answer_rate": 0.8, "currency": "CNY", "cost": "151.22", "unpriced": 0,
}  # fmt: skip


def _told(name: str, what: str, page: type[BaseModel], item: dict[str, Any]) -> tuple[Operation, Operation]:
    """Return the operations of a list of what the platform told, and of its search."""
    shown = {"items": [item], "next_cursor": None}
    listed = Operation(
        id=f"list{name}",
        tag="calls",
        summary=f"List {what}, newest first",
        description=(
            'Filters narrow the list together. `Link` with `rel="next"` leads to the next page; a page may be short'
            " while there are more. Numbers are masked unless the key has the scope `reveal`. With `Accept: text/csv`"
            " or `application/x-ndjson` everything comes in one answer, whatever the limit; one that was cut off"
            " has no last chunk. 503 `overloaded` while too many are being sent."
        ),
        parameters=("binding_id", "order_id", "x", "since", "until", "limit", "cursor", "Request-Timeout"),
        answers={200: Answer("A page.", page, ("Link",), shown)},
    )
    searched = Operation(
        id=f"search{name}",
        tag="calls",
        summary=f"Find {what}, by party too",
        description="The filters of the list in a body, and `party`: a phone on either side.",
        request=parse.ToldSearch,
        example={"party": "+8613900000001", "since": "2026-11-22T00:00:00Z"},
        parameters=("Idempotency-Key", "Request-Timeout"),
        answers={200: Answer("A page.", page, _REPLAYED, shown)},
        problems=(409,),
    )
    return listed, searched


CALLS, SEARCH_CALLS = _told("Calls", "calls", answers.CallPage, _CALL)
CDRS, SEARCH_CDRS = _told("Cdrs", "call detail records", answers.CdrPage, _CDR)
MESSAGES, SEARCH_MESSAGES = _told("Sms", "short messages", answers.SmsPage, _SMS)
SUMMARY = Operation(
    id="summarizeCalls",
    tag="calls",
    summary="Calls and messages by day, and what they cost",
    description=(
        "Calls by their records, messages by what became of them. Costs are by the app's price list (`broker price`):"
        " each minute that is begun while two speak, each segment that was forwarded. A row for each currency; what has"
        " no price is counted in `unpriced`."
    ),
    parameters=("first", "last", "zone", "by", "Request-Timeout"),
    answers={200: Answer("A row for each day.", answers.Summary, (), {"zone": "Asia/Shanghai", "items": [_DAY]})},
)

"""The shapes of answers, for the OpenAPI document; handlers build them by hand because that is cheaper."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, WithJsonSchema

from broker.domain.reach import Why

_MASKED = r"^[+][0-9*]+$"
Masked = Annotated[str, Field(pattern=_MASKED, description="The phone with all but its ends masked.")]
Time = Annotated[datetime, WithJsonSchema({"type": "string", "format": "date-time", "pattern": "Z$"})]


class Recording(BaseModel):
    """Calls are recorded."""

    enabled: bool
    hint_tone: str | None


class Tones(BaseModel):
    """Voice files instead of the ring-back."""

    caller: str | None
    callee: str | None


class Callback(BaseModel):
    """Whom A reaches, or what A hears, who dials X when nobody has called."""

    number: Masked | None
    tone: str | None
    ttl_s: Annotated[int | None, Field(description="How long it is remembered who has called.")]


class Callee(BaseModel):
    """Whom A reaches who dials X."""

    callee: Masked
    expires_at: Time
    user_data: str | None


class Warned(BaseModel):
    """Something that is allowed and may surprise."""

    code: Literal["landline_cannot_dial", "not_carried_over"]
    pointer: Annotated[str, Field(description="JSON Pointer into the binding.", examples=["/a"])]
    detail: str


class Binding(BaseModel):
    """One binding. A member that does not apply is null, never absent."""

    id: Annotated[str, Field(pattern="^bnd_[0-9a-v]{32}$", description="Opaque; sorts by time of creation.")]
    mode: Literal["axb", "ax", "axe", "axyb", "x"]
    state: Annotated[
        Literal["pending", "active", "releasing", "released", "failed"],
        Field(description="pending until the platform confirms; released and failed are final."),
    ]
    reason: Annotated[str | None, Field(description="Why it ended or failed.")]
    x: Annotated[str | None, Field(description="The number that parties dial; null until confirmed.")]
    extension: Annotated[str | None, Field(description="What is dialled after X, where several are behind it.")]
    y: str | None
    a: Masked
    b: Annotated[Masked | None, Field(description="Null where one party is behind X.")]
    direction: Literal["both", "a_to_b", "b_to_a"]
    pool: str
    area_code: str
    order_id: str | None
    user_data: Annotated[str | None, Field(description="As you sent it. Kept by us, never sent to the platform.")]
    metadata: Annotated[dict[str, Any] | None, Field(description="As you sent it.")]
    ttl_s: Annotated[int, Field(description="Seconds from the confirmation; 0 = no expiry.")]
    expires_at: Annotated[
        Time | None, Field(description="Confirmation + ttl_s; null while pending and without expiry.")
    ]
    created_at: Time
    ended_at: Time | None
    platform_binding_id: Annotated[
        str | None, Field(description="The platform's name of it; null until confirmed, and if predicted.")
    ]
    shadow: Annotated[
        bool, Field(description="Predicted only: another system binds, X leads nowhere. Never hand it to anybody.")
    ]
    line: Annotated[str, Field(description="What the platform holds; orders of the same pair may share one.")]
    shared: Annotated[bool, Field(description="Other live bindings are on the same line.")]
    recording: Recording | None
    max_call_minutes: int | None
    last_minute_tone: str | None
    sms: bool | None
    tones: Tones | None
    display: Literal["x", "caller"] | None
    peer_ttl_s: int | None
    callback: Callback | None
    callee: Annotated[Callee | None, Field(description="The temporary callee.")]
    gap_ms: Annotated[int | None, Field(description="How long nobody was behind X when the line was last bound anew.")]
    warnings: list[Warned]
    pending_change: Annotated[
        dict[str, Any] | None, Field(description="What a change under way makes of it; until then both hold.")
    ]
    change_failed: Annotated[str | None, Field(description="Why the last change was not made; null = it was.")]
    explanation: Annotated[dict[str, Any], Field(description="Only with explain: why this X.")] = {}


class Successor(Binding):
    """A binding that replaces another one."""

    replaces: Annotated[str, Field(description="The binding that ends once this one is active.")]
    warnings: Annotated[list[Warned], Field(description="What is not carried over.")]


class Peer(BaseModel):
    """A B and the number that A reaches it by."""

    id: Annotated[str, Field(pattern="^per_[0-9a-v]{32}$", description="Opaque; sorts by time of creation.")]
    binding: Annotated[str, Field(pattern="^bnd_[0-9a-v]{32}$")]
    state: Annotated[
        Literal["pending", "active", "releasing", "released", "failed"],
        Field(description="pending until the platform confirms; released and failed are final."),
    ]
    reason: Annotated[str | None, Field(description="Why it ended or failed.")]
    b: Masked
    y: Annotated[str | None, Field(description="The number that A dials to reach B; null until confirmed.")]
    ttl_s: Annotated[int, Field(description="Seconds from the confirmation; 0 = as long as the binding.")]
    tone: Annotated[str | None, Field(description="Plays to A who dials Y.")]
    made_by_platform: Annotated[bool, Field(description="B dialled X, and the platform gave it a Y by itself.")]
    created_at: Time
    expires_at: Time | None
    ended_at: Time | None


class Peers(BaseModel):
    """The peers of a binding: those that live first, the newest first, at most 1,000."""

    items: list[Peer]
    complete: Annotated[bool, Field(description="The platform could be asked for those that it has made by itself.")]


class FieldProblem(BaseModel):
    """One bad field."""

    pointer: Annotated[str, Field(description="JSON Pointer into the body, or header:Name.", examples=["/a"])]
    detail: str
    code: Annotated[
        str, Field(description="Stable, where the mistake has a code of its own.", examples=["ttl_out_of_range"])
    ] = ""


class Problem(BaseModel):
    """An error as RFC 9457 wants it. Decide by `code`; `detail` is for people. Never holds a phone number."""

    type: Annotated[str, Field(description="Where the code is explained.", examples=["/problems#validation_failed"])]
    title: str
    status: int
    detail: str
    instance: Annotated[str, Field(description="The request id; also in X-Request-Id and in our log.")]
    code: Annotated[
        str,
        Field(
            examples=["validation_failed"],
            description="Stable; see /problems. With errors that all have the same code, that one.",
        ),
    ]
    errors: Annotated[list[FieldProblem], Field(description="With 422: every bad field at once.")] = []
    reasons: Annotated[dict[str, int], Field(description="With pool_exhausted: how many X fell out, and why.")] = {}
    pools: Annotated[list[str], Field(description="With pool_exhausted: the pools that were tried.")] = []
    binding: Annotated[str, Field(description="The binding that failed, if one had been made.")] = ""
    reason: Annotated[str, Field(description="With platform_refused: why.")] = ""
    platform_code: Annotated[str, Field(description="The platform's own code.")] = ""
    platform_http: Annotated[int, Field(description="The platform's HTTP status.")] = 0


class Bindings(BaseModel):
    """The bindings that were released, or are being released."""

    items: list[Binding]


class BindingPage(BaseModel):
    """Some bindings, newest first. A page may be short, even empty, while there are more."""

    items: list[Binding]
    next_cursor: Annotated[str | None, Field(description="Where the next page begins; null at the end.")]


class Step(BaseModel):
    """An event of a call."""

    type: Annotated[str, Field(description="callin, collectInfo, callout, alerting, answer or disconnect.")]
    at: Time


class ToldItem(BaseModel):
    """What the platform told, and whose it is. Numbers are masked unless the key has the scope `reveal`."""

    id: str
    bindings: Annotated[list[str], Field(description="The bindings that the line had then; empty: it is not known.")]
    found_by: Annotated[
        Literal["token", "subscription", "history"] | None,
        Field(description="How they were found; null: they were not."),
    ]
    x: str | None


class Call(ToldItem):
    """A call by its events."""

    session_id: Annotated[str | None, Field(description="For stopping it. Null if made of numbers you may not see.")]
    state: Literal["started", "ringing", "answered", "ended"]
    extension: Annotated[str | None, Field(description="Digits that were dialled behind X.")]
    caller: str | None
    callee: str | None
    started_at: Time
    ringing_at: Time | None
    answered_at: Time | None
    ended_at: Time | None
    state_code: Annotated[int | None, Field(description="The platform's cause of the end.")]
    reason: Annotated[str | None, Field(description="The same in words.")]
    released_by: Annotated[int | None, Field(description="Mode x: 1 caller, 2 callee, 0 unknown.")]
    timeline: list[Step]


class CallPage(BaseModel):
    """Some calls, newest first. A page may be short, even empty, while there are more."""

    items: list[Call]
    next_cursor: str | None


class Day(BaseModel):
    """What a day adds up to; `pool`, `area_code` and `x` where they were asked for."""

    day: str
    pool: str | None = None
    area_code: str | None = None
    x: str | None = None
    calls: int
    answered: Annotated[int, Field(description="In which two spoke.")]
    talk_s: int
    minutes: Annotated[int, Field(description="Begun minutes, call by call.")]
    messages: int
    segments: Annotated[int, Field(description="Of messages that were forwarded.")]
    answer_rate: float | None
    currency: str | None
    cost: Annotated[str | None, Field(description="A decimal number; null: there is no price.")]
    unpriced: Annotated[int, Field(description="Calls and messages without a price.")]


class Summary(BaseModel):
    """Days, oldest first."""

    zone: str
    items: list[Day]


class RecordingOf(BaseModel):
    """What the platform calls a recording."""

    file_name: str
    record_domain: str | None
    at: Time | None


class Cdr(ToldItem):
    """A call detail record."""

    call: Annotated[str | None, Field(description="`id` of the call, if its events came, too.")]
    session_id: str | None
    extension: str | None
    direction: Annotated[int | None, Field(description="As the platform says: 0 to A, 1 from A, 2 abnormal.")]
    caller: str | None
    callee: str | None
    at: Time
    call_in_at: Time | None
    forward_at: Time | None
    ringing_at: Time | None
    answered_at: Time | None
    ended_at: Time | None
    talk_s: Annotated[int, Field(description="Seconds from the answer to the end.")]
    release_code: int | None
    q850: int | None
    sip: int | None
    reason: Annotated[str | None, Field(description="Why it ended, in words.")]
    released_by: int | None
    recording: Annotated[RecordingOf | None, Field(description="Ask `/v1/recordings` with this record's `id`.")]


class CdrPage(BaseModel):
    """Some records, newest first. A page may be short, even empty, while there are more."""

    items: list[Cdr]
    next_cursor: str | None


class Sms(ToldItem):
    """What became of a short message."""

    direction: int | None
    sender: str | None
    receiver: str | None
    at: Time
    result: Annotated[int, Field(description="The platform's word: 0 = forwarded.")]
    reason: Annotated[str, Field(description="The same in words.")]
    segments: int | None
    content: Annotated[str | None, Field(description="If the platform passes it on; scope `reveal`.")]


class SmsPage(BaseModel):
    """Some messages, newest first. A page may be short, even empty, while there are more."""

    items: list[Sms]
    next_cursor: str | None


class BatchItem(BaseModel):
    """One item's outcome: what it would have been answered alone. It has a `binding` or a `problem`."""

    status: int
    binding: Annotated[Binding | None, Field(description="Absent with a problem.")] = None
    problem: Annotated[Problem | None, Field(description="Absent with a binding.")] = None


class HandedItem(BaseModel):
    """One binding's outcome; with `problem` it is as it was."""

    status: int
    binding: Binding
    would: Annotated[Literal["change", "rebind"] | None, Field(description="With dry_run: what would be done.")] = None
    problem: Annotated[Problem | None, Field(description="Why it was not handed over.")] = None


class Handed(BaseModel):
    """The outcomes, those that share a line next to each other."""

    items: list[HandedItem]


class Batch(BaseModel):
    """The outcomes in the order of the items."""

    items: list[BatchItem]


class PlacesOfPool(BaseModel):
    """What there is to give out where one party has a whole X, or an extension of one."""

    per_x: Annotated[int, Field(description="Places on each X: 1, or its extensions that are given out.")]
    per_x_unsafe: Annotated[
        int | None,
        Field(description="How many it would be were they not typo-safe; null: they are not."),
    ]
    in_use: Annotated[int, Field(description="Places that are or may be given out now.")]
    held: Annotated[int, Field(description="Places with a line.")]
    resting: Annotated[int, Field(description="Places that only their last A may have back yet.")]
    free: Annotated[int, Field(description="Places that anybody may have.")]


class Sample(BaseModel):
    """Releases whose parties rest longer, so that their late calls are seen."""

    share: Annotated[float, Field(description="Of all releases.")]
    factor: Annotated[int, Field(description="So many times the quarantine they rest.")]
    of_resting: Annotated[float, Field(description="Which part of all that rests does so for the sample alone.")]


class Exposure(BaseModel):
    """Calls that came later than a rest, for a million orders: what can reach a stranger at most."""

    rest_s: Annotated[int, Field(description="The rest: the app's quarantine.")]
    releases: Annotated[int, Field(description="Releases of the sample that were followed to the end.")]
    calls: Annotated[int, Field(description="Calls later than the rest among these.")]
    seen_s: Annotated[int, Field(description="How long each was followed.")]
    per_million: float
    low: Annotated[float, Field(description="Lower limit, with 95 % confidence both ways.")]
    high: Annotated[float, Field(description="Upper limit.")]


class Pool(BaseModel):
    """How full a pool is; figures are at most 10 s old."""

    name: str
    area_code: str
    state: Literal["open", "closed"]
    numbers: Annotated[int, Field(description="X numbers of the pool, whatever their state.")]
    open: Annotated[int, Field(description="X numbers that may be handed out.")]
    cap: Annotated[int, Field(description="Most live lines on one X.")]
    live: Annotated[int, Field(description="Lines that hold an X now.")]
    resting: Annotated[int, Field(description="(party, X) pairs that may not be used for another counterpart yet.")]
    headroom: Annotated[int, Field(description="Lines that the open X could carry besides: open * cap - live.")]
    x_in_use: Annotated[int, Field(description="X numbers that carry a line.")]
    x_needed: Annotated[
        int, Field(description="The fewest X with which any choice could serve what is live and rests.")
    ]
    refusals: Annotated[
        dict[str, int],
        Field(description="Binds that found nothing here, by main reason, since the answering process began."),
    ]
    sample: Sample
    exposure: Annotated[Exposure | None, Field(description="null: no release was followed to the end yet.")]
    as_of: Annotated[Time, Field(description="When live, resting, x_in_use and x_needed were counted.")]
    places: Annotated[
        PlacesOfPool | None,
        Field(description="Only where an X, or an extension, goes to one party."),
    ] = None


class Stopped(BaseModel):
    """A call was hung up."""

    stopped: Literal[True]


class Located(BaseModel):
    """Where a recording can be fetched, by whoever has the address."""

    file_name: str
    record_domain: str
    url: str


class Pools(BaseModel):
    """The pools of the app, by name."""

    items: list[Pool]


class Event(BaseModel):
    """An event with CloudEvents attribute names."""

    specversion: Literal["1.0"]
    id: Annotated[str, Field(pattern="^evt_[0-9a-v]{20}$", description="Unique, sorts as the feed does, is a cursor.")]
    type: Annotated[str, Field(examples=["binding.active"])]
    source: Annotated[str, Field(description="The app.", examples=["/apps/demo-axb"])]
    subject: Annotated[str | None, Field(pattern="^bnd_[0-9a-v]{32}$", description="The binding; null = none.")]
    time: Time
    datacontenttype: Literal["application/json"]
    data: Annotated[dict[str, Any], Field(description="What does not apply is absent.")]


class Events(BaseModel):
    """Events in order, each binding's in the order in which it happened."""

    items: list[Event]
    next_after: Annotated[str, Field(description="What to send as after next, also when items is empty.")]
    more: Annotated[bool, Field(description="There is more to read at once.")]


class Reach(BaseModel):
    """Whom somebody reaches who dials an X, or why nobody."""

    reached: Annotated[bool | None, Field(description="Null: only the platform knows, or it is not kept; see why.")]
    why: Annotated[Why, Field(description="Stable.")]
    detail: Annotated[str, Field(description="The same for people.")]
    x: str
    caller: Masked
    digits: str | None
    at: Time | None
    role: Annotated[Literal["a", "b", "callee"] | None, Field(description="Who is reached; callee: the temporary one.")]
    party: Annotated[
        str | None, Field(pattern=_MASKED, description="Whom; masked, unless the request asked to reveal it.")
    ]
    bindings: Annotated[list[str], Field(description="The bindings by which it is so.")]


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"]


class Readiness(BaseModel):
    """Whether to send requests here; with ?verbose, each condition."""

    status: Literal["ok", "not_ready"]
    required: Annotated[dict[str, bool], Field(description="With ?verbose: what decides.")] = {}
    shown: Annotated[dict[str, bool], Field(description="With ?verbose: what is only told.")] = {}


class Version(BaseModel):
    """The version of the package."""

    version: str

"""What an operator may give, with units and ranges; every mistake is named by its place, all at once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from ipaddress import ip_network
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, ValidationError

from broker.domain import tone
from broker.domain.phone import FORM, PhoneNumber, is_e164
from broker.domain.reach import moment
from broker.errors import FieldError, Invalid
from broker.log import scrubbed

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_AREA = re.compile(r"0[0-9]{2,3}")
_NUMBER = re.compile(r"[+][0-9]{3,30}")
_CALL = re.compile(r"[0-9a-f]{32}[.][1-9][0-9]{0,8}")
_PRINTABLE = re.compile(r"[\x21-\x7e]+")

#: Range of a lifetime that ends. A year; the platform's own, where shorter, is another matter.
SHORTEST_TTL_S = 60
LONGEST_TTL_S = 31_536_000

M = TypeVar("M", bound=BaseModel)


def _name(value: str) -> str:
    if _NAME.fullmatch(value) is None:
        raise ValueError("must be 1 to 63 of a-z, 0-9, _ and -, beginning with a letter or digit")
    return value


def _area(value: str) -> str:
    if _AREA.fullmatch(value) is None:
        raise ValueError("must be an area code in domestic form, as 0755")
    return value


def _number(value: str) -> str:
    if _NUMBER.fullmatch(value) is None:
        raise ValueError("must be '+', country code and number, digits only, as +8617010000001")
    return value


def _call_id(value: str) -> str:
    if _CALL.fullmatch(value) is None:
        raise ValueError("must be a call's id: 32 characters of 0-9 and a-f, a point, and its number")
    return value


def _address(value: str) -> str:
    try:
        parts = urlsplit(value)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or _PRINTABLE.fullmatch(value) is None or parts.query or parts.fragment or parts.username is not None:
        raise ValueError("must be an address as https://rtcpns.example.com:443, without query")
    return value


def _printable(value: str) -> str:
    if _PRINTABLE.fullmatch(value) is None:
        raise ValueError("must be printable ASCII without blanks")
    return value


def _ttl(value: int) -> int:
    if value != 0 and not SHORTEST_TTL_S <= value <= LONGEST_TTL_S:
        raise ValueError(f"must be 0 (no expiry) or {SHORTEST_TTL_S} to {LONGEST_TTL_S} seconds")
    return value


def _words(value: str) -> str:
    if not value.isprintable():
        raise ValueError("must be printable text")
    return value


def _lines(value: str) -> str:
    _words(value.replace("\n", " "))
    return value


def _tone_name(value: str) -> str:
    if not tone.is_name(value):
        raise ValueError(tone.NAME_RULE)
    return value


def _party(value: str) -> str:
    if not is_e164(value):
        raise ValueError(FORM)
    return value


def _networks(value: str) -> str:
    try:
        listed = [str(ip_network(part.strip())) for part in value.split(",")]
    except ValueError:
        raise ValueError("must be networks as 203.0.113.0/24,2001:db8::/32") from None
    return ",".join(listed)


Name = Annotated[str, AfterValidator(_name)]
Area = Annotated[str, AfterValidator(_area)]
Address = Annotated[str, Field(max_length=500), AfterValidator(_address)]
Secret = Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_printable)]
Rate = Annotated[float, Field(gt=0, le=100_000, allow_inf_nan=False)]
Burst = Annotated[int, Field(ge=1, le=100_000)]
Ttl = Annotated[int, AfterValidator(_ttl)]
MaxTtl = Annotated[int, Field(ge=SHORTEST_TTL_S, le=LONGEST_TTL_S)]
Quarantine = Annotated[int, Field(ge=1, le=31_536_000)]
Cap = Annotated[int, Field(ge=1, le=5000)]
Policy = Literal["pack", "sticky", "avoid_sticky", "spread"]
Digits = Annotated[int, Field(ge=1, le=4)]
PerX = Annotated[int, Field(ge=1, le=9999)]
Days = Annotated[int, Field(ge=1, le=3650)]
Heat = Annotated[int, Field(ge=1, le=100_000)]
Note = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_words)]
Script = Annotated[str, Field(min_length=1, max_length=2000), AfterValidator(_lines)]
Weight = Annotated[int, Field(ge=1, le=1000)]
Withdrawal = Annotated[int, Field(ge=60, le=2_592_000)]
AfterCall = Annotated[int, Field(ge=1, le=2_592_000)]
Life = Annotated[int, Field(ge=60, le=31_536_000)]
Grace = Annotated[int, Field(ge=0, le=86_400)]
CallBack = Annotated[int, Field(ge=0, le=259_200)]
SampleShare = Annotated[float, Field(ge=0, le=0.1, allow_inf_nan=False)]
SampleFactor = Annotated[int, Field(ge=2, le=100)]
Intercepted = Annotated[int, Field(ge=0, le=100)]
ComplaintBudget = Annotated[int, Field(ge=0, le=10_000)]
ComplaintDays = Annotated[int, Field(ge=1, le=365)]
AnswerFloor = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
LowPercent = Annotated[int, Field(ge=1, le=90)]
Risk = Annotated[float, Field(ge=0.01, le=1_000_000, allow_inf_nan=False, strict=False)]
LiveBindings = Annotated[int, Field(ge=1, le=2_147_483_647)]
Scope = Literal["bind", "read", "reveal", "operate"]
Reason = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_words)]
Number = Annotated[str, AfterValidator(_number)]
CallId = Annotated[str, AfterValidator(_call_id)]
NumberState = Literal["open", "frozen", "draining", "suspended", "retired", "moved"]
ToneState = Literal["draft", "submitted", "approved", "rejected"]


class Given(BaseModel):
    """Strict, frozen, nothing beside its fields."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Profile(Given):
    """What may be changed of an app, its secret apart. Null: no limit, not known, or not said."""

    base_url: Address = ""
    rate: Rate | None = None
    burst: Burst = 1
    bind_rate: Rate | None = None
    unbind_rate: Rate | None = None
    modify_rate: Rate | None = None
    query_rate: Rate | None = None
    default_ttl_s: Ttl = 86_400
    max_ttl_s: MaxTtl = LONGEST_TTL_S
    quarantine_s: Quarantine = 14_400
    cap: Cap = 500
    policy: Policy = "pack"
    heat: Heat | None = None
    recording: bool = True
    sms: bool = True
    extension_digits: Digits = 4
    extensions_per_x: PerX = 200
    owner: Note | None = None
    recreate: bool = False
    retention_days: Days = 90
    event_days: Annotated[int, Field(ge=0, le=90)] = 7
    requests_per_s: Rate | None = None
    max_live_bindings: LiveBindings | None = None
    withdraw_after_s: Withdrawal | None = None
    end_after_call_s: AfterCall | None = None
    renew_by_call_s: Life | None = None
    longest_life_s: Life | None = None
    release_grace_s: Grace = 0
    call_back_s: CallBack = 0
    sample_share: SampleShare = 0.01
    sample_factor: SampleFactor = 7
    unreachable_after: Intercepted = 3
    complaint_budget: ComplaintBudget | None = None
    complaint_days: ComplaintDays = 30
    answer_floor: AnswerFloor | None = None
    over_budget: Literal["report", "freeze"] = "report"
    event_url: Address | None = None
    cdr_url: Address | None = None
    sms_url: Address | None = None
    push_wsse: bool = True
    push_from: Annotated[str, Field(max_length=1000), AfterValidator(_networks)] | None = None
    close_tone: Annotated[str, AfterValidator(_tone_name)] | None = None
    channel: Note | None = None
    industry: Note | None = None
    call_script: Script | None = None


class NewApp(Profile):
    """An app to be created. ``rate`` is platform calls a second, ``heat`` calls an hour on one X."""

    name: Name
    mode: Literal["axb", "ax", "axe", "axyb", "x"] = "axb"
    app_key: Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_printable)]
    secret: Secret = Field(repr=False)
    base_url: Address
    auth_scheme: Literal["aksk", "wsse"] = "aksk"
    shadow: bool = False


class AppChange(Profile):
    """What to change of an app: what is not given stays as it is."""

    secret: Secret = Field("", repr=False)


class Staged(Given):
    """A secret that waits for its promotion."""

    secret: Secret = Field(repr=False)


class Question(Given):
    """Which secret an app is to be asked with."""

    staged: bool = False


class Why(Given):
    """A reason that people read later."""

    reason: Reason | None = None


class CallerChange(Given):
    """What to change of an order system: what is not given stays as it is. Null limits: none."""

    weight: Weight = 1
    requests_per_s: Rate | None = None
    max_live_bindings: LiveBindings | None = None


class NewCaller(CallerChange):
    """An order system."""

    name: Name


class NewKey(Given):
    """A key's scopes."""

    scopes: Annotated[list[Scope], Field(min_length=1)] = ["bind", "read"]


class PoolChange(Given):
    """What to change of a pool: what is not given stays as it is. No ``low_percent``: nobody is told how full it is."""

    routing: Literal["pair", "one"] = "pair"
    typo_safe: bool = False
    low_percent: LowPercent | None = 10


class Cooldown(Given):
    """The risk that a rest is to be proposed for: calls that reach a stranger, for a million orders."""

    risk: Risk = 100.0


class NewPool(PoolChange):
    """A pool to be created. ``routing`` matters in mode X only, ``typo_safe`` in mode AXE only."""

    name: Name
    area_code: Area


class Numbers(Given):
    """Numbers of one app, and why."""

    numbers: Annotated[list[Number], Field(min_length=1, max_length=100_000)]
    reason: Reason | None = None


class Complaint(Given):
    """A number that somebody complained of, and why."""

    number: Number
    reason: Reason | None = None


class Closing(Numbers):
    """Numbers to be handed out no more; ``evacuate``: what is bound on them moves to others."""

    evacuate: bool = False


class Move(Given):
    """A number and the pool that it goes to."""

    number: Number
    to: Name


class DriftPolicy(Given):
    """What is to be made of differences between the platform and our books; absent = as it is."""

    unknown: Literal["report", "unbind", "adopt"] | None = None
    absent: Literal["report", "rebind", "end"] | None = None
    differing: Literal["report", "repair"] | None = None
    every_s: Annotated[int, Field(ge=0, le=2_592_000)] | None = None
    caller: Name | None = None


class CallFilter(Given):
    """Which of the calls that keep failing to list."""

    state: Literal["dead", "failing", "all"] = "dead"
    limit: Annotated[int, Field(ge=1, le=10_000)] = 100


class Retry(Given):
    """Dead calls to be tried again; all of the app's if none are named."""

    calls: Annotated[list[CallId], Field(min_length=1, max_length=1000)] | None = None


class Discard(Given):
    """Dead calls to be given up, and why."""

    calls: Annotated[list[CallId], Field(min_length=1, max_length=1000)]
    reason: Reason


class Clear(Given):
    """A number whose bindings are to end."""

    number: Number


class ImportLine(Given):
    """A number to be imported; ``area_code``, where given, must be its pool's."""

    number: Number
    pool: Name
    area_code: Area | None = None
    carrier: Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_words)] | None = None
    rent: Annotated[Decimal, Field(ge=0, max_digits=12, decimal_places=2, strict=False)] | None = None


class Evacuated(Given):
    """Of which number the evacuation is to be shown; null: all that are under way."""

    number: Number | None = None


class NumberFilter(Given):
    """Which numbers to list."""

    pool: Name | None = None
    state: NumberState | None = None


class NewTone(Given):
    """A voice file's name, and whether another kind of wav is to be made into what the platform takes."""

    name: Annotated[str, AfterValidator(_tone_name)]
    convert: bool = False


class ToneFilter(Given):
    """Which tones to list."""

    state: ToneState | None = None


class Rejection(Given):
    """What the platform's reviewers said."""

    reason: Reason


class BindingFilter(Given):
    """Which bindings to list."""

    order_id: Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_words)] | None = None
    x: Number | None = None
    state: Literal["pending", "active", "releasing", "released", "failed"] | None = None
    party: Annotated[str, AfterValidator(_party)] | None = None
    limit: Annotated[int, Field(ge=1, le=10_000)] = 50


class NoticeFilter(Given):
    """Which notifications to list."""

    state: Literal["new", "done", "unreadable", "stuck"] | None = None
    limit: Annotated[int, Field(ge=1, le=10_000)] = 50


def _phone(value: object) -> PhoneNumber:
    if not isinstance(value, str):
        raise ValueError(FORM)  # noqa: TRY004 - pydantic reports ValueError as a field error
    return PhoneNumber(value)


class ReachAsk(Given):
    """Who dials what, and when."""

    x: Number
    caller: Annotated[PhoneNumber, PlainValidator(_phone)]
    digits: Annotated[str, Field(pattern=r"^[0-9]{1,4}$")] | None = None
    at: Annotated[datetime, PlainValidator(lambda value: moment(str(value)))] | None = None


class ExportFilter(Given):
    """Of what the platform told, what is wanted."""

    since: Annotated[datetime, PlainValidator(lambda value: moment(str(value)))] | None = None
    until: Annotated[datetime, PlainValidator(lambda value: moment(str(value)))] | None = None
    x: Number | None = None
    order_id: Annotated[str, Field(min_length=1, max_length=64)] | None = None


def read(model: type[M], given: object) -> M:
    """Return what was given.

    Raises:
        Invalid: naming every bad field.
    """
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise Invalid("Some fields are wrong; see errors.", errors=mistakes(error)) from None


def mistakes(error: ValidationError, at: str = "") -> tuple[FieldError, ...]:
    """Return every mistake with its JSON Pointer under ``at``; nothing of what was given is repeated."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return tuple(FieldError(at + _pointer(detail["loc"]), _said(detail)) for detail in found)


def _pointer(loc: tuple[int | str, ...]) -> str:
    return "".join("/" + scrubbed(str(part)).replace("~", "~0").replace("/", "~1") for part in loc)


def _said(detail: Mapping[str, Any]) -> str:
    if detail["type"] == "extra_forbidden":
        return "is not a field of this request"
    return str(detail["msg"]).removeprefix("Value error, ")

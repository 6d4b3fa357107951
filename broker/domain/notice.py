"""What the platform's notifications say (contract section 6), read as leniently as their senders write.

A body is taken apart into the things that it tells of, and each keeps a body of its own: read again, it gives the same
thing with the same identity, however the platform packs it the next time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from typing import Any, Final
from uuid import UUID

import orjson

#: The ends of the paths that the platform pushes to. What a push is about shows in its body, wherever it comes in.
PUSH_KINDS: Final = ("events", "cdr", "sms", "sms-control", "number-status")
_EVENTS: Final = frozenset({"callin", "collectInfo", "callout", "alerting", "answer", "disconnect"})
#: Our mark in ``userData``: the line, and the attempt behind a dot.
_MARK: Final = re.compile(r"([0-9a-f]{32})(\.[0-9]+){0,2}")
_STAMP: Final = re.compile(r"_([0-9]{14})(?:@|$)")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(2100, 1, 1, tzinfo=UTC)
_INT: Final = 2**31
_MOST_CDRS, _MOST_NUMBERS = 50, 100
_LONGEST: Final = 256


@dataclass(frozen=True, slots=True)
class CallEvent:
    """A step of a call. ``x`` is known where the platform says which number was dialled."""

    at: datetime
    type: str
    session: str = field(repr=False)
    caller: str | None = field(default=None, repr=False)
    callee: str | None = field(default=None, repr=False)
    x: str | None = None
    subscription: str | None = None
    mark: UUID | None = None
    digits: str | None = None
    state_code: int | None = None
    released_by: int | None = None
    question: bool = False

    kind = "event"

    @property
    def identity(self) -> tuple[str, ...]:
        """What tells it from every other one."""
        return ("event", self.session, self.type, self.at.isoformat())


@dataclass(frozen=True, slots=True)
class Cdr:
    """A call detail record; ``at`` is its end or the best time it has."""

    at: datetime
    icid: str | None = field(repr=False)
    session: str | None = field(repr=False)
    x: str | None
    caller: str | None = field(repr=False)
    callee: str | None = field(repr=False)
    subscription: str | None
    mark: UUID | None
    digits: str | None
    direction: int | None
    call_in_at: datetime | None
    forward_at: datetime | None
    ringing_at: datetime | None
    answered_at: datetime | None
    ended_at: datetime | None
    release_code: int | None
    q850: int | None
    sip: int | None
    released_by: int | None
    recorded: bool
    record_name: str | None = field(repr=False)
    record_domain: str | None
    record_at: datetime | None

    kind = "cdr"
    question = False

    @property
    def identity(self) -> tuple[str, ...]:
        """What tells it from every other one."""
        if self.icid is not None:
            return ("cdr", "icid", self.icid)
        return ("cdr", "session", self.session or "", str(self.call_in_at), str(self.ended_at))

    @property
    def talk_s(self) -> int:
        """Seconds from the answer to the end."""
        if self.answered_at is None or self.ended_at is None:
            return 0
        return min(max(int((self.ended_at - self.answered_at).total_seconds()), 0), _INT - 1)


@dataclass(frozen=True, slots=True)
class Sms:
    """A short message: what became of it, or, as a question, whether it is to be forwarded."""

    at: datetime
    identifier: str = field(repr=False)
    question: bool
    x: str
    sender: str = field(repr=False)
    receiver: str | None = field(repr=False)
    subscription: str | None
    mark: UUID | None
    content: str | None = field(repr=False)
    result: int
    segments: int | None
    direction: int | None

    kind = "sms"
    digits = None

    @property
    def caller(self) -> str:
        """Who sent it."""
        return self.sender

    @property
    def identity(self) -> tuple[str, ...]:
        """What tells it from every other one."""
        return ("sms", self.identifier, "Block" if self.question else "Notify")


@dataclass(frozen=True, slots=True)
class NumberStatus:
    """The state of an X; it carries no time, so that of its signature counts."""

    at: datetime
    x: str
    status: str
    cause: str | None

    kind = "status"
    question = False

    @property
    def identity(self) -> tuple[str, ...]:
        """What tells it from every other one."""
        return ("status", self.x, self.status, self.cause or "", self.at.isoformat())


Notice = CallEvent | Cdr | Sms | NumberStatus


@dataclass(frozen=True, slots=True)
class Told:
    """One thing of a notification, with a body that tells of it alone; ``notice`` is None where it is unreadable."""

    raw: bytes = field(repr=False)
    notice: Notice | None


def read(body: bytes, signed_at: datetime) -> list[Told]:
    """Return everything that a notification tells of; never empty, and nothing of the body is lost."""
    try:
        told = orjson.loads(body.removeprefix(b"\xef\xbb\xbf").strip())
    except orjson.JSONDecodeError:
        return [Told(body, None)]
    try:
        found = list(_taken_apart(told, signed_at)) if isinstance(told, dict) else []
    except RecursionError:  # pragma: no cover - orjson's own limit of nesting is lower
        found = []
    return found or [Told(body, None)]


def _taken_apart(told: dict[str, Any], signed_at: datetime) -> Iterator[Told]:
    kind = _word(told.get("eventType"))
    if "smsEvent" in told:
        for one in _objects(told["smsEvent"]):
            yield Told(_packed({**told, "smsEvent": one}), _sms(one))
    elif kind == "fee" or "feeLst" in told:
        for one in _objects(told.get("feeLst")):
            yield Told(_packed({"eventType": "fee", "feeLst": [one]}), _cdr(one))
    elif kind == "numStatus" or "numInfo" in told:
        for one in _objects(told.get("numInfo"), _MOST_NUMBERS):
            yield Told(_packed({"eventType": "numStatus", "numInfo": [one]}), _status(one, signed_at))
    elif "statusInfo" in told:
        for one in _objects(told["statusInfo"]):
            yield Told(_packed({"eventType": kind, "statusInfo": one}), _event(kind, one))


def _event(kind: str | None, told: object) -> CallEvent | None:
    if not isinstance(told, dict):
        return None
    at, session = _time(told.get("timestamp")), _text(told.get("sessionId"))
    if kind not in _EVENTS or at is None or session is None:
        return None
    called = _text(told.get("called"))
    entry = kind == "callin"
    return CallEvent(
        at=at,
        type=kind,
        session=session,
        caller=_text(told.get("caller"), 64),
        callee=None if entry else called,
        x=called if entry else None,
        subscription=_text(told.get("subscriptionId"), 64),
        mark=_mark(told.get("userData")),
        digits=_text(told.get("digitInfo"), 32) or _text(told.get("extendNum"), 32),
        state_code=_number(told.get("stateCode")),
        released_by=_small(told.get("callRelDirection")),
        question=entry and _word(told.get("notifyMode")) == "Block",
    )


#: The platform's names of what a record says.
CDR_NAMES: Final = (
    "icid", "sessionId", "bindNum", "callerNum", "fwdDstNum", "subscriptionId", "userData", "extendNum", "direction",
    "callInTime", "fwdStartTime", "fwdAlertingTime", "fwdAnswerTime", "callEndTime", "failTime", "ulFailReason",
    "fwdUnaswRsn", "sipStatusCode", "callRelDirection", "recordFlag", "recordObjectName", "recordDomain",
    "recordStartTime",
)  # fmt: skip
#: Those that are times.
_CDR_TIMES: Final = (
    "callInTime", "fwdStartTime", "fwdAlertingTime", "fwdAnswerTime", "callEndTime", "failTime", "recordStartTime",
)  # fmt: skip


def zoned(record: Mapping[str, Any], zone: tzinfo) -> dict[str, Any]:
    """Return a record whose times without a zone are of ``zone``; one that comes twice in autumn is the first."""
    return {name: _zoned(value, zone) if name in _CDR_TIMES else value for name, value in record.items()}


def _zoned(given: object, zone: tzinfo) -> object:
    word = _word(given)
    try:
        at = datetime.fromisoformat(word or "")
        return at.replace(tzinfo=zone).astimezone(UTC).isoformat() if at.tzinfo is None else given
    except (ValueError, OverflowError):
        return given  # no time in any zone


def _cdr(told: object) -> Cdr | None:
    if not isinstance(told, dict):
        return None
    icid, session = _text(told.get("icid"), 64), _text(told.get("sessionId"))
    if icid is None and session is None:
        return None
    ended, failed, began = (_time(told.get(name)) for name in ("callEndTime", "failTime", "callInTime"))
    return Cdr(
        # A record without times exists (contract 6.5): the same place must be found for it whenever it comes.
        at=ended or failed or began or _stamp(session) or _EPOCH,
        icid=icid,
        session=session,
        x=_text(told.get("bindNum"), 64),
        caller=_text(told.get("callerNum"), 64),
        callee=_text(told.get("fwdDstNum"), 64),
        subscription=_text(told.get("subscriptionId"), 64),
        mark=_mark(told.get("userData")),
        digits=_text(told.get("extendNum"), 32),
        direction=_small(told.get("direction")),
        call_in_at=began,
        forward_at=_time(told.get("fwdStartTime")),
        ringing_at=_time(told.get("fwdAlertingTime")),
        answered_at=_time(told.get("fwdAnswerTime")),
        ended_at=ended or failed,
        release_code=_number(told.get("ulFailReason")),
        q850=_number(told.get("fwdUnaswRsn")),
        sip=_number(told.get("sipStatusCode")),
        released_by=_small(told.get("callRelDirection")),
        recorded=_word(told.get("recordFlag")) in {"1", "true", "True"},
        record_name=_text(told.get("recordObjectName")),
        record_domain=_text(told.get("recordDomain")),
        record_at=_time(told.get("recordStartTime")),
    )


def _sms(told: object) -> Sms | None:
    if not isinstance(told, dict):
        return None
    at, identifier = _time(told.get("timeStamp")), _text(told.get("smsIdentifier"), 64)
    mode, x, sender = (_word(told.get(name)) for name in ("notificationMode", "virtualNumber", "calling"))
    if at is None or identifier is None or mode not in {"Notify", "Block"} or x is None or sender is None:
        return None
    extras = told.get("extInfo")
    paras = {
        _word(one.get("key")): one.get("value")
        for one in _objects(extras.get("extParas") if isinstance(extras, dict) else extras)
        if isinstance(one, dict)
    }
    return Sms(
        at=at,
        identifier=identifier,
        question=mode == "Block",
        x=x[:64],
        sender=sender[:64],
        receiver=_text(told.get("called"), 64),
        subscription=_text(told.get("subscriptionId"), 64),
        mark=_mark(told.get("userData")),
        content=_text(told.get("smsContent"), 2000),
        result=_number(told.get("sendResult")) or 0,
        segments=_number(paras.get("splitNum")),
        direction=_small(paras.get("direction")),
    )


def _status(told: object, signed_at: datetime) -> NumberStatus | None:
    if not isinstance(told, dict):
        return None
    x, status = _text(told.get("number"), 64), _text(told.get("status"), 8)
    return NumberStatus(signed_at, x, status, _text(told.get("cause"), 8)) if x and status else None


# -- what a field may hold -----------------------------------------------------------------------------------------


def _objects(given: object, most: int = _MOST_CDRS) -> list[object]:
    """Return the elements of an array, or the one object that stands in its place; the surplus is one unreadable."""
    if not isinstance(given, list):
        return [given] if given is not None else []
    return [*given[:most], given[most:]] if len(given) > most else given


def _word(given: object) -> str | None:
    """Return a text without blanks around it, also of what is a number or a flag; ``None`` if there is none."""
    if isinstance(given, bool):
        return "true" if given else "false"
    if isinstance(given, int | str):
        # PostgreSQL's texts hold no zero bytes.
        return str(given).replace("\x00", "").strip() or None
    return None


def _text(given: object, longest: int = _LONGEST) -> str | None:
    """Return a text that is not longer than a field may be; the rest of a longer one is in the body that is kept."""
    word = _word(given)
    return word[:longest] if word is not None else None


def _number(given: object) -> int | None:
    word = _word(given)
    if word is None or len(word) > 11 or not word.lstrip("+-").isdecimal() or not word.isascii():  # noqa: PLR2004 - 32 bits
        return None
    try:
        number = int(word)
    except ValueError:
        return None
    return number if -_INT <= number < _INT else None


def _small(given: object) -> int | None:
    number = _number(given)
    return number if number is not None and -1000 <= number <= 1000 else None  # noqa: PLR2004 - a smallint's worth


def _time(given: object) -> datetime | None:
    """Return a time; what has no zone is UTC (contract 6.4)."""
    word = _word(given)
    if word is None or not 19 <= len(word) <= 32:  # noqa: PLR2004 - from seconds to fractions with a zone
        return None
    try:
        at = datetime.fromisoformat(word)
        at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    # Whole milliseconds: as many as an id made of it holds.
    return at.replace(microsecond=at.microsecond // 1000 * 1000) if _EPOCH <= at < _LATEST else None


def _stamp(session: str | None) -> datetime | None:
    """Return the time that one of the two shapes of a session id holds."""
    found = _STAMP.search(session or "")
    if found is None:
        return None
    try:
        at = datetime.strptime(found[1], "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return None
    return at if _EPOCH <= at < _LATEST else None


def _mark(given: object) -> UUID | None:
    found = _MARK.fullmatch(_word(given) or "")
    return UUID(found[1]) if found is not None else None


def _packed(told: Mapping[str, Any]) -> bytes:
    return orjson.dumps(told)

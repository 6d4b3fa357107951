"""What the drivers of all modes share: one application's transport, signatures, clock, and the interfaces of calls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import Final, NamedTuple
from urllib.parse import quote

import orjson

from broker.platform.huawei.codes import Operation, judge
from broker.platform.huawei.http import CallError, HttpAnswer, HttpClient, HttpOptions
from broker.platform.huawei.origin import Dialer, Origin, TlsOptions
from broker.platform.huawei.reading import Fields, read_address, read_code, read_detail, read_object, scrub
from broker.platform.huawei.request import RequestWriter, Scheme
from broker.platform.huawei.writing import filled
from broker.platform.plain import Plain
from broker.platform.protocol import Answer, Permit, PlatformLine, Verdict

STOP_PATH: Final = "/rest/httpsessions/callStop/v2.0"
RECORDING_PATH: Final = "/rest/provision/voice/record/v1.0"
_NOTHING: Final[Fields] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class AppAccess:
    """One application of the platform: its key and secret, its access address (a path prefix is kept), its scheme."""

    app_key: str
    secret: str = field(repr=False)
    base_url: str
    scheme: Scheme = Scheme.AKSK
    tls: TlsOptions | None = None


class Reading(NamedTuple):
    """What became of a call, before its bindings are looked at; without ``fields`` when no whole answer came."""

    verdict: Verdict
    http: int | None = None
    code: str | None = None
    detail: str = ""
    date_skew_s: float | None = None
    fields: Fields = _NOTHING
    location: str = ""

    @property
    def done(self) -> bool:
        """Whether there is something to read in ``fields``."""
        return self.verdict is Verdict.DONE

    def answer(self, bindings: tuple[PlatformLine, ...] = (), total: int = 0) -> Answer:
        """Return the outcome as it is."""
        return Answer(self.verdict, self.http, self.code, self.detail, bindings, total, self.date_skew_s)

    def made(self, line: PlatformLine | None, *, lacking: str = "subscriptionId") -> Answer:
        """Return a bind's outcome; a success that does not name its binding may still have bound."""
        if not self.done:
            return self.answer()
        return self.doubt(f"success without a {lacking}") if line is None else self.answer((line,), 1)

    def listed(self, lines: tuple[PlatformLine, ...] | None, total: int = 0, earlier: int = 0) -> Answer:
        """Return a query's outcome: a page's lines, of ``total`` in all and ``earlier`` on the pages before.

        Absence must have been said: a list that cannot be read, or lacks what was counted, is no proof of it.
        """
        if not self.done:
            return self.answer()
        if lines is None:
            return self.doubt("success without a readable list")
        if not lines and total > earlier:
            return self.doubt("a count without its list")
        if not lines and total == 0:
            return Answer(Verdict.NOT_FOUND, self.http, self.code, self.detail)
        return self.answer(lines, max(total, len(lines)))

    def doubt(self, detail: str) -> Answer:
        """Withdraw a success that does not hold what it must."""
        return Answer(Verdict.UNKNOWN, self.http, self.code, detail)


class HuaweiApp(Plain):
    """What a mode's driver builds on. Raises ``ValueError`` for arguments that no request can be made of, before I/O.

    ``now`` returns unix time; ``Created`` is made from it plus the clock offset. Nothing is retried here.
    """

    def __init__(
        self,
        access: AppAccess,
        http: HttpOptions | None = None,
        *,
        now: Callable[[], float] = time.time,
        clock_offset_s: float = 0.0,
    ) -> None:
        options = http or HttpOptions()
        origin = Origin.parse(access.base_url)
        self._app_key = access.app_key
        self._now = now
        self._clock_offset_s = clock_offset_s
        self._http = HttpClient(Dialer(origin, access.tls), options)
        self._writer = RequestWriter(
            host=origin.host_header,
            prefix=origin.prefix,
            app_key=access.app_key,
            secret=access.secret,
            scheme=Scheme(access.scheme),
            keep_alive=options.keep_alive,
            now=lambda: self._now() + self._clock_offset_s,
        )

    async def stop_call(self, session_id: str, *, permit: Permit, timeout_s: float) -> Answer:
        """Hang a call up (contract 9.2)."""
        body = orjson.dumps({"sessionid": filled("session_id", session_id), "signal": "call_stop"})
        reading = await self._ask(Operation.STOP, lambda: self._writer.post(STOP_PATH, body), permit, timeout_s)
        return reading.answer()

    async def recording(self, file_name: str, domain: str, *, permit: Permit, timeout_s: float) -> Answer:
        """Ask for a recording's address (contract 9.1); it is not followed."""
        name, place = quote(filled("file_name", file_name), safe=""), quote(filled("domain", domain), safe="")
        query = f"fileName={name}&recordDomain={place}"
        reading = await self._ask(
            Operation.RECORDING, lambda: self._writer.get(RECORDING_PATH, query), permit, timeout_s
        )
        if not reading.done:
            return reading.answer()
        address = read_address(reading.location)
        if not address:
            return reading.doubt("success without an address")
        return Answer(Verdict.DONE, reading.http, reading.code, reading.detail, location=address)

    def set_clock_offset(self, seconds: float) -> None:
        """Add ``seconds`` to our clock for ``Created``, from the next call on; ``Answer.date_skew_s`` fits as it is."""
        self._clock_offset_s = seconds

    async def close(self) -> None:
        """Refuse new calls (``NOT_SENT``), let running ones end, close every connection."""
        await self._http.close()

    async def _ask(
        self, operation: Operation, compose: Callable[[], bytes], permit: Permit, timeout_s: float
    ) -> Reading:
        """Make one call and read its answer, or the lack of one; ``compose`` signs once a connection is there."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        try:
            got = await self._http.call(compose, permit=permit, deadline=deadline)
        except CallError as error:
            return Reading(Verdict.UNKNOWN if error.written else Verdict.NOT_SENT, detail=scrub(error.reason))
        return Reading(Verdict.WITHHELD, detail="withheld by the permit") if got is None else self._read(operation, got)

    def _read(self, operation: Operation, got: HttpAnswer) -> Reading:
        fields = read_object(got.body) or {}
        code = read_code(fields)
        said = read_detail(fields)
        verdict, text = judge(operation, got.status, code, said)
        skew_s = self._skew(got.date) if verdict is Verdict.CLOCK_SKEW else None
        return Reading(verdict, got.status, code, said or text, skew_s, fields, got.location)

    def _skew(self, date: str) -> float | None:
        """Return the platform's clock minus ``now``, without the offset; the header has whole seconds."""
        try:
            then = parsedate_to_datetime(date)
            return (then if then.tzinfo else then.replace(tzinfo=UTC)).timestamp() - self._now()
        except (ValueError, OverflowError, OSError):
            return None

"""The driver: :class:`broker.platform.protocol.Platform` over Huawei Cloud PrivateNumber's AXB mode (contract 2)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import NamedTuple

from broker.platform.huawei import codec
from broker.platform.huawei.codes import Operation, judge
from broker.platform.huawei.http import CallError, HttpAnswer, HttpClient, HttpOptions
from broker.platform.huawei.origin import Dialer, Origin, TlsOptions
from broker.platform.huawei.request import RequestWriter, Scheme
from broker.platform.plain import Plain
from broker.platform.protocol import Answer, BindLine, ModifyLine, Permit, PlatformLine, Verdict


@dataclass(frozen=True, slots=True)
class AppAccess:
    """One application of the platform: its key and secret, its access address (a path prefix is kept), its scheme."""

    app_key: str
    secret: str = field(repr=False)
    base_url: str
    scheme: Scheme = Scheme.AKSK
    tls: TlsOptions | None = None


class HuaweiAxb(Plain):
    """Implements ``Platform``. Raises ``ValueError`` for arguments that no request can be made of, before any I/O.

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
        self._now = now
        self._clock_offset_s = clock_offset_s
        self._http = HttpClient(Dialer(origin, access.tls), options)
        self._writer = RequestWriter(
            host=origin.host_header,
            path=origin.prefix + codec.AXB_PATH,
            app_key=access.app_key,
            secret=access.secret,
            scheme=Scheme(access.scheme),
            keep_alive=options.keep_alive,
            now=lambda: self._now() + self._clock_offset_s,
        )

    def set_clock_offset(self, seconds: float) -> None:
        """Add ``seconds`` to our clock for ``Created``, from the next call on; ``Answer.date_skew_s`` fits as it is."""
        self._clock_offset_s = seconds

    async def bind(self, request: BindLine, *, permit: Permit, timeout_s: float) -> Answer:
        """Create the binding (contract 2.1). ``bindings[0]`` holds what the answer echoes, X always."""
        body = codec.bind_body(request)
        got = await self._call(lambda: self._writer.post(body), permit, timeout_s)
        if isinstance(got, Answer):
            return got
        reading = self._read(Operation.BIND, got)
        if reading.verdict is not Verdict.DONE:
            return reading.answer()
        binding = codec.read_binding(reading.fields, x=request.x)
        if binding is None:
            return reading.doubt("success without a subscriptionId")
        return reading.answer((binding,), 1)

    async def modify(self, request: ModifyLine, *, permit: Permit, timeout_s: float) -> Answer:
        """Change that one binding (contract 2.3)."""
        body = codec.modify_body(request)
        got = await self._call(lambda: self._writer.put(body), permit, timeout_s)
        return got if isinstance(got, Answer) else self._read(Operation.MODIFY, got).answer()

    async def unbind(self, subscription_id: str, *, permit: Permit, timeout_s: float) -> Answer:
        """End that one binding (contract 2.2)."""
        query = codec.one_binding(subscription_id)
        got = await self._call(lambda: self._writer.delete(query), permit, timeout_s)
        return got if isinstance(got, Answer) else self._read(Operation.UNBIND, got).answer()

    async def query(
        self,
        *,
        x: str,
        a: str = "",
        b: str = "",
        extension: str = "",
        page: int = 1,
        permit: Permit,
        timeout_s: float,
    ) -> Answer:
        """List bindings on ``x`` (contract 2.4); a success with nothing in it is ``NOT_FOUND``."""
        del extension
        return await self._list(codec.bindings_on(x, a, b, page), permit, timeout_s, x=x, page=page)

    async def lookup(self, subscription_id: str, *, permit: Permit, timeout_s: float) -> Answer:
        """List the one binding with this id (contract 2.4)."""
        return await self._list(codec.one_binding(subscription_id), permit, timeout_s)

    async def close(self) -> None:
        """Refuse new calls (``NOT_SENT``), let running ones end, close every connection."""
        await self._http.close()

    async def _list(self, query: str, permit: Permit, timeout_s: float, *, x: str = "", page: int = 1) -> Answer:
        got = await self._call(lambda: self._writer.get(query), permit, timeout_s)
        if isinstance(got, Answer):
            return got
        reading = self._read(Operation.QUERY, got)
        return reading.answer() if reading.verdict is not Verdict.DONE else _with_list(reading, x, page)

    async def _call(self, compose: Callable[[], bytes], permit: Permit, timeout_s: float) -> HttpAnswer | Answer:
        deadline = asyncio.get_running_loop().time() + timeout_s
        try:
            got = await self._http.call(compose, permit=permit, deadline=deadline)
        except CallError as error:
            return Answer(Verdict.UNKNOWN if error.written else Verdict.NOT_SENT, detail=codec.scrub(error.reason))
        return Answer(Verdict.WITHHELD, detail="withheld by the permit") if got is None else got

    def _read(self, operation: Operation, got: HttpAnswer) -> _Reading:
        fields = codec.read_object(got.body) or {}
        code = codec.read_code(fields)
        said = codec.read_detail(fields)
        verdict, text = judge(operation, got.status, code, said)
        skew_s = self._skew(got.date) if verdict is Verdict.CLOCK_SKEW else None
        return _Reading(verdict, got.status, code, said or text, skew_s, fields)

    def _skew(self, date: str) -> float | None:
        """Return the platform's clock minus ``now``, without the offset; the header has whole seconds."""
        try:
            then = parsedate_to_datetime(date)
            return (then if then.tzinfo else then.replace(tzinfo=UTC)).timestamp() - self._now()
        except (ValueError, OverflowError, OSError):
            return None


class _Reading(NamedTuple):
    """What an HTTP answer says, before its bindings are looked at."""

    verdict: Verdict
    http: int
    code: str | None
    detail: str
    date_skew_s: float | None
    fields: codec.Fields

    def answer(self, bindings: tuple[PlatformLine, ...] = (), total: int = 0) -> Answer:
        return Answer(self.verdict, self.http, self.code, self.detail, bindings, total, self.date_skew_s)

    def doubt(self, detail: str) -> Answer:
        """Withdraw a success that does not hold what it must."""
        return Answer(Verdict.UNKNOWN, self.http, self.code, detail)


def _with_list(reading: _Reading, x: str, page: int) -> Answer:
    """Fill in a query's list, or withdraw the success where the list may be missing something."""
    bindings = codec.read_bindings(reading.fields, x=x)
    if bindings is None:
        return reading.doubt("success without a readable list")
    total = codec.read_count(reading.fields, "totalCount") or 0
    if not bindings and total > (page - 1) * codec.PAGE_SIZE:
        return reading.doubt("a count without its list")
    if not bindings and total == 0:
        return Answer(Verdict.NOT_FOUND, reading.http, reading.code, reading.detail)
    return reading.answer(bindings, max(total, len(bindings)))

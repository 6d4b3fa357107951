"""The platform's notifications over HTTP: ``POST /n/{app}/{kind}`` (contract 6.1 to 6.3)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final, Protocol

import orjson
import structlog
from aiohttp import web

from broker.domain.notice import PUSH_KINDS, CallEvent, Sms, Told, read
from broker.edge.push import BODY_BYTES, Answer, Push
from broker.errors import Unavailable
from broker.flows.notices import Notices, Whose
from broker.flows.questions import DISCARD, NO_ANSWER, Questions
from broker.platform.huawei.push import Doubt, Signer, doubt_of_age, signed_at
from broker.store.registry import App, Registry

log = structlog.get_logger()

_BODY_S: Final = 10.0
#: A notification is pushed again up to five hours later; a question is asked while somebody waits.
_NOTICE_AGE_S: Final = 6 * 3600.0
_QUESTION_AGE_S: Final = 60.0
_SKEW_S: Final = 300.0
#: An answer is given after the question was committed, or after so long.
_KEEP_S: Final = 0.1
_RETRY_S: Final = 60


class Counts(Protocol):
    """Where pushes are counted."""

    def pushed(self, kind: str, outcome: str, seconds: float) -> None:
        """Count one by the kind in its path and what became of it."""
        ...

    def asked(self, kind: str, answer: str) -> None:
        """Count a question by its answer."""
        ...


@dataclass(frozen=True, slots=True)
class _Door:
    """An app as its notifications come in."""

    app: App
    signer: Signer
    networks: tuple[IPv4Network | IPv6Network, ...]

    def admits(self, peer: str | None) -> bool:
        if not self.networks:
            return True
        try:
            address = ip_address(peer or "")
        except ValueError:
            return False
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self.networks)


class _Refused(Exception):
    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class Receiver:
    """Checks, keeps and answers what comes in."""

    def __init__(
        self, notices: Notices, questions: Questions, registry: Callable[[], Registry], counts: Counts
    ) -> None:
        """``registry`` returns the newest configuration."""
        self._notices = notices
        self._questions = questions
        self._registry = registry
        self._counts = counts
        self._doors: tuple[int, dict[str, _Door]] = (-1, {})
        self._keeping: set[asyncio.Task[None]] = set()

    def application(self) -> web.Application:
        """Return what serves the listener where its connections do not."""
        app = web.Application(client_max_size=BODY_BYTES)
        app.router.add_post("/n/{app}/{kind}", self.receive)
        return app

    async def drain(self) -> None:
        """Wait until every question that was answered is kept, or cannot be."""
        await asyncio.gather(*self._keeping)

    async def receive(self, request: web.Request) -> web.Response:
        """Take a push in that aiohttp has read."""
        answer = await self.take(_Read(request))
        return web.Response(status=answer.status, body=answer.body, headers=answer.headers)

    async def take(self, push: Push) -> Answer:
        """Take one push in; whatever it is, the answer is one of ours."""
        began = time.perf_counter()
        kind = push.kind if push.kind in PUSH_KINDS else "other"
        try:
            answer, outcome = await self._take(push)
        except _Refused as refused:
            answer, outcome = Answer(refused.status), refused.reason
            log.info("push_refused", kind=kind, reason=outcome, peer=push.peer)
        except Unavailable as error:
            # The platform pushes again.
            answer, outcome = Answer(503, retry_s=_RETRY_S), "not_kept"
            log.warning("push_not_kept", kind=kind, code=error.code)
        except Exception:
            log.exception("push_broken", kind=kind)
            answer, outcome = Answer(503, retry_s=_RETRY_S), "broken"
        self._counts.pushed(kind, outcome, time.perf_counter() - began)
        return answer

    async def _take(self, push: Push) -> tuple[Answer, str]:
        door = self._door(push.app)
        if door is None or push.kind not in PUSH_KINDS:
            raise _Refused(404, "unknown_app" if door is None else "unknown_kind")
        if not door.admits(push.peer):
            raise _Refused(403, "address")
        at = signed_at(push.headers, door.signer)
        if isinstance(at, Doubt):
            raise _Refused(401, at.value)
        self._check_age(at, _NOTICE_AGE_S)
        told = read(await push.body(), at)
        question = _question(told)
        if question is None:
            await self._notices.keep(door.app.id, told, at)
            unreadable = any(one.notice is None for one in told)
            # Who waits at that address for an answer hears one, whatever was asked.
            reply = DISCARD if unreadable and push.kind == "sms-control" else None
            return _answer(reply), "unreadable" if unreadable else "kept"
        self._check_age(at, _QUESTION_AGE_S)
        return await self._answered(door.app, told, question, at)

    def _check_age(self, at: datetime, most_s: float) -> None:
        doubt = doubt_of_age(at, self._notices.now, most_s=most_s, skew_s=_SKEW_S)
        if doubt is not None:
            raise _Refused(401, doubt.value)

    async def _answered(
        self, app: App, told: list[Told], question: CallEvent | Sms, at: datetime
    ) -> tuple[Answer, str]:
        """Look up and keep at the same time; somebody is on the line, so the latter is not waited for for long."""
        whose = Whose()
        keeping = asyncio.create_task(self._keep(app, told, at, whose), name="keep a question")
        self._keeping.add(keeping)
        keeping.add_done_callback(self._keeping.discard)
        reply = await self._questions.answer(app, question)
        whose.answered, whose.found = reply.word != NO_ANSWER, reply.found
        self._counts.asked(question.kind, reply.word)
        if not keeping.done():
            await asyncio.wait((keeping,), timeout=_KEEP_S)
        return _answer(reply.body), "answered"

    async def _keep(self, app: App, told: list[Told], at: datetime, whose: Whose) -> None:
        try:
            await self._notices.keep(app.id, told, at, whose)
        except Unavailable as error:
            log.warning("question_not_kept", app=app.name, code=error.code)

    def _door(self, name: str) -> _Door | None:
        registry = self._registry()
        if self._doors[0] != registry.version:
            self._doors = (registry.version, {app.name: _door_of(app) for app in registry.apps.values()})
        return self._doors[1].get(name)


def _door_of(app: App) -> _Door:
    networks = tuple(ip_network(one) for one in app.push_from.split(",")) if app.push_from else ()
    return _Door(app, Signer(app.app_key, app.accepted_secrets, app.push_wsse), networks)


class _Read:
    """A push that aiohttp has read."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self.app = request.match_info["app"]
        self.kind = request.match_info["kind"]
        self.headers = request.headers
        self.peer = request.remote

    async def body(self) -> bytes:
        request = self._request
        if request.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise _Refused(415, "compressed")
        if (request.content_length or 0) > BODY_BYTES:
            raise _Refused(413, "oversized")
        try:
            async with asyncio.timeout(_BODY_S):
                return await request.read()
        except web.HTTPRequestEntityTooLarge:
            raise _Refused(413, "oversized") from None
        except TimeoutError:
            raise _Refused(408, "slow") from None
        except ConnectionResetError:
            # Nobody hears this; the platform pushes again.
            raise _Refused(400, "cut_off") from None


def _question(told: list[Told]) -> CallEvent | Sms | None:
    """Return what is asked, if a push is a question: such a one tells of nothing else."""
    notice = told[0].notice if len(told) == 1 else None
    return notice if isinstance(notice, CallEvent | Sms) and notice.question else None


def _answer(body: Mapping[str, Any] | None) -> Answer:
    return Answer() if body is None else Answer(body=orjson.dumps(body))

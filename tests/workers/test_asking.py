"""What the platform is asked once for one who waits: by the limit and in the lane, within the request's time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from broker.clock import boottime
from broker.errors import Gone, Invalid, NotFound, PlatformRefused, PlatformRejected, Problem, Unavailable
from broker.flows.asking import Asking
from broker.platform.protocol import Answer, Permit, Verdict
from broker.store.database import Database
from broker.store.registry import Key
from tests.emulator.support import Emulated
from tests.workers.fake import FakeAxb
from tests.workers.rig import Instance, instance, seed

SESSION = "1200_366_0_20240123091514@node1"
ADDRESS = "https://recordings.example.com/a?signature=b"


class _Talking(FakeAxb):
    """Answers questions about calls with ``answer``, if it is let; ``asked`` are those that left."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer
        self.asked: list[str] = []
        self.timeouts: list[float] = []

    async def stop_call(self, session_id: str, *, permit: Permit, timeout_s: float) -> Answer:
        """Answer."""
        return self._answer(session_id, permit, timeout_s)

    async def recording(self, file_name: str, domain: str, *, permit: Permit, timeout_s: float) -> Answer:
        """Answer."""
        return self._answer(f"{domain}/{file_name}", permit, timeout_s)

    def _answer(self, what: str, permit: Permit, timeout_s: float) -> Answer:
        if not permit():
            return Answer(Verdict.WITHHELD)
        self.asked.append(what)
        self.timeouts.append(timeout_s)
        return self.answer


@asynccontextmanager
async def _at(dsn: str, emu: Emulated, fake: FakeAxb) -> AsyncIterator[tuple[Asking, Key, Instance]]:
    async with instance(dsn, emu, platform=lambda _: fake) as one:
        yield Asking(one.db, one.sender, one.dispatcher), Key(one.app, 1, "orders", frozenset({"reveal"}), "abcd"), one


async def test_a_call_is_stopped(seeded: str, emu: Emulated) -> None:
    """The platform is asked once, with no row of ours; its answer may take as long as the request's time allows."""
    fake = _Talking(Answer(Verdict.DONE, 200, "0"))
    async with _at(seeded, emu, fake) as (asking, key, one):
        await asking.stop_call(key, SESSION, deadline=boottime() + 1.0)
        assert fake.asked == [SESSION]
        assert fake.timeouts[0] <= 1.0
        assert await one.calls() == []
        assert one.sender.sent == 1


@pytest.mark.parametrize(
    ("verdict", "problem", "code"),
    [
        (Verdict.NOT_FOUND, NotFound, "call_over"),
        (Verdict.UNKNOWN, Unavailable, "unavailable"),
        (Verdict.NOT_SENT, Unavailable, "unavailable"),
        (Verdict.FLOW_CONTROL, Unavailable, "unavailable"),
        (Verdict.APP_SUSPENDED, Unavailable, "app_suspended"),
        (Verdict.CONFIGURATION, PlatformRefused, "platform_refused"),
        (Verdict.BAD_DIGEST, PlatformRefused, "platform_refused"),
        (Verdict.BAD_REQUEST, PlatformRejected, "platform_rejected_request"),
    ],
)
async def test_what_an_order_system_is_told(
    seeded: str, emu: Emulated, verdict: Verdict, problem: type[Problem], code: str
) -> None:
    """Each verdict has its answer; what may be otherwise in a moment says when to ask again."""
    async with _at(seeded, emu, _Talking(Answer(verdict, 403, "1020152"))) as (asking, key, _):
        with pytest.raises(problem) as raised:
            await asking.stop_call(key, SESSION, deadline=boottime() + 5.0)
        assert raised.value.code == code
        assert (raised.value.retry_after_s is not None) is (raised.value.status == 503)


async def test_a_platform_without_it(seeded: str, emu: Emulated) -> None:
    """What the mode's wire does not have is a 422 of its own."""
    async with _at(seeded, emu, FakeAxb()) as (asking, key, _):
        with pytest.raises(Invalid) as raised:
            await asking.stop_call(key, SESSION, deadline=boottime() + 5.0)
        assert raised.value.code == "not_offered_by_platform"


async def test_a_shut_lane_asks_nothing(seeded: str, emu: Emulated) -> None:
    """After two refused signatures nothing is sent: an operator must act."""
    fake = _Talking(Answer(Verdict.BAD_DIGEST, 401, "1010013"))
    async with _at(seeded, emu, fake) as (asking, key, _):
        for _ in range(4):
            with pytest.raises(PlatformRefused):
                await asking.stop_call(key, SESSION, deadline=boottime() + 5.0)
        assert len(fake.asked) == 2


class _Off(_Talking):
    """Refuses our clock until it was set right, or for ever."""

    def __init__(self, *, for_ever: bool) -> None:
        super().__init__(Answer(Verdict.CLOCK_SKEW, 401, "1010013", date_skew_s=3600.0))
        self.for_ever = for_ever
        self.offsets: list[float] = []

    def set_clock_offset(self, seconds: float) -> None:
        """Take it."""
        self.offsets.append(seconds)
        if not self.for_ever:
            self.answer = Answer(Verdict.DONE, 200, "0")


async def test_signed_once_more_when_the_clock_was_wrong(seeded: str, emu: Emulated) -> None:
    """The clock is set right and the question sent again, within the limit as any; no more often than once."""
    fake = _Off(for_ever=False)
    async with _at(seeded, emu, fake) as (asking, key, one):
        await asking.stop_call(key, SESSION, deadline=boottime() + 5.0)
        assert (fake.asked, fake.offsets, one.sender.sent) == ([SESSION] * 2, [3600.0], 2)
    fake = _Off(for_ever=True)
    async with _at(seeded, emu, fake) as (asking, key, one):
        with pytest.raises(Unavailable):
            await asking.stop_call(key, SESSION, deadline=boottime() + 5.0)
        assert (len(fake.asked), one.sender.sent) == (2, 2)


async def test_it_waits_for_its_turn_only_as_long_as_it_may(database_url: str, emu: Emulated) -> None:
    """Behind the app's limit a question that would come too late is given up unsent, and costs no one else a turn."""
    db = Database(database_url, connections=2, timeout_s=5)
    await db.open()
    await seed(db, emu, rate=0.5, burst=1)
    await db.close()
    fake = _Talking(Answer(Verdict.DONE, 200, "0"))
    async with _at(database_url, emu, fake) as (asking, key, one):

        async def stop(within_s: float) -> str:
            try:
                await asking.stop_call(key, SESSION, deadline=boottime() + within_s)
            except Unavailable as problem:
                return problem.code
            return "stopped"

        told = await asyncio.gather(*(stop(0.5) for _ in range(8)))
        assert told.count("stopped") <= 1
        assert len(fake.asked) == told.count("stopped")
        assert one.sender.waiting() == 0
        assert await stop(20.0) == "stopped"


async def test_a_recording_is_written_down_before_it_is_shown(seeded: str, emu: Emulated) -> None:
    """Who asked, when and for what (as a digest) is in the audit; the address and the names are in no table."""
    fake = _Talking(Answer(Verdict.DONE, 301, "0", location=ADDRESS))
    async with _at(seeded, emu, fake) as (asking, key, one):
        found = await asking.recording(key, "+8613900000001.wav", "ostor", deadline=boottime() + 5.0)
        assert found == ADDRESS
        assert fake.asked == ["ostor/+8613900000001.wav"]
        (row,) = await one.rows("SELECT * FROM audit")
        assert (row["who"], row["what"], row["app_id"]) == ("test/orders …abcd", "recording", one.app.id)
        assert (row["pool_id"], row["binding_id"]) == (None, None)
        assert "13900000001" not in row["subject"]
        assert len(row["subject"]) == 64


async def test_nothing_is_shown_that_cannot_be_written_down(seeded: str, emu: Emulated) -> None:
    """Without its row in the audit there is no address."""
    fake = _Talking(Answer(Verdict.DONE, 301, "0", location=ADDRESS))
    async with _at(seeded, emu, fake) as (asking, key, one):
        await one.rows("ALTER TABLE audit ADD CONSTRAINT full_up CHECK (what <> 'recording') NOT VALID")
        with pytest.raises(Exception, match="full_up"):
            await asking.recording(key, "a.wav", "ostor", deadline=boottime() + 5.0)
        assert fake.asked == ["ostor/a.wav"]


async def test_a_recording_that_is_gone(seeded: str, emu: Emulated) -> None:
    """410, and nobody was shown anything, so nothing is written down."""
    async with _at(seeded, emu, _Talking(Answer(Verdict.NOT_FOUND, 403, "1012007"))) as (asking, key, one):
        with pytest.raises(Gone) as raised:
            await asking.recording(key, "a.wav", "ostor", deadline=boottime() + 5.0)
        assert (raised.value.status, raised.value.code) == (410, "recording_gone")
        assert await one.rows("SELECT FROM audit") == []

"""The driver against the emulator: both sides of the wire, written by different hands from one contract."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import pytest

from broker.platform.huawei.http import HttpOptions
from broker.platform.huawei.origin import TlsOptions
from broker.platform.huawei.request import Scheme
from broker.platform.protocol import BindLine, Direction, PlatformLine, Verdict
from tests.platform.emulated import (
    KEY,
    NOT_OURS,
    OTHER_X,
    SECRET,
    A,
    B,
    C,
    D,
    X,
    bind,
    closing,
    emulating,
    modify,
    unbind,
    yes,
)
from tests.platform.raw_platform import self_signed


@pytest.mark.parametrize("scheme", list(Scheme))
@pytest.mark.parametrize("server_keeps", [True, False], ids=["server keeps", "server closes"])
@pytest.mark.parametrize("client_keeps", [True, False], ids=["client keeps", "client closes"])
async def test_life_of_a_binding(tmp_path: Path, scheme: Scheme, *, server_keeps: bool, client_keeps: bool) -> None:
    """Bind, query, look up, unbind, and nothing is left: with both schemes, on kept and on short connections."""
    async with emulating(tmp_path, keep_alive=server_keeps) as emulator:
        http = HttpOptions(keep_alive=client_keeps)
        async with closing(emulator.driver(scheme=scheme, http=http)) as driver:
            made = await bind(driver)
            assert (made.verdict, made.http, made.code, made.total) == (Verdict.DONE, 200, "0", 1)
            (binding,) = made.bindings
            assert (binding.x, binding.ttl_s) == (X, 86400)
            whole = PlatformLine(binding.subscription_id, X, A, B, "1.1", 86400, Direction.A_TO_B)
            for narrowed in ({}, {"a": A}, {"b": B}, {"a": A, "b": B}):
                found = await driver.query(x=X, **narrowed, permit=yes, timeout_s=5)  # type: ignore[arg-type]
                assert (found.verdict, found.bindings, found.total) == (Verdict.DONE, (whole,), 1)
            found = await driver.lookup(binding.subscription_id, permit=yes, timeout_s=5)
            assert found.bindings == (whole,)
            assert (await modify(driver, binding.subscription_id, b=C)).verdict is Verdict.DONE
            found = await driver.lookup(binding.subscription_id, permit=yes, timeout_s=5)
            assert found.bindings == (replace(whole, b=C, token="1.2"),)
            assert (await unbind(driver, binding.subscription_id)).verdict is Verdict.DONE
            assert (await unbind(driver, binding.subscription_id)).verdict is Verdict.NOT_FOUND
            assert (await driver.lookup(binding.subscription_id, permit=yes, timeout_s=5)).verdict is Verdict.NOT_FOUND
            assert (await driver.query(x=X, permit=yes, timeout_s=5)).verdict is Verdict.NOT_FOUND


async def test_no_expiry_and_expiry(tmp_path: Path) -> None:
    """A lifetime of 0 outlives one of 60 seconds, which the platform ends by itself."""
    async with emulating(tmp_path) as emulator, closing(emulator.driver()) as driver:
        await bind(driver, ttl_s=60)
        await bind(driver, a=C, b=D, ttl_s=0)
        await emulator.operate("POST", "clock", {"advance_s": 61})
        driver.set_clock_offset(61)
        found = await driver.query(x=X, permit=yes, timeout_s=5)
        assert [(binding.a, binding.ttl_s) for binding in found.bindings] == [(C, 0)]


async def test_an_unbind_ends_one_binding_only(tmp_path: Path) -> None:
    """The other bindings on the same X stay."""
    async with emulating(tmp_path) as emulator, closing(emulator.driver()) as driver:
        first = (await bind(driver)).bindings[0]
        second = (await bind(driver, a=C, b=D)).bindings[0]
        await unbind(driver, first.subscription_id)
        found = await driver.query(x=X, permit=yes, timeout_s=5)
        assert [binding.subscription_id for binding in found.bindings] == [second.subscription_id]


async def test_pages(tmp_path: Path) -> None:
    """More than a page of bindings is listed completely, 100 at a time."""
    async with emulating(tmp_path) as emulator, closing(emulator.driver()) as driver:
        for number in range(130):
            made = await bind(driver, a=f"+86139{number:08d}", b=f"+86138{number:08d}")
            assert made.verdict is Verdict.DONE
        pages = [await driver.query(x=X, page=page, permit=yes, timeout_s=5) for page in (1, 2)]
        assert [(len(page.bindings), page.total) for page in pages] == [(100, 130), (30, 130)]
        assert len({binding.subscription_id for page in pages for binding in page.bindings}) == 130


async def test_refusals(tmp_path: Path) -> None:
    """Conflict, full X, a foreign X, a malformed request and another mode's interface each have their verdict."""
    async with emulating(tmp_path, pairs_per_x=1) as emulator, closing(emulator.driver()) as driver:
        await bind(driver)
        assert (await bind(driver, a=B, b=C)).verdict is Verdict.CONFLICT
        assert (await bind(driver, a=C, b=D)).verdict is Verdict.CAPACITY
        assert (await bind(driver, x=NOT_OURS)).verdict is Verdict.NUMBER_REFUSED
        foreign = await driver.query(x=NOT_OURS, permit=yes, timeout_s=5)
        assert foreign.verdict in {Verdict.CONFIGURATION, Verdict.NOT_FOUND}
        assert (await bind(driver, x=OTHER_X, ttl_s=99_999_999)).verdict is Verdict.BAD_REQUEST
        assert not (await bind(driver, x=OTHER_X, a="+861390000000x")).bindings
        await emulator.operate("PUT", "apps/AXAPP", {"secret": SECRET, "mode": "ax"})
        async with closing(emulator.driver(key="AXAPP")) as other:
            assert (await bind(other)).verdict is Verdict.CONFIGURATION
        async with closing(emulator.driver(key="NOBODY")) as stranger:
            assert (await bind(stranger)).verdict is Verdict.CONFIGURATION


async def test_flow_control(tmp_path: Path) -> None:
    """Past its rate an application is told so, and nothing is executed."""
    async with emulating(tmp_path) as emulator, closing(emulator.driver()) as driver:
        await emulator.operate("PUT", f"apps/{KEY}", {"secret": SECRET, "mode": "axb", "rate": 0.001, "burst": 1})
        assert (await bind(driver)).verdict is Verdict.DONE
        refused = await bind(driver, a=C, b=D)
        assert (refused.verdict, refused.http, refused.code) == (Verdict.FLOW_CONTROL, 403, "1010010")
        assert len((await emulator.operate("GET", "bindings"))["items"]) == 1


@pytest.mark.parametrize("scheme", list(Scheme))
async def test_bad_digest_and_blocked_source(tmp_path: Path, scheme: Scheme) -> None:
    """A wrong secret is a bad digest, and too many of them block the address for every application behind it."""
    async with emulating(tmp_path, block_after=2) as emulator:
        async with closing(emulator.driver(secret="wrong", scheme=scheme)) as driver:
            refused = await bind(driver)
            assert (refused.verdict, refused.http, refused.code) == (Verdict.BAD_DIGEST, 401, "1010010")
            assert (await bind(driver)).verdict is Verdict.BAD_DIGEST
        async with closing(emulator.driver()) as good:
            assert (await bind(good)).verdict is Verdict.SOURCE_BLOCKED


async def test_clock_skew(tmp_path: Path) -> None:
    """A clock an hour slow is refused with the difference, and that difference as the offset mends it."""
    async with emulating(tmp_path) as emulator, closing(emulator.driver(now=lambda: time.time() - 3600)) as driver:
        refused = await bind(driver)
        assert refused.verdict is Verdict.CLOCK_SKEW
        assert refused.date_skew_s == pytest.approx(3600, abs=5)
        driver.set_clock_offset(refused.date_skew_s or 0.0)
        assert (await bind(driver)).verdict is Verdict.DONE


async def test_faults_leave_the_outcome_unknown(tmp_path: Path) -> None:
    """An answer that is lost, reset, late or an internal error is unknown, and each request arrived once."""
    async with emulating(tmp_path) as emulator, closing(emulator.driver()) as driver:
        await driver.query(x=X, permit=yes, timeout_s=5)
        await emulator.fault(interface="*", kind="drop_answer")
        assert (await bind(driver)).verdict is Verdict.UNKNOWN
        found = await driver.query(x=X, a=A, permit=yes, timeout_s=5)
        assert [binding.token for binding in found.bindings] == ["1.1"]
        await emulator.fault(interface="*", kind="reset")
        assert (await unbind(driver, found.bindings[0].subscription_id)).verdict is Verdict.UNKNOWN
        await emulator.fault(interface="*", kind="code", http=500, code="1023002")
        assert (await bind(driver, a=C, b=D)).verdict is Verdict.UNKNOWN
        await emulator.fault(interface="*", kind="code", http=503)
        assert (await bind(driver, a=C, b=D)).verdict is Verdict.UNKNOWN
        await emulator.fault(interface="*", kind="delay", ms=60_000)
        request = BindLine(OTHER_X, A, B, Direction.BOTH, 60, "t")
        assert (await driver.bind(request, permit=yes, timeout_s=0.05)).verdict is Verdict.UNKNOWN
        rows = (await emulator.operate("GET", "ledger"))["items"]
        binds = [row for row in rows if row["op"] == "bind"]
        unbinds = [row for row in rows if row["op"] == "unbind"]
        assert (len(binds), len(unbinds)) == (4, 1)


async def test_concurrent_binds(tmp_path: Path) -> None:
    """Two hundred binds over eight connections all happen, each once."""
    async with emulating(tmp_path) as emulator:
        async with closing(emulator.driver(http=HttpOptions(max_connections=8))) as driver:
            made = await asyncio.gather(
                *(bind(driver, a=f"+86139{number:08d}", b=f"+86138{number:08d}") for number in range(200))
            )
        assert {answer.verdict for answer in made} == {Verdict.DONE}
        assert len({answer.bindings[0].subscription_id for answer in made}) == 200
        assert (await emulator.operate("GET", "health"))["bindings"] == 200


@pytest.mark.parametrize("keep_alive", [True, False], ids=["kept", "short"])
async def test_over_tls(tmp_path: Path, *, keep_alive: bool) -> None:
    """The same over TLS with a certificate that the driver was told to trust."""
    _, ca_file = self_signed(tmp_path)
    async with emulating(tmp_path, keep_alive=keep_alive, certfile=Path(ca_file)) as emulator:
        assert emulator.wire.startswith("https://")
        async with closing(emulator.driver(tls=TlsOptions(ca_file=ca_file))) as driver:
            made = await bind(driver)
            assert made.verdict is Verdict.DONE
            assert (await unbind(driver, made.bindings[0].subscription_id)).verdict is Verdict.DONE
        async with closing(emulator.driver()) as suspicious:
            assert (await bind(suspicious)).verdict is Verdict.NOT_SENT

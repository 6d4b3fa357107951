"""Every interface of every mode against everything that may come back, through the real driver on real sockets."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path
from typing import cast

import pytest

from broker.platform.huawei.app import AppAccess
from broker.platform.huawei.http import HttpOptions
from broker.platform.huawei.origin import TlsOptions
from broker.platform.protocol import Answer, Platform, Verdict
from tests.platform.driven import said, yes
from tests.platform.outcomes import INTERFACES, LOCATION, LOST, Interface
from tests.platform.raw_platform import RawPlatform, Wire, answer, self_signed
from tests.platform.test_huawei_codes import EXPECTED

#: Small, so that the table is walked through soon; the caps are those of every driver, only lower.
HTTP = HttpOptions(answer_cap_bytes=64 * 1024)
SOON_S, LATE_S = 1.5, 20.0
_TIMED = ("no answer in time", "a head and no more", "silent amid the body")

every_interface = pytest.mark.parametrize("interface", INTERFACES, ids=str)


async def ask(
    interface: Interface,
    base_url: str,
    *,
    timeout_s: float = LATE_S,
    permit: bool = True,
    tls: TlsOptions | None = None,
) -> Answer:
    """Ask once, with a driver of its own."""
    driver = drive(interface, base_url, tls)
    try:
        return await interface.ask(driver, yes if permit else lambda: False, timeout_s)
    finally:
        await asyncio.wait_for(driver.close(), 5)


def drive(interface: Interface, base_url: str, tls: TlsOptions | None = None) -> Platform:
    """Return a driver of the interface's mode."""
    return cast("Platform", interface.driver(AppAccess("ABCD1234", "bb-secret-01", base_url, tls=tls), HTTP))


@every_interface
async def test_every_row_of_the_contract(interface: Interface) -> None:
    """Each row of section 7 is done, refused by its class, or unknown, as decided for this operation."""
    rows = [(status, code) for status, code, *_ in EXPECTED]
    expected = {(s, c): but.get(interface.operation, verdict) for s, c, verdict, but in EXPECTED}
    expected[200, "0"] = interface.bare if not interface.good else Verdict.DONE

    async def script(wire: Wire) -> None:
        for status, code in rows:
            if await wire.request() is None:
                return
            wire.send(said({"resultcode": code, "resultdesc": "text", **interface.good}, status))
        await wire.gone()

    async with RawPlatform(script) as platform:
        driver = drive(interface, platform.base_url)
        found = {row: (await interface.ask(driver, yes, LATE_S)).verdict for row in rows}
        await asyncio.wait_for(driver.close(), 5)
        assert len(platform.requests) == len(rows)
    assert found == expected


@every_interface
async def test_every_lost_answer(interface: Interface) -> None:
    """What is no whole answer, or none of the contract's, is unknown unless its status says that nothing was done.

    The request was sent once, whatever came back.
    """

    async def outcome(name: str) -> Verdict:
        async with RawPlatform(LOST[name][0]) as platform:
            late = SOON_S if name in _TIMED else LATE_S
            told = await ask(interface, platform.base_url, timeout_s=late)
            assert len(platform.requests) == 1, name
            return told.verdict

    found = await asyncio.gather(*(outcome(name) for name in LOST))
    assert dict(zip(LOST, found, strict=True)) == {name: verdict for name, (_, verdict) in LOST.items()}


@every_interface
async def test_a_success_that_lacks_its_content(interface: Interface) -> None:
    """A bind that does not name its binding may have bound; a list that is not there proves no absence."""

    async def script(wire: Wire) -> None:
        while await wire.request() is not None:
            wire.send(said({"resultcode": "0", "resultdesc": "Success"}))

    async with RawPlatform(script) as platform:
        assert (await ask(interface, platform.base_url)).verdict is interface.bare


@every_interface
async def test_a_redirect_tells_only_where_a_recording_is(interface: Interface) -> None:
    """301 with an address is a recording's success; without one it tells nothing; elsewhere our address is wrong."""

    async def script(wire: Wire) -> None:
        for headers in (f"Location: {LOCATION}\r\n", ""):
            if await wire.request() is None:
                return
            wire.send(answer(b"", 301, headers))
        await wire.gone()

    recording = interface.name == "recording"
    async with RawPlatform(script) as platform:
        driver = drive(interface, platform.base_url)
        located, nowhere = [await interface.ask(driver, yes, LATE_S) for _ in range(2)]
        await asyncio.wait_for(driver.close(), 5)
    assert (located.verdict, located.location) == (
        (Verdict.DONE, LOCATION) if recording else (Verdict.CONFIGURATION, "")
    )
    assert nowhere.verdict is (Verdict.UNKNOWN if recording else Verdict.CONFIGURATION)


@every_interface
async def test_what_never_left(interface: Interface, tmp_path: Path) -> None:
    """Nobody listens, no TLS there, a certificate that nobody vouches for, the permit said no: certainly not done."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        refused = await ask(interface, f"http://127.0.0.1:{closed.getsockname()[1]}")
    assert refused.verdict is Verdict.NOT_SENT

    async def silent(wire: Wire) -> None:
        await wire.request()

    async with RawPlatform(silent) as plain:
        spoken = await ask(interface, plain.base_url.replace("http:", "https:"), timeout_s=SOON_S)
        assert (spoken.verdict, plain.requests) == (Verdict.NOT_SENT, [])
        withheld = await ask(interface, plain.base_url, permit=False)
        assert (withheld.verdict, plain.requests) == (Verdict.WITHHELD, [])
    context, trusted = self_signed(tmp_path)
    async with RawPlatform(silent, context) as secret:
        untrusted = await ask(interface, secret.base_url)
        assert (untrusted.verdict, secret.requests) == (Verdict.NOT_SENT, [])
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    old.load_cert_chain(tmp_path / "cert.pem")

    async def reset(wire: Wire) -> None:
        await wire.request()
        wire.reset()

    async with RawPlatform(reset, old) as broken:
        lost = await ask(interface, broken.base_url, tls=TlsOptions(ca_file=trusted))
        assert (lost.verdict, len(broken.requests)) == (Verdict.UNKNOWN, 1)


def test_the_table_has_every_interface() -> None:
    """Whatever a driver of a mode can be asked is in the table; what it does not offer is not."""
    asked = (
        "bind",
        "modify",
        "unbind",
        "query",
        "lookup",
        "set_callee",
        "bind_peer",
        "unbind_peer",
        "stop_call",
        "recording",
    )
    names = {"set_callee": "callee", "stop_call": "stop"}
    offered = {
        (interface.mode, names.get(verb, verb))
        for interface in INTERFACES
        for verb in asked
        if any(
            verb in vars(kind)
            for kind in interface.driver.__mro__
            if kind.__module__.startswith("broker.platform.huawei")
        )
    }
    assert {(interface.mode, interface.name) for interface in INTERFACES} == offered

"""The AXYB driver against the emulator."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from broker.domain.options import CallOptions
from broker.platform.huawei.axyb import HuaweiAxyb
from broker.platform.protocol import Answer, BindLine, BindPeer, Direction, PlatformLine, Verdict
from tests.platform.emulated import OTHER_X, A, B, C, D, X, emulating_to, yes

running = partial(emulating_to, HuaweiAxyb, "axyb")


async def bind(driver: HuaweiAxyb, a: str = A, ttl_s: int = 7200, **asked: Any) -> Answer:
    """Ask for an X for A."""
    request = BindLine("", a, ttl_s=ttl_s, token=f"{a[-1]}.1", **{"area_code": "0755", **asked})
    return await driver.bind(request, permit=yes, timeout_s=5)


async def bind_peer(driver: HuaweiAxyb, subscription_id: str, b: str = B, ttl_s: int = 600) -> Answer:
    """Ask for a Y for B."""
    return await driver.bind_peer(BindPeer(subscription_id, b, ttl_s, f"p{b[-1]}.1"), permit=yes, timeout_s=5)


async def lines(driver: HuaweiAxyb, subscription_id: str) -> tuple[PlatformLine, ...]:
    """Return the AX with its relations."""
    return (await driver.lookup(subscription_id, permit=yes, timeout_s=5)).bindings


async def test_life_of_a_line(tmp_path: Path) -> None:
    """A has an X and B a Y, each reaches the other and sees the other's number, until first B's goes and then A's."""
    async with running(tmp_path) as (emulator, driver):
        made = await bind(driver)
        (ax,) = made.bindings
        x = ax.x
        y = OTHER_X if x == X else X
        whole = PlatformLine(ax.subscription_id, x, A, token="1.1", ttl_s=7200, direction=Direction.BOTH)
        assert (made.verdict, made.total) == (Verdict.DONE, 1)
        assert (await driver.query(x=x, permit=yes, timeout_s=5)).bindings == (whole,)
        assert await lines(driver, ax.subscription_id) == (whole,)
        peer = await bind_peer(driver, ax.subscription_id)
        assert (peer.verdict, peer.bindings[0].y) == (Verdict.DONE, y)
        listed, relation = await lines(driver, ax.subscription_id)
        assert (listed.x, listed.a, listed.ttl_s, listed.y) == (x, A, 7200, "")
        assert relation == PlatformLine(ax.subscription_id, x, A, B, "p2.1", 600, Direction.BOTH, y=y)
        reached = await emulator.dial(B, x)
        assert (reached["connected_to"], reached["shown"], reached["state_code"]) == (A, y, 0)
        reached = await emulator.dial(A, y)
        assert (reached["connected_to"], reached["shown"]) == (B, x)
        gone = await driver.unbind_peer(ax.subscription_id, y=y, permit=yes, timeout_s=5)
        assert gone == Answer(Verdict.DONE, 200, "0", "Success")
        again = await driver.unbind_peer(ax.subscription_id, y=y, permit=yes, timeout_s=5)
        assert again.verdict is Verdict.NOT_FOUND
        assert (await emulator.dial(A, y))["state_code"] == 8030
        assert await lines(driver, ax.subscription_id) == (whole,)
        assert (await driver.unbind(ax.subscription_id, permit=yes, timeout_s=5)).verdict is Verdict.DONE
        assert (await driver.unbind(ax.subscription_id, permit=yes, timeout_s=5)).verdict is Verdict.NOT_FOUND
        assert (await driver.query(x=x, permit=yes, timeout_s=5)).verdict is Verdict.NOT_FOUND
        assert (await bind(driver, a=C)).verdict is Verdict.DONE


async def test_a_y_that_the_platform_finds(tmp_path: Path) -> None:
    """B who just dials X gets a Y, listed under the AX and living as long as was said with it."""
    async with running(tmp_path) as (emulator, driver):
        ax = (await bind(driver, options=CallOptions(peer_ttl_s=120))).bindings[0]
        assert (await emulator.dial(B, ax.x))["connected_to"] == A
        itself, relation = await lines(driver, ax.subscription_id)
        assert (itself.ttl_s, relation.b, relation.ttl_s) == (7200, B, 120)
        await emulator.pass_by(121, driver)
        (left,) = await lines(driver, ax.subscription_id)
        assert (left.token, left.y) == ("1.1", "")


async def test_an_unbind_ends_all_relations(tmp_path: Path) -> None:
    """With the AX goes its Y."""
    async with running(tmp_path) as (emulator, driver):
        ax = (await bind(driver)).bindings[0]
        await bind_peer(driver, ax.subscription_id)
        assert (await driver.unbind(ax.subscription_id, permit=yes, timeout_s=5)).verdict is Verdict.DONE
        assert (await emulator.operate("GET", "bindings"))["items"] == []


async def test_refusals(tmp_path: Path) -> None:
    """A second Y for one B, no Y left, a peer of nothing, one X too many, no X left, an unknown city."""
    async with running(tmp_path, axyb_x_per_a=1, axyb_relations_per_y=1) as (_, driver):
        ax = (await bind(driver)).bindings[0].subscription_id
        assert (await bind_peer(driver, ax)).verdict is Verdict.DONE
        assert (await bind_peer(driver, ax)).verdict is Verdict.CONFLICT
        assert (await bind_peer(driver, ax, b=C)).verdict is Verdict.CAPACITY
        assert (await bind_peer(driver, "nobody")).verdict is Verdict.NOT_FOUND
        assert (await bind(driver)).verdict is Verdict.PARTY_LIMIT
        assert (await bind(driver, a=D)).verdict is Verdict.CAPACITY
        assert (await bind(driver, a=D, area_code="010")).verdict is Verdict.CAPACITY


async def test_expiry(tmp_path: Path) -> None:
    """The platform ends an AX by itself, with its relations."""
    async with running(tmp_path) as (emulator, driver):
        ax = (await bind(driver, ttl_s=60)).bindings[0]
        await bind_peer(driver, ax.subscription_id, ttl_s=0)
        await emulator.pass_by(61, driver)
        assert (await driver.query(x=ax.x, permit=yes, timeout_s=5)).verdict is Verdict.NOT_FOUND
        assert (await emulator.operate("GET", "bindings"))["items"] == []

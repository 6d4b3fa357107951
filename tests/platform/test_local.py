"""The driver of mode X: nothing is kept, and everything that is permitted is done."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from broker.platform.local import LocalPlatform
from broker.platform.protocol import Answer, BindLine, BindPeer, ModifyLine, NotOffered, Permit, Platform, Verdict

_LINE = BindLine(x="+8617010000001", a="+8613900000001", b="+8613900000002", token="0123abcd.2", ttl_s=60)
_PLATFORM: Platform = LocalPlatform()
_CALLS: dict[str, tuple[Callable[[Permit], Awaitable[Answer]], Verdict]] = {
    "bind": (lambda may: _PLATFORM.bind(_LINE, permit=may, timeout_s=1), Verdict.DONE),
    "modify": (lambda may: _PLATFORM.modify(ModifyLine("local-1", "t"), permit=may, timeout_s=1), Verdict.DONE),
    "unbind": (lambda may: _PLATFORM.unbind("local-1", permit=may, timeout_s=1), Verdict.DONE),
    "query": (lambda may: _PLATFORM.query(x=_LINE.x, permit=may, timeout_s=1), Verdict.NOT_FOUND),
    "lookup": (lambda may: _PLATFORM.lookup("local-1", permit=may, timeout_s=1), Verdict.DONE),
    "set_callee": (
        lambda may: _PLATFORM.set_callee("local-1", callee=_LINE.b, ttl_s=60, token="t", permit=may, timeout_s=1),
        Verdict.DONE,
    ),
}


@pytest.mark.parametrize("name", _CALLS)
async def test_what_is_permitted_is_done_and_the_rest_is_not(name: str) -> None:
    """The permit is asked once, and decides."""
    call, verdict = _CALLS[name]
    asked: list[str] = []

    def permit(answer: str) -> bool:
        asked.append(answer)
        return answer == "yes"

    assert (await call(lambda: permit("yes"))).verdict is verdict
    assert (await call(lambda: permit("no"))).verdict is Verdict.WITHHELD
    assert asked == ["yes", "no"]


async def test_a_bind_names_its_line() -> None:
    """The subscription is the line's id, whatever the attempt; the rest is what was asked for."""
    (line,) = (await _PLATFORM.bind(_LINE, permit=lambda: True, timeout_s=1)).bindings
    assert line.subscription_id == "local-0123abcd"
    assert (line.x, line.a, line.b, line.token, line.ttl_s) == (_LINE.x, _LINE.a, _LINE.b, _LINE.token, 60)
    with pytest.raises(NotOffered):
        await _PLATFORM.bind_peer(BindPeer("local-1", "+8613900000003", 0, "t"), permit=lambda: True, timeout_s=1)

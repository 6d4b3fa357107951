"""Call stop and recordings of each mode against the emulator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp
import pytest

from broker.domain.options import CallOptions
from broker.platform.huawei.ax import HuaweiAx
from broker.platform.huawei.axb import HuaweiAxb
from broker.platform.huawei.axe import HuaweiAxe
from broker.platform.huawei.axyb import HuaweiAxyb
from broker.platform.protocol import BindLine, Verdict
from tests.platform.emulated import A, B, X, emulating_to, yes

KINDS: dict[str, type[HuaweiAxb | HuaweiAx | HuaweiAxe | HuaweiAxyb]] = {
    "axb": HuaweiAxb,
    "ax": HuaweiAx,
    "axe": HuaweiAxe,
    "axyb": HuaweiAxyb,
}
RECORDED = CallOptions(recording=True, hint_tone="hint.wav")
LINE = BindLine(X, A, B, ttl_s=3600, token="t", options=RECORDED, extension="0042", area_code="0755")


@pytest.mark.parametrize("mode", list(KINDS))
async def test_a_call_is_stopped_and_its_recording_fetched(tmp_path: Path, mode: str) -> None:
    """A call in progress ends at our word, once; its recording has an address for a week."""
    async with emulating_to(KINDS[mode], mode, tmp_path, known_tones="hint.wav") as (emulator, driver):
        (line,) = (await driver.bind(LINE, permit=yes, timeout_s=5)).bindings
        call = await emulator.dial(B, line.x, "0042" if mode == "axe" else None)
        assert call["connected_to"] == A
        await emulator.pass_by(5, driver)
        stopped = await driver.stop_call(call["session_id"], permit=yes, timeout_s=5)
        assert stopped.verdict is Verdict.DONE
        for over in (call["session_id"], "nobody"):
            assert (await driver.stop_call(over, permit=yes, timeout_s=5)).verdict is Verdict.NOT_FOUND
        (kept,) = (await emulator.operate("GET", "recordings"))["items"]
        name, domain = kept["record_object_name"], kept["record_domain"]
        told = await driver.recording(name, domain, permit=yes, timeout_s=5)
        assert (told.verdict, told.http) == (Verdict.DONE, 301)
        assert await fetched(told.location)
        for missing in ((name, "elsewhere"), ("other.wav", domain)):
            answer = await driver.recording(*missing, permit=yes, timeout_s=5)
            assert (answer.verdict, answer.location) == (Verdict.NOT_FOUND, "")
        await emulator.pass_by(8 * 86_400, driver)
        assert (await driver.recording(name, domain, permit=yes, timeout_s=5)).verdict is Verdict.NOT_FOUND


async def fetched(address: str) -> Any:
    """Return what is at an address."""
    async with aiohttp.ClientSession() as http, http.get(address) as answered:
        assert answered.status == 200
        return await answered.read()

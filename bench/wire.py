"""The platform of a scenario: how it is spoken to, latency by a log-normal distribution, and refusals."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import NormalDist

import aiohttp

from bench.certificate import self_signed
from bench.scenario_file import Wire
from bench.stack import Stack

#: The distribution in so many equally likely steps.
_STEPS = 40
_LONGEST_MS = 60_000
_LIMIT_S = 10.0


def latencies_ms(median_ms: float, sigma: float) -> list[int]:
    """Return equally likely latencies: the middles of equal shares of the distribution."""
    normal = NormalDist(math.log(median_ms), sigma) if sigma else None
    shares = [(step + 0.5) / _STEPS for step in range(_STEPS)]
    exact = [math.exp(normal.inv_cdf(share)) if normal else median_ms for share in shares]
    return [min(max(round(one), 1), _LONGEST_MS) for one in exact]


def rules(wire: Wire) -> list[dict[str, object]]:
    """Return the emulator's faults; the first that hits counts, so each step takes its share of what is left."""
    found: list[dict[str, object]] = []
    if wire.flow_control_share:
        refusal = {"kind": "code", "http": 403, "code": "1010010", "share": wire.flow_control_share}
        found.append({"interface": "*", **refusal})
    if wire.median_ms is not None:
        found += [
            {"interface": "*", "kind": "delay", "ms": ms, "share": 1 / (_STEPS - step)}
            for step, ms in enumerate(latencies_ms(wire.median_ms, wire.sigma))
        ]
    return found


def spoken(wire: Wire, folder: Path) -> tuple[list[str], Path | None]:
    """Return options of ``broker up`` for this way to speak, and with TLS the certificate, which is in ``folder``."""
    certificate = self_signed(folder / "platform.pem") if wire.tls else None
    settings = [] if wire.keep_alive else ["keep_alive=false"]
    if certificate is not None:
        settings.append(f"certfile={certificate}")
    return [word for setting in settings for word in ("--emulator-set", setting)], certificate


async def set_wire(stack: Stack, wire: Wire) -> None:
    """Put the rules in force."""
    timeout = aiohttp.ClientTimeout(total=_LIMIT_S)
    async with aiohttp.ClientSession(raise_for_status=True, timeout=timeout) as http:
        for rule in rules(wire):
            await http.post(f"{stack.emulator_admin}/emulator/faults", json=rule)

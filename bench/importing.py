"""How long it takes to enter what a platform holds into an empty broker.

``python -m bench.importing [--bindings 100000] [--rate 2000]`` starts a broker with everything it needs here, lets
somebody else's bindings be made at the platform, imports them with ``broker import bindings``, and compares the books.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg
import orjson

from bench.machine import machine
from bench.scenario import Scenario, Shape, prepare
from bench.stack import BenchError, Stack, running
from broker.clock import boottime
from broker.platform.huawei.app import AppAccess
from broker.platform.huawei.axb import HuaweiAxb
from broker.platform.huawei.http import HttpOptions
from broker.platform.protocol import BindLine, PlatformLine, Verdict

#: Bindings on one X: five pages of a query.
PER_X = 400
TTL_S = 86_400
_WIDTH = 48
_APP = "bench"


@dataclass(frozen=True, slots=True)
class Platform:
    """The platform as somebody else uses it: its own calls, past the broker's limit."""

    app_key: str
    driver: HuaweiAxb
    numbers: tuple[str, ...]

    async def bind(self, x: str, a: str, b: str) -> PlatformLine:
        """Bind a pair that must be accepted."""
        answer = await self.driver.bind(
            BindLine(x=x, a=a, b=b, ttl_s=TTL_S, token=f"order-{a[-8:]}"), permit=lambda: True, timeout_s=30
        )
        if answer.verdict is not Verdict.DONE:
            raise BenchError(f"the platform refused a bind: {answer.verdict.value} {answer.code}")
        return answer.bindings[0]

    async def fill(self, bindings: int) -> list[tuple[PlatformLine, str, str]]:
        """Make so many bindings, evenly on all numbers; each with its parties."""
        made: list[tuple[PlatformLine, str, str]] = []
        todo = iter(range(bindings))

        async def work() -> None:
            for nth in todo:
                x, a, b = self.numbers[nth % len(self.numbers)], phone(2 * nth), phone(2 * nth + 1)
                made.append((await self.bind(x, a, b), a, b))

        await asyncio.gather(*(work() for _ in range(_WIDTH)))
        return made


def phone(nth: int) -> str:
    """Return one of 100 million phones."""
    return f"+86139{nth:08d}"


async def set_up(stack: Stack, bindings: int, rate: float | None) -> tuple[Scenario, Platform]:
    """Make an empty app with numbers for so many bindings; return it and the platform beside it."""
    shape = Shape(pools=1, numbers=-(-bindings // PER_X), cap=5000, quarantine_s=60, rate=rate)
    scenario = await prepare(stack, shape)
    db = await asyncpg.connect(stack.database)
    try:
        app = await db.fetchrow("SELECT name, app_key, secret_sealed, base_url FROM app WHERE name = $1", _APP)
        rows = await db.fetch(
            "SELECT x.number FROM x_number AS x JOIN pool AS p ON p.id = x.pool_id JOIN app AS a ON a.id = p.app_id"
            " WHERE a.name = $1 ORDER BY x.x_id", _APP,
        )  # fmt: skip
    finally:
        await db.close()
    if app is None:
        raise BenchError("The load's app was not made.")
    secret = stack.vault().open("app", "secret", 0, app["name"], app["secret_sealed"])
    access = AppAccess(app["app_key"], secret, app["base_url"])
    return scenario, Platform(
        app["app_key"], HuaweiAxb(access, HttpOptions(max_connections=_WIDTH)), tuple(row["number"] for row in rows)
    )


async def command(stack: Stack, *arguments: str, codes: Sequence[int] = (0,)) -> dict[str, Any]:
    """Run an operator's command on the stack and return its JSON."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "broker", *arguments, "--app", _APP, "--json", "--state-dir", str(stack.folder),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    if process.returncode not in codes or not out:
        raise BenchError(f"broker {' '.join(arguments)}: {err.decode().strip()[-400:]}")
    told: dict[str, Any] = orjson.loads(out)
    return told


async def fill_and_import(stack: Stack, platform: Platform, bindings: int) -> tuple[list[Any], dict[str, Any]]:
    """Let the platform have so many bindings, enter them, and return them with the figures and what is wrong."""
    began = boottime()
    made = await platform.fill(bindings)
    filled_s = boottime() - began
    began = boottime()
    told = await command(stack, "import", "bindings", "--caller", _APP, "--yes")
    seconds = boottime() - began
    db = await asyncpg.connect(stack.database)
    try:
        rows = await db.fetch(
            "SELECT l.subscription_id, l.a_key, l.b_key FROM line AS l JOIN app AS a ON a.id = l.app_id"
            " WHERE a.name = $1 AND l.state = 'active'", _APP,
        )  # fmt: skip
    finally:
        await db.close()
    key = stack.vault().party_key
    want = {(line.subscription_id, key(a), key(b)) for line, a, b in made}
    have = {tuple(row) for row in rows}
    figures = {
        "bindings": bindings, "filled_s": round(filled_s, 1), "import_s": round(seconds, 1),
        "per_s": round(bindings / seconds), "import": told, "missing": len(want - have), "strange": len(have - want),
    }  # fmt: skip
    return made, figures


async def _measure(options: argparse.Namespace) -> int:
    began = time.monotonic()
    async with running(options.workers) as stack:
        _, platform = await set_up(stack, options.bindings, options.rate)
        _, figures = await fill_and_import(stack, platform, options.bindings)
        await platform.driver.close()
    told = {"machine": machine(None), "seconds": round(time.monotonic() - began, 1), **figures}
    print(orjson.dumps(told, option=orjson.OPT_INDENT_2).decode())
    return 1 if figures["missing"] or figures["strange"] else 0


def parser(prog: str, about: str | None) -> argparse.ArgumentParser:
    """Return the options that the two benches share."""
    made = argparse.ArgumentParser(prog=prog, description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--bindings", type=int, default=100_000, help="bindings at the platform (default 100000)")
    made.add_argument("--rate", type=float, default=2000.0, help="the app's limit, calls a second (default 2000)")
    made.add_argument("--workers", type=int, default=1)
    return made


def main() -> int:
    """Run; 1 = the books differ from the platform, 2 = nothing could be measured."""
    try:
        return asyncio.run(_measure(parser("bench.importing", __doc__).parse_args()))
    except BenchError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())

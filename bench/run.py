"""A scenario from file to result: brokers prepared, windows of load in turn, everything checked at the end."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import asyncpg

from bench.check import check_books, check_promises
from bench.cost import cost
from bench.crash.environment import variables
from bench.figures import closed_window, open_window
from bench.fill import fill, pool_use
from bench.history import Operation, check_history
from bench.machine import load_average, machine, server
from bench.plan import Plan
from bench.scenario import Scenario, prepare
from bench.scenario_file import Faults, ScenarioFile
from bench.series import answers, distribution
from bench.stack import Stack, address, running
from bench.table import kept
from bench.window import Progress, Window, run_window
from bench.wire import set_wire, spoken

_SETTLE_S = 60.0


@dataclass(frozen=True, slots=True)
class Target:
    """A broker that runs already: nothing of it is known but what it answers."""

    url: str
    api_key: str
    pools: tuple[str, ...] = ()
    own: bool = False


@dataclass(frozen=True, slots=True)
class Ask:
    """What to measure, and where."""

    name: str
    file: ScenarioFile
    target: Target | None = None
    state_root: Path | None = None


@dataclass(slots=True)
class Bench:
    """A broker ready for its load, and what has been seen of it."""

    ask: Ask
    plan: Plan
    folder: Path
    stack: Stack | None = None
    scenario: Scenario | None = None
    settle_s: float = _SETTLE_S
    runs: list[dict[str, Any]] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)

    async def run(self, number: int, progress: Progress) -> None:
        """Run one window and judge its rates."""
        plan = replace(self.plan, seed=self.plan.seed + 1000 * number)
        window = await self.window(plan, progress, self.ask.file.faults)
        self.runs.append(figures(plan, window))

    async def window(self, plan: Plan, progress: Progress, faults: Faults) -> Window:
        """Run one window of ``plan``; what was seen in it is judged with everything else at the end."""
        load, db = self.ask.file.load, None
        if self.stack is not None and not faults.end_processes:
            db = await asyncpg.connect(self.stack.database)
        try:
            if db is not None:
                await db.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
            window = await run_window(
                plan, self.folder, progress, warmup_s=load.warmup_s, stack=self.stack, db=db, faults=faults,
                processes=min(load.processes, load.clients),
            )  # fmt: skip
        finally:
            if db is not None:
                await db.close()
        self.operations.extend(operation for _, operation in window.samples)
        return window

    async def result(self) -> dict[str, Any]:
        """Check everything and tell it; ``violations`` is empty if every promise held."""
        told: dict[str, Any] = {
            "name": self.ask.name,
            "about": self.ask.file.about,
            "machine": machine(self.stack.folder if self.stack else None),
            "postgres": None,
            "scenario": _described(self.ask),
            "given": self.ask.file.model_dump(mode="json", exclude={"about"}, exclude_defaults=True),
            "runs": self.runs,
        }
        if self.stack is not None:
            db = await asyncpg.connect(self.stack.database)
            try:
                told["postgres"] = await server(db)
                told["pools"] = await self.pools(db)
            finally:
                await db.close()
        began = time.monotonic()
        told["violations"] = await self.violations()
        told["checked"] = {"operations": len(self.operations), "seconds": round(time.monotonic() - began, 1)}
        return told

    async def pools(self, db: asyncpg.Connection[Any]) -> list[dict[str, Any]]:
        """Return how full they are."""
        return await pool_use(db, self.plan.pools)

    async def violations(self) -> list[str]:
        """Compare what was seen, the database and the platform."""
        stack, scenario = self.stack, self.scenario
        if stack is None or scenario is None:
            # Neither rest nor cap of somebody else's app is known: no rest is demanded, and the platform's own cap.
            return check_history(self.operations, quarantine_s=0.0, cap=5000, sharing=True)
        found = check_history(self.operations, quarantine_s=scenario.quarantine_s, cap=scenario.cap)
        found += await check_books(
            stack.database, stack.vault(), stack.emulator_admin, settle_s=self.settle_s,
            undisturbed=not self.ask.file.faults.disturb,
        )  # fmt: skip
        may_expire = 0 < self.plan.ttl_s < 600
        found += await check_promises(stack.database, self.operations, settle_s=self.settle_s, expired=may_expire)
        return found


async def measure(asks: Sequence[Ask], progress: Progress) -> dict[str, Any]:
    """Measure the first, in turn with the second if there is one; return the first's result."""
    async with AsyncExitStack() as exits:
        benches = []
        for ask in asks:
            progress(f"starting the broker of {ask.name}", 0.0)
            benches.append(await prepared(ask, exits))
        await in_turn(benches, asks[0].file.load.runs, progress)
        progress("checking the books", 1.0)
        result, *others = [await bench.result() for bench in benches]
    for other in others:
        result |= {"against": other, "ratios": ratios(result["runs"], other["runs"])}
        result["violations"] += [f"{other['name']}: {one}" for one in other["violations"]]
    return result


async def in_turn(benches: Sequence[Bench], runs: int, progress: Progress) -> None:
    """Run each so often: A B, B A, ...: what changes with time falls on all alike."""
    for number in range(runs):
        for bench in benches if number % 2 == 0 else benches[::-1]:
            await bench.run(number, _part(progress, bench.ask.name, number, runs))


async def prepared(ask: Ask, exits: AsyncExitStack) -> Bench:
    """Start a broker, or find somebody's, and have it ready for its load."""
    folder = Path(exits.enter_context(TemporaryDirectory(prefix="broker-bench-samples-")))
    plan, file = ask.file.plan(), ask.file
    if ask.target is not None:
        host, port = address(ask.target.url, mine=ask.target.own)
        plan = replace(plan, host=host, port=port, api_key=ask.target.api_key, pools=ask.target.pools)
        return Bench(ask, plan, folder)
    options, trust = spoken(file.platform, folder)
    with variables(file.broker.settings):
        stack = await exits.enter_async_context(running(file.broker.workers, ask.state_root, *options, trust=trust))
    shape = file.shape()
    scenario = await prepare(stack, shape)
    await fill(stack, file.fill, shape, scenario.pools)
    await set_wire(stack, file.platform)
    host, port = address(stack.api, mine=False)
    plan = replace(plan, host=host, port=port, api_key=scenario.api_key, pools=scenario.pools)
    return Bench(ask, plan, folder, stack, scenario)


def figures(plan: Plan, window: Window) -> dict[str, Any]:
    """Return what came of a window: rates, latencies, cost, and how they went over its time."""
    begin, end, samples = window.begin, window.end, window.samples
    told = (closed_window if plan.kind == "closed" else open_window)(samples, begin, end)
    told["load_average"] = load_average()
    # Costs are read a few milliseconds after the window's edges; what is confirmed in them is counted with it.
    if window.before is not None and window.after is not None:
        told["cost"] = cost(window.before, window.after, told["confirmed"])
    told["troubles"] = window.troubles
    told["over_time"] = {"answers": answers(samples, begin, end), "processes": window.series.told(begin)}
    told["distribution"] = distribution(
        event.done - intended
        for intended, event in samples
        if event.op == "bind" and event.outcome == "ok" and begin <= event.done < end
    )
    return told


def ratios(ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return ours by theirs, run by run: median and spread of rate, p99 and CPU; of nine runs the middle seven."""
    found = {}
    of: dict[str, Callable[[dict[str, Any]], float | None]] = {
        "confirmed_per_s": lambda run: run["confirmed_per_s"],
        "p99": lambda run: run["latency_ms"].get("p99"),
        "service_cpu_us": lambda run: run["cost"]["cpu_us"]["workers"] if "cost" in run else None,
    }
    for name, value in of.items():
        pairs = [(value(one), value(other)) for one, other in zip(ours, theirs, strict=True)]
        turns = kept([one / other for one, other in pairs if one and other])
        if turns:
            found[name] = {
                "median": round(statistics.median(turns), 3), "least": round(min(turns), 3),
                "most": round(max(turns), 3),
            }  # fmt: skip
    return found


def _described(ask: Ask) -> dict[str, Any]:
    """Return what was asked for, without what does not apply."""
    file = ask.file.model_dump(mode="json", exclude={"about", "runner", "arguments"}, exclude_none=True)
    if ask.target is not None:
        return {"load": file["load"], "mix": file.get("mix"), "target": ask.target.url}
    settings = {name: value for name, value in sorted(os.environ.items()) if name.startswith("BROKER_")}
    return {**file, "broker": {**file["broker"], "settings": {**file["broker"]["settings"], **settings}}}


def _part(progress: Progress, name: str, run: int, runs: int) -> Progress:
    return lambda what, share: progress(f"{name}: {what}, run {run + 1} of {runs}", (run + share) / runs)

"""The result as a table for people."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any


def table(result: dict[str, Any]) -> str:
    """Return the whole report as text; violations come first."""
    lines = [f"VIOLATION: {one}" for one in result["violations"][:50]]
    if len(result["violations"]) > 50:
        lines.append(f"... and {len(result['violations']) - 50} more violations")
    lines += [*_where(result), "", *_runs(result["runs"])]
    costs = [run["cost"] for run in result["runs"] if "cost" in run]
    if costs:
        lines += ["", *_cost(costs), "", *_statements(costs[-1])]
    if "against" in result:
        lines += ["", f"in turn with {result['against']['name']}:", *_runs(result["against"]["runs"])]
        lines += [
            f"{name}: {one['median']:.2f} times, spread {one['least']:.2f} to {one['most']:.2f}"
            for name, one in result["ratios"].items()
        ]
    lines += ["", *_pools(result.get("pools", []))]
    checked = result["checked"]
    lines += [
        f"{len(result['violations'])} violations in {checked['operations']} operations ({checked['seconds']} s)",
    ]
    return "\n".join(lines)


def _where(result: dict[str, Any]) -> list[str]:
    machine, postgres = result["machine"], result["postgres"]
    versions = " ".join(f"{name} {one}" for name, one in machine["packages"].items())
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, Linux {machine['kernel']}",
        f"disk {machine['disk']}, load average before {machine['load_average'][0]}",
        f"commit {machine['commit']}, Python {machine['python']}, {versions}",
    ]
    if postgres is not None:
        names = ("fsync", "synchronous_commit", "full_page_writes", "wal_sync_method")
        shown = ", ".join(f"{name} {postgres[name]}" for name in names)
        lines.append(f"PostgreSQL {postgres['version']}: {shown}")
    lines += [f"{result['name']}: {result['about']}", "; ".join(_given(result["given"]))]
    return lines


def _given(given: dict[str, Any], of: str = "") -> Iterator[str]:
    """Name what is not as always."""
    for name, value in given.items():
        if isinstance(value, dict):
            yield from _given(value, f"{of}{name}.")
        else:
            yield f"{of}{name} {value}"


def _runs(runs: list[dict[str, Any]]) -> list[str]:
    head = f"{'run':>3} {'confirmed/s':>11} {'p50':>8} {'p99':>8} {'p99.9':>8} {'max':>8} ms  {'released':>8}"
    head += f" {'load':>5}  not 201"
    lines = [head]
    for number, run in enumerate(runs, start=1):
        ms = run["latency_ms"]
        shown = " ".join(f"{ms.get(name, 0):8.1f}" for name in ("p50", "p99", "p99_9", "max"))
        others = " ".join(f"{status}:{count}" for status, count in {**run["not_201"], **run["release_not_200"]}.items())
        lines.append(
            f"{number:>3} {run['confirmed_per_s']:>11.1f} {shown}     {run['released']:>8} "
            f"{run['load_average'][0]:>5}  {others or '-'}"
        )
        if "intended" in run:
            lag = run["send_lag_ms"]
            lines.append(
                f"    intended {run['intended']}, sent late {run['sent_late']}, never sent {run['unsent']}, "
                f"send lag p99 {lag.get('p99', 0):.1f} ms"
            )
        for name in ("reads", "changes"):
            if name in run:
                one = run[name]
                lines.append(
                    f"    {name} {one['ok']}, p99 {one['latency_ms'].get('p99', 0):.1f} ms, not 200 {one['not_ok']}"
                )
        if run["troubles"]:
            lines.append("    " + ", ".join(f"{name} {count}" for name, count in run["troubles"].items()))
    rates = [run["confirmed_per_s"] for run in runs]
    if len(rates) > 1:
        lines.append(f"median {statistics.median(rates):.1f}/s, spread {min(rates):.1f} to {max(rates):.1f}")
    return lines


def _pools(pools: list[dict[str, Any]]) -> list[str]:
    if not pools:
        return []
    used, least = (sum(pool[name] for pool in pools) for name in ("in_use", "least"))
    lines = sum(pool["lines"] for pool in pools)
    return [f"{lines} live lines on {used} X in the {len(pools)} fullest pools; X* {least}: {used / least:.2f} times"]


def _cost(costs: list[dict[str, Any]]) -> list[str]:
    lines = ["Per confirmed binding (one column a run)"]

    def row(name: str, values: list[float], form: str = "10.1f") -> None:
        lines.append(f"  {name:<22}" + "".join(f"{value:{form}}" for value in values))

    for role in costs[0]["cpu_us"]:
        row(f"CPU us {role}", [one["cpu_us"][role] for one in costs])
        row("  of it in the kernel", [one["kernel_us"][role] for one in costs])
    row("CPU us in all", [one["cpu_us_all"] for one in costs])
    row("WAL bytes", [one["wal_bytes"] for one in costs])
    row("WAL page images", [one["wal_page_images"] for one in costs], "10.3f")
    row("SQL round trips", [one["sql_flights"] for one in costs], "10.3f")
    row("rows written", [one["rows_written"] for one in costs], "10.2f")
    row("  inserted", [one["rows"]["inserted"] for one in costs], "10.2f")
    row("  updated", [one["rows"]["updated"] for one in costs], "10.2f")
    row("    on their page", [one["rows"]["in_place"] for one in costs], "10.2f")
    row("  deleted", [one["rows"]["deleted"] for one in costs], "10.2f")
    row("(others' CPU s)", [one["others_cpu_s"] for one in costs])
    row("(stolen CPU s)", [one["steal_s"] for one in costs])
    return lines


def _statements(cost: dict[str, Any]) -> list[str]:
    head = f"{'statement (last run)':<28}{'calls':>8}{'rows/call':>11}{'mean ms':>10}{'us/binding':>12}"
    lines = [head + f"{'WAL B/binding':>15}"]
    lines += [
        f"{one['name']:<28}{one['calls']:>8}{one['rows_per_call']:>11.1f}{one['mean_ms']:>10.3f}{one['exec_us']:>12.1f}"
        f"{one['wal_bytes']:>15.1f}"
        for one in cost["statements"]
    ]
    return lines

"""Where a figure was measured: without it a figure means nothing."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import asyncpg

from bench.stack import filesystem

_PACKAGES = ("aiohttp", "asyncpg", "uvloop", "httptools", "orjson", "cryptography")
_SETTINGS = ("fsync", "synchronous_commit", "full_page_writes", "wal_sync_method", "wal_compression", "wal_level",
             "shared_buffers", "max_wal_size", "max_connections", "commit_delay")  # fmt: skip


def machine(folder: Path | None = None) -> dict[str, Any]:
    """Return processor, memory, kernel and versions; ``folder`` is where the database lies."""
    cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.partition(":")[2].strip() for line in cpuinfo if line.startswith("model name")), "unknown")
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gib": round(pages * size / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _PACKAGES},
        "commit": _commit(),
        "load_average": load_average(),
        "disk": filesystem(folder) if folder else None,
    }


def load_average() -> list[float]:
    """Return 1, 5 and 15 minutes."""
    return [round(one, 2) for one in os.getloadavg()]


async def server(db: asyncpg.Connection[Any]) -> dict[str, str]:
    """Return PostgreSQL's version and what bears on durability and speed."""
    shown = {name: str(await db.fetchval("SELECT current_setting($1)", name)) for name in _SETTINGS}
    return {"version": str(await db.fetchval("SELECT current_setting('server_version')")), **shown}


def _commit() -> str | None:
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None

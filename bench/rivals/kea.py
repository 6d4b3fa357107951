"""Kea DHCP with its PostgreSQL backend under perfdhcp, where both are installed: another allocator of scarce numbers.

A lease is an address for a client, kept in PostgreSQL before it is answered: what a binding is without a platform.
Kea's server, its tables and the load are started here, on ports of their own, and ended afterwards.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from urllib.parse import urlsplit

import asyncpg
import orjson

from bench.stack import BenchError
from broker.embedded import Embedded

_PROGRAMS: Final = ("kea-dhcp4", "kea-admin", "perfdhcp")
_SERVER_PORT, _RELAY_PORT = "10067", "10068"
_CLIENTS = 1_000_000
_LIMIT_S = 60.0
#: Asked for more than it can it loses most of it, so a run is the best of these.
_OFFERED = (500, 1000, 2000, 4000)
_RATE = re.compile(r"^Rate: ([0-9.]+) 4-way exchanges/second", re.MULTILINE)


def leases_per_s(state_root: Path | None, *, seconds: int, runs: int) -> dict[str, Any]:
    """Return leases a second in each run.

    Raises:
        BenchError: a program is missing, or did not do its part.
    """
    if missing := [name for name in _PROGRAMS if _program(name) is None]:
        raise BenchError(f"Kea is not installed: {', '.join(missing)} not found (Debian: kea-dhcp4-server, kea-admin).")
    with TemporaryDirectory(prefix="broker-kea-", dir=state_root or "/var/tmp") as name:  # noqa: S108 - random name
        folder = Path(name)
        folder.chmod(0o755)
        with Embedded(folder / "postgres") as server:
            rates = asyncio.run(_measured(folder, server.dsn, seconds, runs))
            return {"leases_per_s": rates, "postgres": server.version}


async def _measured(folder: Path, dsn: str, seconds: int, runs: int) -> list[float]:
    admin = await asyncpg.connect(dsn)
    await admin.execute("CREATE DATABASE kea")
    await admin.close()
    parts = urlsplit(dsn)
    login = {"user": parts.username, "password": parts.password, "host": parts.hostname, "port": parts.port}
    # Its script warns where the password can be seen; the server and the password end with this run.
    await _run(
        "kea-admin", "db-init", "pgsql", "-u", str(parts.username), "-p", str(parts.password),
        "-h", str(parts.hostname), "-P", str(parts.port), "-n", "kea", env={"PGPASSWORD": str(parts.password)},
    )  # fmt: skip
    config = folder / "kea.json"
    config.write_bytes(orjson.dumps({"Dhcp4": _config(login)}))
    places = {f"KEA_{name}": str(folder) for name in ("PIDFILE_DIR", "LOCKFILE_DIR", "DHCP_DATA_DIR")}
    server = await asyncio.create_subprocess_exec(
        str(_program("kea-dhcp4")), "-c", str(config), "-p", _SERVER_PORT, "-P", _RELAY_PORT, stdout=PIPE,
        stderr=STDOUT, env={**os.environ, **places},
    )  # fmt: skip
    try:
        await _started(server)
        return [max([await _offered(rate, seconds, run) for rate in _OFFERED]) for run in range(runs)]
    finally:
        with suppress(ProcessLookupError):
            server.terminate()
        await server.wait()


async def _offered(rate: int, seconds: int, run: int) -> float:
    said = await _run(
        "perfdhcp", "-4", "-N", _SERVER_PORT, "-L", _RELAY_PORT, "-r", str(rate), "-R", str(_CLIENTS),
        "-p", str(seconds), "-s", str(run * 10_000 + rate), "127.0.0.1",
    )  # fmt: skip
    found = _RATE.search(said)
    if found is None:
        raise BenchError("perfdhcp told no rate.")
    return float(found.group(1))


def _config(login: dict[str, Any]) -> dict[str, Any]:
    return {
        "interfaces-config": {"interfaces": ["lo"], "dhcp-socket-type": "udp"},
        "lease-database": {"type": "postgresql", "name": "kea", **login},
        "multi-threading": {"enable-multi-threading": True},
        "valid-lifetime": 86_400,
        "subnet4": [
            {"id": 1, "subnet": "10.0.0.0/8", "pools": [{"pool": "10.0.0.1 - 10.255.255.254"}],
             "relay": {"ip-addresses": ["127.0.0.1"]}},
        ],
        "loggers": [{"name": "kea-dhcp4", "severity": "INFO", "output_options": [{"output": "stdout", "flush": True}]}],
    }  # fmt: skip


async def _started(server: asyncio.subprocess.Process) -> None:
    assert server.stdout is not None  # noqa: S101 - asked for with PIPE
    async with asyncio.timeout(_LIMIT_S):
        async for line in server.stdout:
            if b"DHCP4_STARTED" in line:
                _drain(server.stdout)
                return
    raise BenchError("Kea did not start.")


def _drain(lines: asyncio.StreamReader) -> None:
    """Read on, so that the server never waits for somebody to read its log."""

    async def drain() -> None:
        while await lines.read(1 << 16):
            pass

    task = asyncio.get_running_loop().create_task(drain())
    _DRAINING.add(task)
    task.add_done_callback(_DRAINING.discard)


_DRAINING: set[asyncio.Task[None]] = set()


async def _run(name: str, *arguments: str, env: dict[str, str] | None = None) -> str:
    process = await asyncio.create_subprocess_exec(
        str(_program(name)), *arguments, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, env={**os.environ, **(env or {})}
    )
    out, _ = await asyncio.wait_for(process.communicate(), _LIMIT_S)
    # perfdhcp ends with 3 when some exchanges were lost, as under full load they are.
    if process.returncode not in {0, 3}:
        raise BenchError(f"{name} failed: {out.decode(errors='replace').strip()[-300:]}")
    return out.decode(errors="replace")


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")

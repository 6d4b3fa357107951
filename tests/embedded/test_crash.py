from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from broker.embedded import Embedded, EmbeddedError, account, binaries, process, running, state
from tests.embedded.starting import Person, fetch, holding, myself, wait_until


def _gone(pid: int) -> bool:
    return process.started_at(pid) is None


def test_killed_starter_leaves_no_server(person: Person, folder: Path) -> None:
    """After SIGKILL of the process that started it the server ends by itself, and the next start finds the data."""
    person.owns(folder)
    with holding(person, folder) as holder:
        fetch(holder.said["dsn"], "CREATE TABLE kept AS SELECT 42 AS answer")
        holder.kill()
        wait_until(lambda: _gone(holder.server_pid), "the server is gone")
    with holding(person, folder) as again:
        assert fetch(again.said["dsn"], "SELECT answer FROM kept") == 42


def test_killed_starter_and_impatient_successor(folder: Path) -> None:
    """A start right after the kill waits for the old server to end instead of failing."""
    with holding(myself(), folder, durable=False) as holder:
        holder.kill()
        with Embedded(folder, durable=False) as server:
            assert fetch(server.dsn, "SELECT 1") == 1


def test_killed_server(folder: Path) -> None:
    """After SIGKILL of the server itself stop is quiet and the next start recovers what was committed."""
    embedded = Embedded(folder)
    server = embedded.start()
    fetch(server.dsn, "CREATE TABLE kept AS SELECT 42 AS answer")
    os.kill(server.pid, signal.SIGKILL)
    embedded.stop()
    with embedded as recovered:
        assert fetch(recovered.dsn, "SELECT answer FROM kept") == 42


def test_stale_files_of_a_reused_pid(folder: Path) -> None:
    """A postmaster.pid and server.json whose pid now belongs to somebody else stop neither a start nor a lookup."""
    with Embedded(folder, durable=False):
        record = json.loads((folder / "server.json").read_text())
        lines = (folder / "data" / "postmaster.pid").read_text().splitlines()
    with subprocess.Popen(["sleep", "600"]) as somebody:
        (folder / "server.json").write_text(json.dumps(record | {"pid": somebody.pid}))
        (folder / "data" / "postmaster.pid").write_text("\n".join([str(somebody.pid), *lines[1:], ""]))
        assert running(folder) is None
        with Embedded(folder, durable=False) as server:
            assert fetch(server.dsn, "SELECT 1") == 1
        assert somebody.poll() is None
        somebody.kill()


def test_killed_while_creating(folder: Path) -> None:
    """What an interrupted initdb left is thrown away."""
    (folder / "lock").touch()
    (folder / "data.new-1").mkdir()
    (folder / "data.new-1" / "PG_VERSION").write_text("18\n")
    with Embedded(folder, durable=False) as server:
        assert fetch(server.dsn, "SELECT 1") == 1
    assert not list(folder.glob("data.new*"))


def test_orphan_is_ended(folder: Path) -> None:
    """A server that outlived its starter, as on systems without a death signal, is interrupted by the next start."""
    orphan = Embedded(folder, durable=False)
    pid = orphan.start().pid
    orphan._state.release()  # what the kernel does when the starter dies
    with Embedded(folder, durable=False) as server:
        assert server.pid != pid
        assert _gone(pid)
    orphan.stop()


def test_server_started_by_hand_is_left_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server over our data that we did not start, say for a dump, is named and not interrupted."""
    monkeypatch.setattr(state, "_STRANGER_LIMIT_S", 0.0)
    with Embedded(folder, durable=False):
        pass
    who = account.choose(folder / "data")
    programs = binaries.find(who, folder / "programs")
    arguments = [programs.postgres, "-D", str(folder / "data"), "-c", f"unix_socket_directories={folder / 'run'}"]
    with (folder / "log").open("ab") as log:
        by_hand = process.spawn([*arguments, "-c", "listen_addresses="], who, log)
    try:
        wait_until((folder / "run" / ".s.PGSQL.5432").exists, "the server started by hand listens")
        with pytest.raises(EmbeddedError, match=f"in use by the PostgreSQL with pid {by_hand.pid}"):
            Embedded(folder, durable=False).start()
        assert by_hand.poll() is None
    finally:
        by_hand.send_signal(signal.SIGINT)
        by_hand.wait(60)


def test_starter_dead_before_the_death_signal_is_set() -> None:
    """A child whose parent ended before it asked for the signal ends at once instead of running for ever."""
    not_the_parent = os.getpid() + 1
    ended = subprocess.run(["true"], preexec_fn=process._dies_with(not_the_parent, signal.SIGINT), check=False)
    assert ended.returncode == 1

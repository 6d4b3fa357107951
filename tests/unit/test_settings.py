"""Settings from the environment: every mistake is named, no secret is shown."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from broker.settings import SettingsError, database_url, load, shown

_KEY = base64.b64encode(b"k" * 32).decode()
_GOOD = {
    "BROKER_DATABASE_URL": "postgresql://u:secret-word@db/broker",
    "BROKER_DATA_KEYS": f"1:{_KEY}",
    "BROKER_INDEX_KEY": _KEY,
}


def _problems(**environ: str) -> str:
    with pytest.raises(SettingsError) as raised:
        load({**_GOOD, **environ})
    return str(raised.value)


def test_secrets_come_from_files_too(tmp_path: Path) -> None:
    """NAME_FILE holds the value, with or without a newline at its end."""
    file = tmp_path / "dsn"
    file.write_text(_GOOD["BROKER_DATABASE_URL"] + "\n", encoding="utf-8")
    rest = {name: value for name, value in _GOOD.items() if name != "BROKER_DATABASE_URL"}
    environ = {**rest, "BROKER_DATABASE_URL_FILE": str(file)}
    assert load(environ) == load(_GOOD)
    assert database_url(environ) == database_url(_GOOD) == _GOOD["BROKER_DATABASE_URL"]


def test_a_file_that_cannot_be_read_is_named_once(tmp_path: Path) -> None:
    """A missing file, a folder and a file that is no text are one line each, and not "is not set" as well."""
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    rest = {name: value for name, value in _GOOD.items() if name != "BROKER_INDEX_KEY"}
    for path in (tmp_path / "none", tmp_path, binary):
        with pytest.raises(SettingsError) as raised:
            load({**rest, "BROKER_INDEX_KEY_FILE": str(path)})
        (line,) = raised.value.problems
        assert line.startswith("BROKER_INDEX_KEY_FILE: ")


def test_a_secret_set_twice_is_an_error(tmp_path: Path) -> None:
    """A value and a file for the same setting contradict each other."""
    file = tmp_path / "key"
    file.write_text(_KEY, encoding="utf-8")
    assert "BROKER_INDEX_KEY is set, too" in _problems(BROKER_INDEX_KEY_FILE=str(file))
    with pytest.raises(SettingsError):
        database_url({"BROKER_DATABASE_URL": "x", "BROKER_DATABASE_URL_FILE": str(file)})


def test_misspelt_variables_name_the_nearest() -> None:
    """A variable that does not exist is an error, with the one that was probably meant."""
    assert "BROKER_WORKRES: no such setting; did you mean BROKER_WORKERS?" in _problems(BROKER_WORKRES="2")
    assert "BROKER_DATA_KEY_FILE: no such setting; did you mean BROKER_DATA_KEYS_FILE?" in _problems(
        BROKER_DATA_KEY_FILE="/x"
    )


def test_all_mistakes_come_at_once_and_show_no_secret() -> None:
    """Each line names one variable; values of secrets stay out of it."""
    text = _problems(
        BROKER_DATABASE_URL="mysql://root:hunter2@x", BROKER_DATA_KEYS="1:hunter2", BROKER_INDEX_KEY="hunter2",
        BROKER_WORKERS="0", BROKER_LEASE_S="soon", BROKER_TEST_CRASH_AT="nonsense", BROKER_NO="1",
    )  # fmt: skip
    named = {line.partition(":")[0] for line in text.splitlines()}
    assert named == {
        "BROKER_DATABASE_URL", "BROKER_DATA_KEYS", "BROKER_INDEX_KEY", "BROKER_WORKERS", "BROKER_LEASE_S",
        "BROKER_TEST_CRASH_AT", "BROKER_NO",
    }  # fmt: skip
    assert "hunter2" not in text


@pytest.mark.parametrize(
    ("workers", "edge", "right"), [("2", "1", "yes"), ("2", "2", "no"), ("1", "0", "yes"), ("1", "1", "no")]
)
def test_somebody_serves_the_order_systems(workers: str, edge: str, right: str) -> None:
    """Not every worker may listen to the platform alone."""
    said = _problems(BROKER_WORKERS=workers, BROKER_EDGE_WORKERS=edge, BROKER_NO="1")
    assert ("BROKER_EDGE_WORKERS: must be less than BROKER_WORKERS" not in said) == (right == "yes")


def test_shown_settings_hide_secrets() -> None:
    """What `config show` prints has every name and no secret."""
    text = str(shown(load(_GOOD)))
    assert "BROKER_WORKERS" in text
    assert "secret-word" not in text
    assert _KEY not in text

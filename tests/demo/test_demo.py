"""``broker demo`` against a real `broker up`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.cli.test_commands import run
from tests.contract.service import client_of, memory, up
from tests.pg import state_folder

#: Long enough for a second look at the pool, whose figures are up to ten seconds old.
SMALL = ("--couriers", "4", "--minutes", "10", "--seconds", "12", "--json")


def played(*options: str) -> dict[str, Any]:
    """Play and return the report."""
    ended = run("demo", *SMALL, *options)
    assert ended.returncode == 0, ended.stderr + ended.stdout
    told: dict[str, Any] = orjson.loads(ended.stdout)
    return told


@pytest.mark.slow
async def test_an_hour_reaches_nobody_wrong_and_spends_one_or_two_platform_calls_an_order() -> None:
    """On the test clock: what runs out costs the bind only, what is released one call more; every call is right."""
    with state_folder(memory()) as folder, up(folder, "--workers", "1", "--test-clock") as service:
        told = played("--state-dir", str(folder))
        bindings, calls, spent = told["bindings"], told["calls"], told["platform_calls"]
        assert told["clock"] == "test"
        assert (bindings["refused"], bindings["live"]) == ({}, 0)
        assert bindings["bound"] == bindings["released"] + bindings["expired"]
        assert bindings["released"] > 0
        assert bindings["expired"] > 0
        assert 0 < spent["per_expired_order"] <= 1.1
        assert 0 < spent["per_released_order"] <= 2.1
        assert (calls["wrong_person"], calls["missed"]) == (0, 0)
        assert calls["reached_right"] > 0
        assert calls["rightly_nobody"] > 0
        feed = told["feed"]
        assert feed["calls_answered"] == calls["reached_right"]
        assert (feed["calls_ended"], feed["cdrs"]) == (calls["placed"], calls["placed"])
        assert feed["events"] > bindings["bound"] + feed["cdrs"]
        assert 0 < told["x"]["in_use"] <= told["x"]["used_in_all"] <= 24 + 40
        async with client_of(service) as client:
            assert [item for item in await client.platform_bindings() if item["a"].startswith("+8615")] == []
        refused = run("demo", *SMALL, "--url", service.api, "--key", "bbk_wrong", "--emulator",
                      service.ready["emulator_admin"])  # fmt: skip
        assert (refused.returncode, refused.stdout) == (2, "")
        assert "401" in refused.stderr


def test_it_needs_a_broker_and_plays_on_this_machine_only(tmp_path: Path) -> None:
    """No `up`, half an address, a far one, a dead one: one sentence each, exit code 2."""
    for options, words in (
        (("--state-dir", str(tmp_path)), "No `broker up` runs in"),
        (("--url", "http://127.0.0.1:1"), "belong together"),
        (("--url", "http://192.0.2.1", "--key", "k", "--emulator", "http://127.0.0.1:1"), "is not this machine"),
        (("--url", "127.0.0.1", "--key", "k", "--emulator", "http://127.0.0.1:1"), "is not an http address"),
        (("--url", "http://127.0.0.1:1", "--key", "k", "--emulator", "http://127.0.0.1:1"), "Cannot connect"),
    ):
        ended = run("demo", *options)
        assert (ended.returncode, ended.stdout) == (2, ""), options
        assert words in ended.stderr
        assert ended.stderr.count("\n") == 1


def test_addresses_of_a_process_that_is_gone_are_not_believed(tmp_path: Path) -> None:
    """A killed `up` leaves its file behind; another process may have its number."""
    (tmp_path / "addresses.json").write_bytes(orjson.dumps({"pid": 1, "started": -1}))
    assert "No `broker up` runs in" in run("demo", "--state-dir", str(tmp_path)).stderr
    (tmp_path / "addresses.json").write_text("{", encoding="utf-8")
    assert "are not what `broker up` writes" in run("demo", "--state-dir", str(tmp_path)).stderr

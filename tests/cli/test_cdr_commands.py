"""Records from files, beside those that were pushed."""

from __future__ import annotations

import csv
import gzip
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.cli.test_operate_commands import ask, plain, service
from tests.contract.service import Service, client_of, eventually, phone, rows
from tests.contract.test_told import _push
from tests.edge.rig import fee, fees, session_id

__all__ = ["service"]


def _lines(x: str, mark: str, count: int) -> list[dict[str, Any]]:
    base: dict[str, Any] = {"bindNum": x, "userData": mark, "callerNum": phone(), "fwdDstNum": phone()}
    return [fee(session_id(), talk_s=place, **base) for place in range(count)]


@pytest.mark.parametrize("form", ["csv", "ndjson"])
async def test_what_was_not_pushed_is_entered_once(service: Service, tmp_path: Path, form: str) -> None:
    """A file of which one record was pushed: a dry run changes nothing, the import what is missing, again nothing."""
    async with client_of(service) as client:
        made = (await client.bind(a=phone(), b=phone())).body
        records = _lines(made["x"], made["line"].replace("-", ""), 7)
        await _push(service, client, "cdr", fees(records[0]))
        file = tmp_path / f"records.{form}.gz"
        with gzip.open(file, "wt", newline="") as text:
            if form == "csv":
                names = list(records[0])
                writer = csv.writer(text)
                writer.writerow(["Call ID" if name == "icid" else name.upper() for name in names])
                writer.writerows([str(record[name]) for name in names] for record in records)
                writer.writerow(["nonsense"])
            else:
                text.writelines(orjson.dumps(record).decode() + "\n" for record in records)
                text.write("nonsense\n")
        command = ("cdr", "import", str(file), "--app", "demo-axb", "--column", "Call ID=icid")
        seen = ask(service, *command, "--dry-run")
        assert (seen["new"], seen["known"], seen["unreadable"], seen["unreadable_lines"]) == (
            6,
            1,
            1,
            [9 if form == "csv" else 8],
        )
        assert ask(service, *command)["new"] == 6

        async def entered() -> bool:
            found = await rows(
                service, "SELECT talk_s FROM cdr WHERE bindings = ARRAY[(SELECT id FROM binding WHERE line_id = $1)]",
                made["line"],
            )  # fmt: skip
            return sorted(row["talk_s"] for row in found) == list(range(7))

        await eventually(entered, "all records have their effects")
        again = ask(service, *command)
        assert (again["new"], again["known"]) == (0, 7)
        told = (await client.ask("GET", f"/v1/events?types=cdr.created&binding_id={made['id']}")).body["items"]
        assert len(told) == 7


def test_a_file_in_another_encoding(service: Service, tmp_path: Path) -> None:
    """As the console writes it, GB18030 or UTF-8 with its mark; what is not of it is named, and nothing entered."""
    file, records = tmp_path / "export.csv", [fee(session_id(), bindNum="+8617010000001") for _ in range(3)]
    lines = [f"{one['icid']},{one['sessionId']},{one['callEndTime']},正常" for one in records]
    text = "\n".join(["话单标识,sessionId,callEndTime,说明", *lines, lines[0]])
    command = ("cdr", "import", str(file), "--app", "demo-axb", "--column", "话单标识=icid")
    for mark, written, named in (("", "gb18030", "gb18030"), ("\ufeff", "utf-8", "utf-8"), ("\ufeff", "utf-8", "gbk")):
        file.write_bytes((mark + text).encode(written))
        seen = ask(service, *command, "--encoding", named, "--dry-run")
        assert (seen["new"], seen["known"], seen["unreadable"]) == (3, 1, 0)
    file.write_bytes(text.encode("gb18030"))
    assert "Line 1 is not utf-8 (byte 1)" in ask(service, *command, code=1)
    file.write_bytes(text.encode() + b"\n" + lines[1].encode("gbk"))
    refused = plain(service, *command)
    assert (refused.returncode, "Line 6 is not utf-8" in refused.stderr) == (1, True)
    assert "--encoding gb18030" in refused.stderr
    assert "Traceback" not in refused.stderr
    file.write_bytes(text.encode())
    assert ask(service, *command)["new"] == 3


async def test_local_times(service: Service, tmp_path: Path) -> None:
    """Times without a zone are of the one that is named, UTC if none is; those with a zone stay, as does nonsense."""
    ended = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
    local = (ended + timedelta(hours=8)).strftime("%Y-%m-%d %H:%M:%S")
    told = {"local": local, "own": ended.isoformat(), "none": "soon"}
    records = [fee(session_id(), bindNum=x) | {"callEndTime": at} for x, at in told.items()]
    file = tmp_path / "local.ndjson"
    file.write_bytes(b"".join(orjson.dumps(one) + b"\n" for one in records))
    command = ("cdr", "import", str(file), "--app", "demo-axb")
    for unknown in ("Mars/Olympus", "../UTC", ""):
        refused = plain(service, *command, "--zone", unknown)
        assert (refused.returncode, "IANA" in refused.stderr, "Traceback" in refused.stderr) == (2, True, False)
    assert ask(service, *command, "--zone", "Asia/Shanghai")["new"] == 3

    async def entered() -> bool:
        found = await rows(service, "SELECT x, ended_at FROM cdr WHERE x = ANY($1)", list(told))
        return {row["x"]: row["ended_at"] for row in found} == {"local": ended, "own": ended, "none": None}

    await eventually(entered, "the records are there with the time of their zone")


def test_a_dry_run_counts_as_the_import_does(service: Service, tmp_path: Path) -> None:
    """A record that is twice in a file is new once, however far apart the two are."""
    records = [fee(session_id(), bindNum="+8617010000001") for _ in range(300)]
    file = tmp_path / "twice.ndjson"
    file.write_bytes(b"".join(orjson.dumps(one) + b"\n" for one in (*records, *records[:50])))
    command = ("cdr", "import", str(file), "--app", "demo-axb")
    told = [ask(service, *command, *options) for options in (("--dry-run",), ("--dry-run",), ())]
    assert [(one["new"], one["known"]) for one in told] == [(300, 50)] * 3


def test_what_is_too_old_or_no_file(service: Service, tmp_path: Path) -> None:
    """Nothing is entered that would be thrown away, and mistakes are sentences."""
    old = tmp_path / "old.ndjson"
    old.write_bytes(orjson.dumps(fee(session_id(), at=datetime.now(UTC) - timedelta(days=400))) + b"\n")
    assert ask(service, "cdr", "import", str(old), "--app", "demo-axb")["too_old"] == 1
    swallowing = tmp_path / "quoted.csv"
    records = [fee(session_id(), bindNum="+8617010000001") for _ in range(3)]
    cells = [f"{one['icid']},{one['sessionId']},{one['callEndTime']}" for one in records]
    cells[1] = cells[1].replace(",", ',"', 1)
    long = "x" * 200_000
    swallowing.write_text("\ufefficid,sessionId,callEndTime\n" + "\n".join([*cells, long, ""]))
    told = ask(service, "cdr", "import", str(swallowing), "--app", "demo-axb", "--dry-run")
    assert (told["new"], told["unreadable_lines"]) == (2, [3, 5])
    flipped = tmp_path / "flipped.csv.gz"
    packed = bytearray(gzip.compress(swallowing.read_bytes()))
    packed[20:40] = bytes(20)
    flipped.write_bytes(packed)
    assert "cannot be read" in ask(service, "cdr", "import", str(flipped), "--app", "demo-axb", code=1)
    broken = tmp_path / "broken.csv.gz"
    broken.write_bytes(b"\x1f\x8b but no more")
    ended: subprocess.CompletedProcess[str] = plain(service, "cdr", "import", str(broken), "--app", "demo-axb")
    assert (ended.returncode, "cannot be read" in ended.stderr) == (1, True)
    assert "Traceback" not in ended.stderr

"""The emulator's durable state: one append-only file of JSON lines, which is its ledger as well.

Line kinds: ledger rows begin with ``{"seq":``; everything else has a ``"t"``: ``reset`` (the state is empty from
here on), ``app``, ``numbers``, ``tones``, ``clock``, ``recording``, ``live`` (a binding as compaction found it). Rows
before the last reset are history: they can be read, they are not applied again.
"""

from __future__ import annotations

import fcntl
import os
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import orjson

_ROW: Final = b'{"seq":'
_RESET: Final = b'{"t":"reset"'
_SCAN_BYTES: Final = 1 << 20


class StateDirBusyError(RuntimeError):
    """Another emulator works in this folder."""


class Journal:
    """Appends lines before an answer leaves, replays them at start, hands out ledger rows by their number.

    Rows are numbered without gaps; ``first_seq`` is the oldest one kept. A line cut off by a kill was never
    acknowledged and is dropped when the file is opened.
    """

    def __init__(self, folder: Path, *, fsync: bool = False) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise StateDirBusyError(f"another emulator is running on {folder}") from error
        self._path = folder / "journal.jsonl"
        self._fsync = fsync
        self._fd = -1
        self._open()

    def close(self) -> None:
        """Close the file and let another emulator have the folder."""
        os.close(self._fd)
        os.close(self._lock)

    @property
    def next_seq(self) -> int:
        """The number the next ledger row must carry."""
        return self.first_seq + len(self._offsets)

    def append(self, lines: bytes, *, rows: int = 0) -> None:
        """Write whole lines, of which the first ``rows`` are ledger rows, or raise ``OSError`` and write nothing."""
        written = 0
        try:
            while written < len(lines):
                written += os.write(self._fd, lines[written:] if written else lines)
            if self._fsync:
                os.fdatasync(self._fd)
        except OSError:
            os.ftruncate(self._fd, self._size)
            raise
        self._note(lines, rows)

    def read(self, after: int, limit: int) -> tuple[list[bytes], int | None]:
        """Return up to ``limit`` rows numbered above ``after`` as raw JSON, and the cursor if there are more."""
        start = max(after + 1, self.first_seq) - self.first_seq
        end = min(start + limit, len(self._offsets))
        if start >= end:
            return [], None
        more = end < len(self._offsets)
        until = self._offsets[end] if more else self._size
        chunk = _read_exactly(self._fd, self._offsets[start], until)
        rows = [line for line in chunk.split(b"\n") if line.startswith(_ROW)]
        return rows, self.first_seq + end - 1 if more else None

    def replay(self) -> Iterator[dict[str, Any]]:
        """Yield the records that make up the state, oldest first."""
        at = self._replay_from
        rest = b""
        while at < self._size:
            chunk = rest + _read_exactly(self._fd, at, min(at + _SCAN_BYTES, self._size))
            at += len(chunk) - len(rest)
            *lines, rest = chunk.split(b"\n")
            yield from map(orjson.loads, lines)

    @property
    def replay_lines(self) -> int:
        """Lines a start would have to apply."""
        return self._lines_since_reset

    def compact(self, state: Iterable[dict[str, Any]], *, keep_rows: int) -> None:
        """Rewrite the file as its last ``keep_rows`` rows, a reset, and ``state``; the old file stands until then."""
        fresh = self._path.with_suffix(".new")
        with open(fresh, "wb", opener=_private) as target:
            cursor: int | None = max(self.next_seq - keep_rows, self.first_seq) - 1
            while cursor is not None:
                rows, cursor = self.read(cursor, 10_000)
                target.writelines(row + b"\n" for row in rows)
            target.write(orjson.dumps({"t": "reset", "seq": self.next_seq}) + b"\n")
            target.writelines(orjson.dumps(record) + b"\n" for record in state)
            target.flush()
            os.fsync(target.fileno())
        fresh.replace(self._path)
        os.close(self._fd)
        self._open()

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._offsets = array("Q")
        self._size = 0
        self._replay_from = 0
        self._lines_since_reset = 0
        self.first_seq = 1
        self._index()

    def _index(self) -> None:
        """Find every row and the last reset; cut off a torn last line."""
        with os.fdopen(os.dup(self._fd), "rb") as source:
            source.seek(0)
            for line in source:
                if not line.endswith(b"\n"):
                    os.ftruncate(self._fd, self._size)
                    break
                if line.startswith(_ROW):
                    if not self._offsets:
                        self.first_seq = _leading_seq(line)
                    self._offsets.append(self._size)
                elif line.startswith(_RESET):
                    self._replay_from = self._size
                    self._lines_since_reset = 0
                    if not self._offsets:
                        self.first_seq = orjson.loads(line)["seq"]
                self._lines_since_reset += 1
                self._size += len(line)

    def _note(self, lines: bytes, rows: int) -> None:
        at = 0
        for _ in range(rows):
            self._offsets.append(self._size + at)
            if rows > 1:
                at = lines.index(b"\n", at) + 1
        self._size += len(lines)


def _leading_seq(row: bytes) -> int:
    return int(row[len(_ROW) : row.index(b",")])


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)  # secrets and phone numbers of whatever the emulator was fed


def _read_exactly(fd: int, start: int, end: int) -> bytes:
    chunks = []
    while start < end:
        chunk = os.pread(fd, end - start, start)
        if not chunk:
            raise OSError(f"the journal ends {end - start} bytes early")
        chunks.append(chunk)
        start += len(chunk)
    return b"".join(chunks)

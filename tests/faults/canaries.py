"""Canary phones and where they are looked for: plain, and in the encodings that would only look as if they were not."""

from __future__ import annotations

import base64
import io
import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import asyncpg

#: National forms, all of one length: every other spelling of a phone holds it.
CANARIES = tuple(f"1378{n:03d}{(n * 7919 + 13) % 10_000:04d}" for n in range(1000))


class Search:
    """Finds numbers of one length that begin alike, in plain digits, hex, and base64 at any place of a longer text."""

    def __init__(self, numbers: tuple[str, ...]) -> None:
        spellings = [{spell(number.encode()): number for number in numbers} for spell in _SPELLINGS]
        self._known = {word: number for words in spellings for word, number in words.items()}
        heads = [(_head(sorted(words)), len(next(iter(words)))) for words in spellings]
        # Looked ahead, so that a hit inside another one is a hit, too.
        parts = [re.escape(head) + b".{%d}" % (length - len(head)) for head, length in heads]
        self._pattern = re.compile(b"(?s)" + b"|".join(b"(?=(%b))" % part for part in parts))

    def hits(self, text: bytes) -> set[str]:
        """Return the numbers that are in ``text``."""
        words = (word for found in self._pattern.finditer(text) for word in found.groups() if word)
        return {self._known[word] for word in words if word in self._known}


def _head(words: list[bytes]) -> bytes:
    """Return what all of the sorted ``words`` begin with."""
    alike = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(words[0], words[-1], strict=True))
    return bytes(one for one, _ in alike)


def _in_base64(place: int, number: bytes) -> bytes:
    # Of what stands `place` bytes behind a border of three: the characters that no neighbour has a part in.
    whole = base64.b64encode(b"\0" * place + number)
    first, last = -(-place * 4 // 3), (place + len(number)) * 8 // 6
    return whole[first:last]


_SPELLINGS = (
    bytes,
    lambda number: number.hex().encode(),
    lambda number: _in_base64(0, number),
    lambda number: _in_base64(1, number),
    lambda number: _in_base64(2, number),
)


class Canaries:
    """Hands phones out in turn, each in another spelling."""

    def __init__(self) -> None:
        self._next = itertools.cycle(CANARIES)
        self.used = 0

    def national(self) -> str:
        """The next one, as people of its country write it."""
        self.used += 1
        return next(self._next)

    def e164(self) -> str:
        """The next one as the API takes it."""
        return "+86" + self.national()

    def wrong(self) -> Iterator[object]:
        """The next ones as no field takes them."""
        yield int("86" + self.national())
        yield [self.e164()]
        yield {self.e164(): self.national()}
        yield f"tel:{self.e164()};x\n"


async def dumped(database: str) -> Mapping[str, bytes]:
    """Every table as text, as a dump would have it, after everything was written to its file."""
    connection = await asyncpg.connect(database)
    try:
        await connection.execute("CHECKPOINT")
        found = {}
        for (name,) in await connection.fetch("SELECT relname FROM pg_stat_user_tables ORDER BY relname"):
            output = io.BytesIO()
            await connection.copy_from_query(f'SELECT * FROM "{name}"', output=output)  # noqa: S608 - our own tables
            found[str(name)] = output.getvalue()
        return found
    finally:
        await connection.close()


def written(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Every file below a state folder but those of the emulator, which plays the platform."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and folder / "emulator" not in path.parents:
            yield path.relative_to(folder), path.read_bytes()

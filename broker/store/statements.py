"""Named SQL statements from ``sql/*.sql``: each begins with a line ``-- name: what_it_is``."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

_NAME = re.compile(r"^-- name: ([a-z_]+)$", re.MULTILINE)


@cache
def statements(family: str) -> dict[str, str]:
    """Return the statements of ``sql/<family>.sql`` by name."""
    text = (Path(__file__).parent / "sql" / f"{family}.sql").read_text(encoding="utf-8")
    parts = _NAME.split(text)[1:]
    return {name: body.strip().rstrip(";") for name, body in zip(parts[::2], parts[1::2], strict=True)}

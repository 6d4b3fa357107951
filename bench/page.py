"""The result as one HTML file that needs nothing else: data, drawing and uPlot are inside it."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import orjson

_STATIC = Path(__file__).parent / "static"
_UPLOT = _STATIC / "uplot"


def page(result: dict[str, Any]) -> str:
    """Return the whole page."""
    parts = {
        "title": html.escape(f"bench: {result['name']}"),
        "uplot_css": _read(_UPLOT / "uPlot.min.css"),
        "css": _read(_STATIC / "report.css"),
        # Inside a script element only "<" could end it or begin a comment.
        "result": orjson.dumps(result).decode().replace("<", "\\u003c"),
        "licence": _read(_UPLOT / "LICENSE"),
        "uplot_js": _read(_UPLOT / "uPlot.iife.min.js"),
        "js": _read(_STATIC / "report.js"),
    }
    made = ""
    # Piece by piece: what is put in is never searched for another place to put something.
    for piece in _read(_STATIC / "report.html").split("{{"):
        name, found, rest = piece.partition("}}")
        made += parts[name] + rest if found else piece
    return made


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")

"""What the launcher says when it cannot start a server."""

from __future__ import annotations


class EmbeddedError(Exception):
    """``str(error)`` is one sentence for the person at the keyboard: what is wrong and what to do about it."""

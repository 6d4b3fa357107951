"""Answers that hold everything: how many are sent at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from broker.errors import Unavailable

#: Each reads slice after slice for minutes: so many beside each other leave the database to those who bind.
_MOST: Final = 8
_MOST_OF_APP: Final = 2
_RETRY_AFTER_S: Final = 5


class Exports:
    """Those of this process."""

    def __init__(self) -> None:
        """There are none yet."""
        self._running = Counter[int]()

    @contextmanager
    def one_more(self, app_id: int) -> Iterator[None]:
        """Be one of those that run.

        Raises:
            Unavailable: there are as many as there may be, in all or of the app.
        """
        if self._running.total() >= _MOST or self._running[app_id] >= _MOST_OF_APP:
            raise Unavailable("Too many lists are being sent whole.", code="overloaded", retry_after_s=_RETRY_AFTER_S)
        self._running[app_id] += 1
        try:
            yield
        finally:
            self._running[app_id] -= 1
            if not self._running[app_id]:
                del self._running[app_id]

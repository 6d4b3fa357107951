"""The work of the request that runs now, for whoever makes it wait for somebody else than us."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar

from broker.domain.admission import Work

#: Set by the API for the task that carries a request out; None for whoever else.
WORK: ContextVar[Work | None] = ContextVar("work", default=None)


def aside() -> AbstractContextManager[None]:
    """Return what to hold while the platform is waited for: that is no work of ours."""
    work = WORK.get()
    return nullcontext() if work is None else work.aside()

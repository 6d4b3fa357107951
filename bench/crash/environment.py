"""How the broker under test is started."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

#: The work of a process that is gone is taken over soon, so that the run ends.
HASTE: Final = {"BROKER_LEASE_S": "6", "BROKER_RESCUE_INTERVAL_S": "0.5", "BROKER_PLATFORM_ABSENCE_S": "5"}


@contextmanager
def variables(wanted: Mapping[str, str]) -> Iterator[None]:
    """Have what is started meanwhile find these variables, unless the user has set them."""
    added = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]

"""Ids of requests: the client's own, unless it may hold a phone."""

from __future__ import annotations

import os
import re

from broker.log import scrubbed

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
#: What programs make: its digits are no phone's, as long as there are letters among them.
_RANDOM_ID = re.compile(r"(?=.*[a-f])[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}", re.IGNORECASE)


def request_id_of(presented: str) -> str:
    """Return the id that a client presented (``X-Request-Id``), or a new one in its place."""
    if not presented:
        return new_request_id()
    # It goes into our log and our answers as it is, so one that may hold a phone is not taken.
    harmless = scrubbed(presented) == presented or _RANDOM_ID.fullmatch(presented)
    return presented if harmless and _REQUEST_ID.fullmatch(presented) else new_request_id()


def new_request_id() -> str:
    """Return an id that nobody else has."""
    return "req_" + os.urandom(16).hex()

"""When a line's time began that was found at the platform: earlier than we knew of it, so it ends earlier, too.

Without this our books would show a binding as active that the platform has let go of already: as long before its end
as its confirmation was lost, which after a kill is the time of the take-over.
"""

from __future__ import annotations

from broker.clock import boottime
from broker.flows.calls import PlatformCall
from broker.store import calls as store
from broker.store.database import Database
from broker.workers.sender import Sender

#: Less is as much as an answer takes on its way.
_LEAST_S = 1.0


async def date_back(db: Database, sender: Sender, call: PlatformCall) -> None:
    """Put the end of the line as early as the platform may have put it; ``call`` has been settled by what was found."""
    age_s = None if call.first_sent_at is None else boottime() - call.first_sent_at
    if age_s is None or age_s >= _LEAST_S:
        await sender.persist(lambda: store.date_back(db, call.key, age_s))

"""What is kept for how long, how much of it there is, and how far deleting has come."""

from __future__ import annotations

from broker.flows.operate.desk import Desk, Shown
from broker.store import retention

#: Table: what is in it, how long it is kept, and the walk that deletes it; the others go by their dates.
_KEPT = (
    ("line", "lines from their end on", "retention_days", "lines"),
    ("binding", "bindings from their end on", "retention_days", "bindings"),
    ("platform_call", "calls of a line, as long as the line", "retention_days", "lines"),
    ("peer", "peers of a binding, as long as the binding", "retention_days", "lines"),
    ("slot", "parties on an X, from the end of their rest on", "retention_days", "slots"),
    ("held", "who was behind which X", "retention_days", None),
    ("call", "calls", "retention_days", None),
    ("cdr", "call detail records", "retention_days", None),
    ("sms", "short messages", "retention_days", None),
    ("inbox", "notifications as they came", "7 days, or retention_days if that is less", None),
    ("event", "events", "event_days", None),
    ("idempotency", "answers to Idempotency-Keys", "25 hours", None),
    ("audit", "what people did", "400 days", "audits"),
    ("drift_run", "runs of audits", "400 days", "audits"),
    ("drift", "differences, from their settling on", "400 days", "audits"),
    ("cooldown", "what late calls taught", "400 days", None),
)


async def show(desk: Desk) -> Shown:
    """Return apps with their times, tables with their sizes, and walks with how far they are."""
    sizes = {size.table: size for size in await retention.sizes(desk.db, [table for table, *_ in _KEPT])}
    oldest = await retention.oldest(desk.db)
    return {
        "apps": [app._asdict() for app in await retention.apps(desk.db)],
        "tables": [
            {
                "table": table,
                "what": what,
                "kept": kept,
                "walk": walk,
                "rows": sizes[table].rows,
                "bytes": sizes[table].bytes,
                "oldest": oldest.get(table, sizes[table].since),
            }
            for table, what, kept, walk in _KEPT
        ],
        "walks": [
            {
                "walk": walk.kind,
                "every_s": int(walk.every.total_seconds()),
                "began_at": walk.began_at,
                "ended_at": walk.ended_at,
                "next_at": walk.due_at if walk.began_at is None and walk.ended_at is not None else None,
                "deleting": walk.gone,
                "deleted_last": walk.gone_before,
                "deleted": walk.gone_in_all,
            }
            for walk in await retention.walks(desk.db)
        ],
    }

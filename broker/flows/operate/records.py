"""Call detail records from a file: what an outage kept from us, entered as if it had been pushed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import islice
from typing import Any, Final

import orjson

from broker.domain.notice import Told, read, zoned
from broker.flows.notices import Notices
from broker.flows.operate.desk import Desk, Shown, app_id
from broker.store import registry, told

_SLICE: Final = 200
_HALF: Final = 2**62 - 1
#: So many unreadable lines are named.
_MOST_NAMED: Final = 100

#: A line's number and what it says by the platform's names; None: it could not be read at all.
Line = tuple[int, Mapping[str, Any] | None]


async def take_in(
    desk: Desk,
    app: str,
    lines: Iterator[Line],
    *,
    dry_run: bool,
    progress: Callable[[int], object],
    zone: tzinfo = UTC,
) -> Shown:
    """Enter records and return how many were new, known, too old to be kept, or unreadable, and which lines were.

    Times without a zone are of ``zone``. Running instances bring the effects of records about. What was stopped may be
    repeated: no record has effects twice.

    Raises:
        NotFound: there is no such app.
    """
    owner = await app_id(desk, app)
    known = await registry.load(desk.db, desk.vault)
    notices = Notices(desk.db, desk.vault, lambda: known)
    await notices.look()
    oldest = notices.now - timedelta(days=known.apps[owner].retention_days)
    counts, unreadable = Counter[str](new=0, known=0, too_old=0, unreadable=0), list[int]()
    looked_at: set[int] | None = set() if dry_run else None
    while batch := list(islice(lines, _SLICE)):
        good: list[Told] = []
        for number, said in batch:
            one = _record(said, zone)
            if one is None or one.notice is None:
                counts["unreadable"] += 1
                if len(unreadable) < _MOST_NAMED:
                    unreadable.append(number)
            elif one.notice.at < oldest:
                counts["too_old"] += 1
            else:
                good.append(one)
        await _enter(desk, notices, owner, good, counts, looked_at)
        progress(len(batch))
    return {"dry_run": dry_run, **counts, "unreadable_lines": unreadable}


async def _enter(
    desk: Desk, notices: Notices, owner: int, records: Sequence[Told], counts: Counter[str], looked_at: set[int] | None
) -> None:
    """Enter a slice. ``looked_at``: only look, and remember here what would have been entered (by half of its hash)."""
    keys = [notices.key_of(owner, one) for one in records]
    there = await told.known_records(desk.db, keys)
    missing = {key: one for key, one in zip(keys, records, strict=True) if key not in there}
    if looked_at is not None:
        found = {row_id.int & _HALF for _, row_id in missing}
        counts["new"] += len(found - looked_at)
        counts["known"] += len(records) - len(found - looked_at)
        looked_at |= found
        return
    if missing:
        await notices.keep(owner, list(missing.values()), datetime.now(UTC))
    counts["new"] += len(missing)
    counts["known"] += len(records) - len(missing)


def _record(said: Mapping[str, Any] | None, zone: tzinfo) -> Told | None:
    if said is None:
        return None
    (one,) = read(orjson.dumps({"eventType": "fee", "feeLst": [zoned(said, zone)]}), datetime.now(UTC))
    return one

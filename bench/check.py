"""Whether the books agree: database, platform and what clients were told. For quiet moments: nothing may be under way.

Every function returns violations in words with ids; phone numbers are masked.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
import asyncpg

from bench.history import Operation
from broker.domain.ids import parse_public_id, public_id
from broker.domain.options import CallOptions
from broker.domain.phone import mask
from broker.store.crypto import SealBroken, Vault

_PAGE = 10_000
_LOOK_S = 0.1
#: What expires about now may be gone in one book and not yet in the other.
_EXPIRING = timedelta(seconds=5)
#: The sweep that ends what was released with grace comes a moment later.
_KEPT = timedelta(minutes=1)
#: The platform's callDirection.
_DIRECTIONS = {"both": 0, "a_to_b": 1, "b_to_a": 2}
#: A party is on that X already (contract 2.1).
TAKEN = "1012010"
_LIVE = frozenset({"pending", "active", "releasing"})
#: Modes of which the platform keeps nothing.
_KEPT_BY_US = frozenset({"x"})
#: Modes that change A by binding the line's place anew.
_BOUND_ANEW = frozenset({"axe"})

_OPEN_CALLS = "SELECT count(*) FROM platform_call WHERE state = 'open'"
_LINES = """
SELECT l.pool_id, l.id, l.state, l.seat, l.x_id, coalesce(x.number, l.picked) AS number, l.a_key, l.b_key, l.a_sealed,
       l.b_sealed, l.subscription_id, l.confirmed_at, l.expires_at, l.direction, l.options, l.calls, l.kept_until,
       app.cap, app.mode,
       CASE WHEN app.mode = 'axe' THEN lpad(l.extension::text, app.extension_digits, '0') END AS extension
FROM line AS l LEFT JOIN x_number AS x ON x.pool_id = l.pool_id AND x.x_id = l.x_id JOIN app ON app.id = l.app_id
"""
_SLOTS = "SELECT pool_id, x_id, party_key, counterpart_key, line_id FROM slot WHERE until = 'infinity'"
_BINDINGS = "SELECT pool_id, id, line_id, state FROM binding"
_APPS = "SELECT app_key FROM app"
_NOW = "SELECT broker_now()"
#: Every way in which the books of who is behind which X can be wrong; no rows = they are right.
WRONG_BOOKS = (Path(__file__).parent / "wrong_books.sql").read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Books:
    """One consistent view of the database."""

    now: datetime
    apps: frozenset[str]
    lines: Mapping[UUID, asyncpg.Record]
    slots: Sequence[asyncpg.Record]
    bindings: Mapping[tuple[int, UUID], asyncpg.Record]
    open_calls: int

    def expiring(self, line: asyncpg.Record) -> bool:
        """Tell whether the platform may be ending the line at this moment."""
        return line["expires_at"] is not None and line["expires_at"] < self.now + _EXPIRING

    def kept(self, line: asyncpg.Record) -> bool:
        """Tell whether the line outlives its last order for a while: released with grace."""
        kept_until = line["kept_until"]
        return line["state"] == "active" and kept_until is not None and kept_until > self.now - _KEPT


async def check_books(
    database_url: str, vault: Vault, emulator_admin_url: str, *, settle_s: float = 30.0, undisturbed: bool = False
) -> list[str]:
    """Compare database and platform once no platform call is open (waiting at most ``settle_s``).

    ``undisturbed``: nothing was killed, frozen or unknown, so the platform never had to refuse a bind of ours.
    """
    books = await read_books(database_url, settle_s=settle_s)
    live, rows = await read_platform(emulator_admin_url)
    violations = within(books)
    if books.open_calls:
        violations.append(f"not settled: {books.open_calls} platform calls are still open after {settle_s:g} s")
    violations.extend(compare(books, vault, live))
    violations.extend(replay(rows, live))
    violations.extend(effects(books, rows))
    if undisturbed:
        violations.extend(
            f"the platform refused a party twice on one X: ledger row {row['seq']}"
            for row in rows
            if row["op"] == "bind" and row["result_code"] == TAKEN and row["app_key"] in books.apps
        )
    return violations


async def check_promises(
    database_url: str, operations: Iterable[Operation], *, settle_s: float = 30.0, expired: bool = False
) -> list[str]:
    """Compare what clients were told with the database: nothing confirmed is lost, nothing released lives on.

    ``expired``: bindings may have ended by their lifetime meanwhile.
    """
    books = await read_books(database_url, settle_s=settle_s)
    violations: list[str] = []
    told = list(operations)
    touched = {event.binding for event in told if event.op == "release" and event.outcome != "refused"}
    changed = {event.binding for event in told if event.op == "change" and event.outcome != "refused"}
    for event in told:
        key = parse_public_id(event.binding) if event.binding is not None and event.outcome == "ok" else None
        if key is None:
            continue
        stored = books.bindings.get(key)
        if stored is None:
            violations.append(f"lost: binding {event.binding} was answered {event.status} and is not in the database")
            continue
        if event.op == "release":
            if stored["state"] not in {"released", "failed"}:
                violations.append(f"released binding {event.binding} is {stored['state']}")
            continue
        line = books.lines.get(stored["line_id"])
        if line is None or (line["number"] != event.x and event.binding not in changed):
            violations.append(f"binding {event.binding} has another X in the database than its client was told")
        may_end = expired or event.binding in touched
        if stored["state"] != "active" and not may_end:
            violations.append(f"confirmed binding {event.binding} is {stored['state']}, and nobody released it")
    return violations


async def read_books(database_url: str, *, settle_s: float) -> Books:
    """Wait until no platform call is open, then read everything in one snapshot."""
    db = await asyncpg.connect(database_url)
    try:
        loop = asyncio.get_running_loop()
        give_up = loop.time() + settle_s
        while await db.fetchval(_OPEN_CALLS) and loop.time() < give_up:  # noqa: ASYNC110 - another process settles
            await asyncio.sleep(_LOOK_S)
        async with db.transaction(isolation="repeatable_read", readonly=True):
            return Books(
                now=await db.fetchval(_NOW),
                apps=frozenset(row["app_key"] for row in await db.fetch(_APPS)),
                lines={row["id"]: row for row in await db.fetch(_LINES)},
                slots=await db.fetch(_SLOTS),
                bindings={(row["pool_id"], row["id"]): row for row in await db.fetch(_BINDINGS)},
                open_calls=await db.fetchval(_OPEN_CALLS),
            )
    finally:
        await db.close()


def within(books: Books) -> list[str]:
    """Check the database against itself."""
    violations: list[str] = []
    slots: dict[UUID, list[asyncpg.Record]] = defaultdict(list)
    for slot in books.slots:
        slots[slot["line_id"]].append(slot)
        line = books.lines.get(slot["line_id"])
        if line is None or line["state"] not in _LIVE:
            state = "missing" if line is None else line["state"]
            violations.append(
                f"slot leaked: pool {slot['pool_id']} X {slot['x_id']} is held by line {slot['line_id']} ({state})"
            )
    seats = Counter((r["pool_id"], r["x_id"], r["seat"]) for r in books.lines.values() if r["seat"] is not None)
    violations.extend(
        f"seat {seat} of pool {pool} X {x} is taken {n} times" for (pool, x, seat), n in seats.items() if n > 1
    )
    for line_id, line in books.lines.items():
        violations.extend(_line(line_id, line, slots.get(line_id, [])))
    living: Counter[UUID] = Counter()
    for (pool_id, binding_id), binding in books.bindings.items():
        if binding["state"] not in _LIVE:
            continue
        living[binding["line_id"]] += 1
        line = books.lines.get(binding["line_id"])
        if line is None or line["state"] != binding["state"]:
            state = "missing" if line is None else line["state"]
            violations.append(f"binding {public_id(pool_id, binding_id)} is {binding['state']} but its line is {state}")
    violations.extend(
        f"line {line_id} is {line['state']} without a live binding"
        for line_id, line in books.lines.items()
        if line["state"] in _LIVE and not living[line_id] and not books.kept(line)
    )
    return violations


def _line(line_id: UUID, line: asyncpg.Record, slots: Sequence[asyncpg.Record]) -> Iterable[str]:
    if line["state"] not in _LIVE:
        if line["seat"] is not None:
            yield f"seat leaked: line {line_id} is {line['state']} and keeps seat {line['seat']}"
        return
    if line["b_key"] is None:
        return  # what lines of one party hold is no slots: WRONG_BOOKS judges them
    if line["seat"] is None or not 0 <= line["seat"] < line["cap"]:
        yield f"line {line_id} is {line['state']} with seat {line['seat']} (cap {line['cap']})"
    found = sorted((s["pool_id"], s["x_id"], s["party_key"], s["counterpart_key"]) for s in slots)
    where, a, b = (line["pool_id"], line["x_id"]), line["a_key"], line["b_key"]
    if found != sorted([(*where, a, b), (*where, b, a)]):
        yield f"line {line_id} is {line['state']} and holds {len(slots)} live slots, not one for each of its parties"


def compare(books: Books, vault: Vault, live: Sequence[Mapping[str, Any]]) -> list[str]:
    """Compare the live lines with the bindings that the platform holds now."""
    violations: list[str] = []
    # A relation of AXYB goes by the id of its AX.
    at_platform = {one["subscription_id"]: one for one in live if one["app_key"] in books.apps and not one["y"]}
    known: set[str] = set()
    for line_id, line in books.lines.items():
        if line["state"] not in _LIVE:
            continue
        try:
            a, b = _parties(vault, line)
        except SealBroken as broken:
            violations.append(f"line {line_id}: {broken}")
            continue
        if (vault.party_key(a), vault.party_key(b) if b else None) != (line["a_key"], line["b_key"]):
            violations.append(f"line {line_id} is indexed under other parties than it holds")
        if line["mode"] in _KEPT_BY_US:
            continue
        if line["subscription_id"] is not None:
            known.add(line["subscription_id"])
        if line["state"] != "active" or books.expiring(line):
            continue
        violations.extend(_there(line, a, b, at_platform.get(line["subscription_id"])))
    violations.extend(
        f"the platform holds {subscription} of line {_line_of(one) or 'nobody'}, which is not live in the database"
        for subscription, one in at_platform.items()
        if subscription not in known
    )
    return violations


def _there(line: asyncpg.Record, a: str, b: str, there: Mapping[str, Any] | None) -> Iterable[str]:
    """Compare an active line with what the platform holds under its subscription."""
    if there is None:
        yield f"line {line['id']} is active and the platform does not hold {line['subscription_id']}"
        return
    if (there["x"], there["extension"], there["a"], there["b"]) != (line["number"], line["extension"], a, b):
        yield (
            f"line {line['id']} ({mask(a)}, {mask(b)}, X {mask(line['number'])}) is bound differently as "
            f"{line['subscription_id']} ({mask(there['a'])}, {mask(there['b'])}, X {mask(there['x'])})"
        )
    wanted, held = _terms_of(line), _terms_there(there)
    if wanted != held:
        yield f"line {line['id']} is to have {wanted}, and {line['subscription_id']} has {held}"


def _parties(vault: Vault, line: asyncpg.Record) -> tuple[str, str]:
    """Return A and B of a line, "" for a B that it has not."""
    a = vault.open("line", "a", line["pool_id"], line["id"], line["a_sealed"])
    b = line["b_sealed"]
    return a, "" if b is None else vault.open("line", "b", line["pool_id"], line["id"], b)


def _terms_of(line: asyncpg.Record) -> tuple[object, ...]:
    """Return direction, recording, minutes and SMS as the platform is to have them."""
    options = CallOptions.from_text(line["options"])
    sms = True if options.sms is None else options.sms
    return _DIRECTIONS[line["direction"]], bool(options.recording), options.max_call_minutes or 0, sms


def _terms_there(there: Mapping[str, Any]) -> tuple[object, ...]:
    extras = there["extras"] or {}
    return (
        there["call_direction"], extras.get("recordFlag") in {True, "true"}, there["max_duration"],
        extras.get("privateSms", True) in {True, "true"},
    )  # fmt: skip


def replay(rows: Sequence[Mapping[str, Any]], live: Sequence[Mapping[str, Any]]) -> list[str]:
    """Replay the ledger's effects: they must end in the bindings that the platform holds now, none twice."""
    ledger = _Ledger(first=rows[0]["seq"] if rows else 0)
    for row in rows:
        if row["result_code"] == "0" and "serial" in row:
            ledger.apply(row)
    there = {one["subscription_id"]: (one["x"], one["a"], one["b"]) for one in live}
    violations = ledger.violations
    violations.extend(
        f"the ledger ends with {subscription}, the platform does not hold it so"
        for subscription, parties in ledger.held.items()
        if there.get(subscription) != parties
    )
    if ledger.first <= 1:
        missing = there.keys() - ledger.held.keys()
        violations.extend(f"the platform holds {subscription} without a ledger row" for subscription in missing)
    return violations


class _Ledger:
    """What the effects so far amount to; rows before ``first`` have been dropped."""

    def __init__(self, first: int) -> None:
        self.first = first
        self.held: dict[str, tuple[str, str, str]] = {}
        self.violations: list[str] = []
        self._registers: dict[tuple[str, ...], str] = {}
        self._taken: dict[str, list[tuple[str, ...]]] = {}

    def apply(self, row: Mapping[str, Any]) -> None:
        subscription = row["subscription_id"]
        match row["op"]:
            case "bind" | "modify":
                self._free(subscription)
                self.held[subscription] = row["x"], row["a"], row["b"]
                self._taken[subscription] = registers(row)
                for register in self._taken[subscription]:
                    other = self._registers.setdefault(register, subscription)
                    if other != subscription:
                        self.violations.append(f"the platform held {other} and {subscription} for {_what(row)} at once")
            case "unbind" | "expire":
                if self.held.pop(subscription, None) is None and row["serial"] >= self.first:
                    self.violations.append(f"ledger row {row['seq']} ends {subscription}, which was not bound")
                self._free(subscription)

    def _free(self, subscription: str) -> None:
        for register in self._taken.pop(subscription, ()):
            if self._registers.get(register) == subscription:
                del self._registers[register]


def registers(row: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return what a binding has to itself: of a pair each party on X, else X, an extension, or a Y of an X."""
    if row["mode"] == "axb":
        return [(row["x"], row["a"]), (row["x"], row["b"])]
    return [(row["x"], row["extension"] or "", row["y"] or "")]


def _what(row: Mapping[str, Any]) -> str:
    return "one party on one X" if row["mode"] == "axb" else "one place"


def effects(books: Books, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each confirmed line has had exactly one effective bind; a line chosen again is another line."""
    binds: dict[str, list[str]] = defaultdict(list)
    violations: list[str] = []
    for row in rows:
        if row["op"] != "bind" or row["result_code"] != "0" or "serial" not in row or row["app_key"] not in books.apps:
            continue
        if row["y"]:
            continue  # a relation of AXYB is no line's
        named = _line_of(row)
        if named is None or UUID(named) not in books.lines:
            violations.append(f"ledger row {row['seq']} binds {row['subscription_id']} for a line that we do not know")
            continue
        binds[named].append(row["subscription_id"])
    dropped = bool(rows) and rows[0]["seq"] > 1
    for line_id, line in books.lines.items():
        made = binds.get(line_id.hex, [])
        if line["mode"] in _KEPT_BY_US:
            continue
        if line["mode"] in _BOUND_ANEW:
            made = made[-1:]
        if len(made) > 1:
            violations.append(f"line {line_id} was bound {len(made)} times at the platform: {', '.join(made)}")
        elif line["confirmed_at"] is not None and line["calls"] and not dropped and made != [line["subscription_id"]]:
            violations.append(
                f"line {line_id} is confirmed as {line['subscription_id']}, the ledger has {made or 'no bind'}"
            )
    return violations


def _line_of(row: Mapping[str, Any]) -> str | None:
    """Return the line that our userData names, in hex."""
    mark = str(row["user_data"] or "").partition(".")[0]
    try:
        return UUID(hex=mark).hex
    except ValueError:
        return None


async def read_platform(admin_url: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the live bindings and the ledger of one moment: read again if something expired in between."""
    live = await _pages(admin_url, "bindings")
    while True:
        rows = await _pages(admin_url, "ledger")
        again = await _pages(admin_url, "bindings")
        if again == live:
            return live, rows
        live = again


async def _pages(admin_url: str, what: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    after: int | None = 0
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(raise_for_status=True, timeout=timeout) as http:
        while after is not None:
            url = f"{admin_url}/emulator/{what}?after={after}&limit={_PAGE}"
            async with http.get(url) as response:
                page = await response.json()
            items.extend(page["items"])
            after = page["next"]
    return items

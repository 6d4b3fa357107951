"""Claiming places: whole X numbers and extensions."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator

import asyncpg
import pytest

from broker.domain import extension
from broker.store import bindings, idempotency, places
from broker.store.bindings import ReleaseAsk
from broker.store.database import Database
from broker.store.idempotency import KeyAsk
from tests.store.place_rival import WATCH
from tests.store.stall import Stall, open_second_pool, open_stall

_A, _B, _C, _D, _E = 11, -22, 33, 2**63 - 1, 55


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    """Eight connections."""
    db = Database(database_url, connections=8, timeout_s=20)
    await db.open()
    yield db
    await db.close()


@pytest.fixture
async def ax(db: Database) -> Stall:
    """Four whole X numbers."""
    return await open_stall(db, "ax")


@pytest.fixture
async def axe(db: Database) -> Stall:
    """Four X numbers of three extensions each."""
    return await open_stall(db, "axe")


async def test_a_winner_is_written_whole(axe: Stall) -> None:
    """A won claim leaves a pending line on its place, its binding and one open bind call."""
    claim = axe.want(_A)
    x, extension = await axe.where(claim)
    line, binding = await axe.row("line", claim.line_id), await axe.row("binding", claim.binding_id)
    assert (line["state"], line["x_id"], line["extension"], line["seat"]) == ("pending", x, extension, extension)
    assert (line["a_key"], line["b_key"], line["calls"], line["joinable"]) == (_A, None, 1, False)
    assert (binding["state"], binding["line_id"], binding["expires_at"]) == ("pending", claim.line_id, None)
    assert (binding["order_id"], binding["user_data"], binding["metadata"]) == ("order-1", "their words", '{"k": 1}')
    held = await axe.place(x, extension)
    assert (held["line_id"], held["party_key"], held["rests_s"]) == (claim.line_id, _A, None)
    assert await axe.wrong_books() == []


async def test_extensions_of_the_first_x_that_has_any(axe: Stall) -> None:
    """An X after the other is filled, in one batch or many; then nothing is left."""
    first = await axe.give(*[axe.want(100 + n) for n in range(5)])
    assert [given.x_id for given in first] == [0, 0, 0, 1, 1]
    rest = await axe.give(*[axe.want(200 + n) for n in range(9)])
    assert [given.outcome for given in rest] == ["won"] * 7 + ["exhausted"] * 2
    assert len({(given.x_id, given.extension) for given in (*first, *rest[:7])}) == 12
    assert await axe.wrong_books() == []


async def test_whole_numbers_rest_longest_first_inside_the_prefix(ax: Stall) -> None:
    """Inside the prefix the X that has rested longest; beyond it, only when the prefix has none, the lowest."""
    claims = [ax.want(10 + n) for n in range(3)]
    assert [(given.x_id, given.first_fit) for given in await ax.give(*claims)] == [(0, 2), (1, 2), (2, 2)]
    for claim, rest_s in zip(claims, (-1, -3, -2), strict=True):
        await ax.leave(claim, rest_s=rest_s)
    got = [await ax.given(ax.want(20 + n, prefix=3)) for n in range(4)]
    assert [(given.x_id, given.first_fit, given.chosen) for given in got] == [
        (1, 0, "pack:longest_rest"),
        (2, 0, "pack:longest_rest"),
        (0, 0, "pack:longest_rest"),
        (3, 3, "pack:beyond_prefix"),
    ]
    assert await ax.outcomes(ax.want(_A, prefix=4)) == ["exhausted"]
    assert await ax.wrong_books() == []


async def test_extensions_rest_longest_first_inside_their_x(axe: Stall) -> None:
    """Of the first X that has a free extension, the one that has rested longest."""
    claims = [axe.want(10 + n) for n in range(4)]
    spots = [(given.x_id, given.extension) for given in await axe.give(*claims)]
    for claim, rest_s in zip(claims, (-1, -3, -2, -9), strict=True):
        await axe.leave(claim, rest_s=rest_s)
    assert [await axe.where(axe.want(20 + n)) for n in range(3)] == [spots[1], spots[2], spots[0]]


@pytest.mark.parametrize("mode", ["ax", "axe"])
async def test_what_rests_is_nobody_elses(db: Database, mode: str) -> None:
    """A resting place goes to nobody but the party that rests on it, which gets exactly that one back."""
    stall = await open_stall(db, mode, numbers=2, per_x=1)
    first, second = stall.want(_A), stall.want(_B)
    spot, _ = await stall.where(first), await stall.where(second)
    await stall.leave(first)
    assert await stall.outcomes(stall.want(_C)) == ["exhausted"]
    await stall.leave(second, rest_s=-1)
    given = await stall.given(stall.want(_A))
    assert ((given.x_id, given.extension), given.chosen) == (spot, "own:resting")
    assert await stall.wrong_books() == []


async def test_a_rest_that_was_broken_off_goes_on(ax: Stall) -> None:
    """A who comes back and is not bound leaves the X resting for as long as before."""
    first, again = ax.want(_A), ax.want(_A)
    await ax.where(first)
    await ax.leave(first, rest_s=900)
    assert await ax.where(again) == (0, 0)
    await ax.leave(again, rest_s=0)
    assert (await ax.place(0, 0))["rests_s"] > 800


async def test_a_batch_of_one_party(ax: Stall) -> None:
    """Two claims of one batch never share the place on which their party rests."""
    first = ax.want(_A)
    await ax.where(first)
    await ax.leave(first)
    given = await ax.give(ax.want(_A), ax.want(_A))
    assert sorted(one.x_id or 0 for one in given) == [0, 1]
    assert await ax.wrong_books() == []


async def test_the_extension_asked_for(axe: Stall) -> None:
    """Exactly that one, on the first X where it is free or where the party rests; else it is taken and nothing else."""
    code = (await axe.where(axe.want(_A)))[1]
    asked = [axe.want(100 + n, asked=code) for n in range(4)]
    assert [(given.outcome, given.x_id) for given in await axe.give(*asked)] == [
        ("won", 1), ("won", 2), ("won", 3), ("taken", None),
    ]  # fmt: skip
    await axe.leave(asked[1])
    assert await axe.outcomes(axe.want(_B, asked=code), axe.want(_B, asked=9999)) == ["taken", "taken"]
    back = await axe.given(axe.want(101, asked=code))
    assert (back.x_id, back.extension, back.chosen) == (2, code, "asked")
    others = await places.free_codes(axe.db, axe.pool, code, most=5)
    assert len(others) == 2
    assert code not in others
    assert await axe.wrong_books() == []


async def test_no_more_x_than_a_party_may_have(ax: Stall) -> None:
    """The limit counts over all pools, also X numbers on their way out, and is kept inside one batch, too."""
    more = await open_second_pool(ax)
    assert await ax.outcomes(ax.want(_A, most=3), ax.want(_A, most=3, pool=more)) == ["won", "won"]
    assert await ax.outcomes(ax.want(_A, most=3), ax.want(_A, most=3, pool=more)) == ["won", "busy"]
    assert await ax.outcomes(ax.want(_A, most=3), ax.want(_B, most=3)) == ["limit", "won"]
    assert await ax.outcomes(ax.want(_A)) == ["won"]


async def test_a_sight_is_what_a_claim_would_find(ax: Stall) -> None:
    """Read before anything is claimed: open, limit, exhausted, closed; who rests on a place of its own may come."""
    everybody = [ax.want(_A, most=2), ax.want(_B), ax.want(_C, most=2)]

    async def sighted() -> list[str]:
        return [given.outcome for given in await places.sight(ax.db, everybody)]

    assert await sighted() == ["open"] * 3
    claims = [ax.want(_A, most=2), ax.want(_A, most=2), ax.want(_B), ax.want(_D)]
    for claim in claims:
        await ax.where(claim)
    before = await ax.value("SELECT pg_current_wal_insert_lsn()::text")
    assert await sighted() == ["limit", "exhausted", "exhausted"]
    assert await ax.value("SELECT pg_current_wal_insert_lsn()::text") == before
    await ax.leave(claims[2])
    assert await sighted() == ["limit", "open", "exhausted"]
    await ax.run("UPDATE place SET until = clock_timestamp() WHERE party_key = $1", _B)
    assert await sighted() == ["limit", "open", "open"]
    await ax.run("UPDATE x_number SET state = 'frozen'")
    assert await sighted() == ["limit", "exhausted", "exhausted"]
    await ax.run("UPDATE pool SET state = 'closed'")
    assert await sighted() == ["closed"] * 3


async def test_who_is_claiming_elsewhere_is_busy(ax: Stall, database_url: str) -> None:
    """While another claim of the same limited party is open, it is told to come back; others are not held up."""
    other = await asyncpg.connect(database_url)
    try:
        async with other.transaction():
            await other.execute("SELECT pg_advisory_xact_lock(sole_lock($1, $2))", ax.app_id, _A)
            assert await ax.outcomes(ax.want(_A, most=5), ax.want(_B, most=5)) == ["busy", "won"]
        assert await ax.outcomes(ax.want(_A, most=5)) == ["won"]
    finally:
        await other.close()


async def test_closed_pools_and_numbers(axe: Stall) -> None:
    """Nothing of an X that is not open, nor of a pool that is closed, nor what is not to be given out."""
    await axe.run("UPDATE x_number SET state = 'frozen' WHERE x_id < 2")
    assert (await axe.where(axe.want(_A)))[0] == 2
    claim = axe.want(_B)
    x, code = await axe.where(claim)
    await axe.leave(claim)
    await axe.run("UPDATE x_number SET state = 'draining' WHERE x_id = $1", x)
    assert (await axe.where(axe.want(_B)))[0] == 3
    assert (await axe.given(axe.want(_C, asked=code))).x_id == 3
    await axe.run("UPDATE pool SET state = 'closed'")
    assert await axe.outcomes(axe.want(_C), axe.want(_C, asked=code)) == ["closed", "closed"]


async def test_the_last_guard_is_the_index_of_seats(ax: Stall) -> None:
    """A place that lies about being free is not given out: the line on it is found, and the place put right."""
    held = ax.want(_A)
    await ax.where(held)
    await ax.run("UPDATE place SET until = '-infinity', line_id = NULL, party_key = NULL")
    assert len(await ax.wrong_books()) == 1
    loser, winner = ax.want(_B), ax.want(_C)
    given = await ax.give(loser, winner)
    assert [one.outcome for one in given] == ["busy", "won"]
    assert await ax.wrong_books() == []
    assert await ax.value("SELECT count(*) FROM binding WHERE id = $1", loser.binding_id) == 0
    assert (await ax.place(0, 0))["line_id"] == held.line_id


async def _key(stall: Stall, name: bytes) -> tuple[bytes, int]:
    ask = KeyAsk(stall.app_id, stall.caller_id, name.ljust(16), b"request", 30.0)
    (state,) = await idempotency.begin(stall.db, [ask])
    assert state.token is not None
    return ask.key_hash, state.token


async def test_the_key_names_what_was_made_and_only_that(ax: Stall) -> None:
    """A winner's key names its binding; a loser's names nothing; a twin's older token gets nothing."""
    won, lost, old = await _key(ax, b"won"), await _key(ax, b"lost"), await _key(ax, b"old")
    await ax.run("UPDATE idempotency SET token = token + 1 WHERE key_hash = $1", old[0])
    await ax.run("UPDATE x_number SET state = 'frozen' WHERE x_id > 0")
    claims = [ax.want(_A, key=won), ax.want(_B, key=lost), ax.want(_C, key=old)]
    assert await ax.outcomes(*claims) == ["won", "exhausted", "superseded"]
    kept = {row["key_hash"]: row["binding_id"] for row in await ax.db.fetch("SELECT * FROM idempotency")}
    assert kept == {won[0]: claims[0].binding_id, lost[0]: None, old[0]: None}
    assert await ax.value("SELECT count(*) FROM line") == 1
    assert await ax.wrong_books() == []


async def test_a_refused_place_is_left_alone_by_everybody(axe: Stall) -> None:
    """After the platform refused X and extension the binding gets another one, and nobody gets that one for a while."""
    claim = axe.want(_A)
    spot = await axe.where(claim)
    again, line_id = await axe.again(claim)
    assert again.outcome == "won"
    assert (again.x_id, again.extension) != spot
    line, binding = await axe.row("line", line_id), await axe.row("binding", claim.binding_id)
    assert (line["x_id"], line["extension"], line["state"]) == (again.x_id, again.extension, "pending")
    assert (binding["line_id"], binding["state"], binding["order_id"]) == (line_id, "pending", "order-1")
    assert (await axe.row("line", claim.line_id))["state"] == "failed"
    barred = await axe.place(*spot)
    assert (barred["party_key"], 50 < barred["rests_s"] <= 60) == (None, True)
    assert (await axe.again(claim))[0].outcome == "superseded"
    assert await axe.wrong_books() == []


async def test_all_or_nothing_when_there_is_no_other_place(axe: Stall) -> None:
    """With nothing else free nothing is changed; one that was asked for is looked for on the other X only."""
    claim = axe.want(_A, asked=(await axe.where(axe.want(_B)))[1])
    x, code = await axe.where(claim)
    again, line_id = await axe.again(claim)
    assert (again.outcome, again.extension, again.x_id != x) == ("won", code, True)
    await axe.run("UPDATE x_number SET state = 'frozen'")
    second = claim._replace(line_id=line_id)
    assert (await axe.again(second))[0].outcome == "taken"
    assert (await axe.row("line", line_id))["state"] == "pending"
    assert await axe.wrong_books() == []


async def test_a_binding_that_nobody_wants_gets_no_other_place(ax: Stall) -> None:
    """Released while its bind was refused: the line ends, its X is barred, the binding is released."""
    claim = ax.want(_A)
    await ax.where(claim)
    asks = [ReleaseAsk(claim.pool_id, claim.binding_id, claim.app_id)]
    assert await bindings.release(ax.db, asks, reason="released", lease_s=8.0) != [None]
    assert (await ax.again(claim))[0].outcome == "released"
    assert (await ax.row("binding", claim.binding_id))["state"] == "released"
    assert await ax.wrong_books() == []


async def test_new_settings_lay_the_places_out_anew(axe: Stall) -> None:
    """What the settings take away is given out no more and comes back with them; what is held stays held."""
    claims = [axe.want(10 + n) for n in range(3)]
    held = {given.extension for given in await axe.give(*claims)}
    before = set(extension.codes(2, 3, typo_safe=False))
    assert held == before
    assert await _in_use(axe) == before
    await axe.run("UPDATE app SET extensions_per_x = 12 WHERE id = $1", axe.app_id)
    assert await _in_use(axe) == set(extension.codes(2, 12, typo_safe=False))
    await axe.run("UPDATE pool SET typo_safe = true")
    assert await _in_use(axe) == set(extension.codes(2, 12, typo_safe=True))
    with pytest.raises(asyncpg.PostgresError, match="held"):
        await axe.run("UPDATE app SET extension_digits = 3 WHERE id = $1", axe.app_id)
    for claim in claims:
        await axe.leave(claim)
    await axe.run("UPDATE app SET extension_digits = 3 WHERE id = $1", axe.app_id)
    assert await _in_use(axe) == set(extension.codes(3, 12, typo_safe=True))
    resting = await places.counts(axe.db, [axe.pool])
    assert resting[axe.pool].resting == 3


async def _in_use(stall: Stall) -> set[int]:
    rows = await stall.db.fetch("SELECT x_id, extension FROM place WHERE pool_id = $1 AND in_use", stall.pool)
    by_x: dict[int, set[int]] = {}
    for row in rows:
        by_x.setdefault(row["x_id"], set()).add(row["extension"])
    assert len(by_x) == 4
    assert len({frozenset(codes) for codes in by_x.values()}) == 1
    return by_x[0]


@pytest.mark.parametrize("digits", [1, 2, 3, 4])
async def test_the_database_and_the_rules_mean_the_same_codes(db: Database, digits: int) -> None:
    """What the database lays out is what the rules say, in their order, for every number of digits and safety."""
    for limit in (1, 7, 200, 9999):
        for safe in (False, True):
            row = await db.fetchrow("SELECT extension_codes($1, $2, $3) AS codes", digits, limit, safe)
            assert row is not None
            assert tuple(row["codes"]) == extension.codes(digits, limit, typo_safe=safe)


async def test_pools_of_pairs_have_no_places(db: Database) -> None:
    """Only AX, AXE and X "one" have places: the last two with what their settings say, AX one for each X."""
    for mode, routing, wanted in (("axb", "pair", 0), ("axyb", "pair", 0), ("x", "pair", 0), ("ax", "pair", 4)):
        stall = await open_stall(db, mode, routing=routing)
        assert await stall.value("SELECT count(*) FROM place WHERE pool_id = $1", stall.pool) == wanted
        await db.fetch("UPDATE app SET name = 'old-' || id, app_key = 'old-' || id")
    stall = await open_stall(db, "x", routing="one")
    assert await stall.value("SELECT count(*) FROM place WHERE pool_id = $1 AND extension = 0", stall.pool) == 4


async def test_processes_at_once_never_meet(axe: Stall, database_url: str) -> None:
    """Two processes that claim and leave in a pool nearly full: no place is held twice, none before its rest ends."""
    for statement in WATCH:
        await axe.run(statement)
    rivals = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.store.place_rival", database_url, str(seed), stdout=asyncio.subprocess.PIPE
        )
        for seed in (1, 2)
    ]
    seen: Counter[str] = Counter()
    for rival in rivals:
        out, _ = await asyncio.wait_for(rival.communicate(), 120)
        assert rival.returncode == 0
        seen.update(json.loads(out))
    assert seen["wrong"] == 0
    assert seen["won"] > 100
    assert seen["exhausted"] > 5
    assert seen["early"] == 0
    assert await axe.wrong_books() == []

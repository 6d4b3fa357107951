"""Places: how long one is left alone before somebody else gets it, and what claiming and refusing cost.

``python -m bench.places [--seconds 3] [--json]`` plays the same orders against three policies in virtual time, then
starts a PostgreSQL of its own on a real disk and measures ``reserve_places()`` over 200,000 extensions: claims a second
by batch size; then, after churn that leaves dead rows, with everything held or resting, how long a refusal takes.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import math
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from broker.domain.choice import Prefix
from broker.domain.ids import new_id
from broker.embedded import Embedded
from broker.store import calls, places
from broker.store.calls import CallKey, Ended
from broker.store.database import Database
from broker.store.migrate import migrate
from broker.store.places import Given, PlaceClaim

_LEASE_S = 8.0
#: The orders that are played: two days of them, of which the first only warms up.
_DAY_S = 86_400.0
_LIFE_S = 3_600.0
_REST_S = 7_200.0
_LOAD = 0.5
_SWING = 0.6
_X, _CODES = 1000, 200
_REFUSALS = 500

#: Of free places (x, code, free since), which one: the position in the list.
Choose = Callable[["Game", Sequence[int]], int]


@dataclass(frozen=True, slots=True)
class Gap:
    """How long places were left alone, in hours, and how many X the orders took."""

    kind: str
    policy: str
    median_h: float
    tenth_h: float
    shortest_h: float
    x_used: int


class Game:
    """Orders that come and go in virtual time; ``choose`` says which of the free places each gets."""

    def __init__(self, numbers: int, codes: int, choose: Choose) -> None:
        """A pool of ``numbers`` X of ``codes`` places each."""
        self.codes = codes
        self.left = [float("-inf")] * (numbers * codes)
        self.prefix = Prefix(window_s=600.0)
        self.now = 0.0
        self.dice = random.Random(1)
        self._choose = choose
        self._gaps: list[float] = []
        self._used: set[int] = set()

    def play(self, kind: str, policy: str) -> Gap:
        """Play two days."""
        busy: list[tuple[float, int, bool]] = []  # when, place, whether it is freed (else its rest ends)
        free = set(range(len(self.left)))
        per_s = _LOAD * len(self.left) / (_LIFE_S + _REST_S)
        while self.now < 2 * _DAY_S:
            # Quiet nights and busy evenings.
            self.now += self.dice.expovariate(per_s * (1 + _SWING * math.sin(2 * math.pi * self.now / _DAY_S)))
            while busy and busy[0][0] <= self.now:
                at, place, rested = heapq.heappop(busy)
                if rested:
                    free.add(place)
                else:
                    self.left[place] = at
                    heapq.heappush(busy, (at + _REST_S, place, True))
            place = self._choose(self, sorted(free))
            free.remove(place)
            if self.now > _DAY_S:
                self._used.add(place // self.codes)
                if self.left[place] > 0:
                    self._gaps.append(self.now - self.left[place])
            heapq.heappush(busy, (self.now + self.dice.expovariate(1 / _LIFE_S), place, False))
        hours = sorted(gap / 3600 for gap in self._gaps)
        return Gap(kind, policy, statistics.median(hours), hours[len(hours) // 10], hours[0], len(self._used))


def ours(game: Game, free: Sequence[int]) -> int:
    """As ``pick_places()``: of the first X that has any, or inside the prefix of whole X, the longest rest."""
    if game.codes > 1:
        last = (free[0] // game.codes + 1) * game.codes
    else:
        last = max(game.prefix.length(game.now), free[0] + 1)
        game.prefix.note(free[0], game.now)
    inside = [place for place in free if place < last]
    return min(inside, key=lambda place: (game.left[place], place))


def by_chance(game: Game, free: Sequence[int]) -> int:
    """Any."""
    return game.dice.choice(free)


def lowest(_game: Game, free: Sequence[int]) -> int:
    """The first."""
    return free[0]


def gaps() -> list[Gap]:
    """Play the same orders against every policy."""
    policies: dict[str, Choose] = {"ours": ours, "random": by_chance, "lowest first": lowest}
    kinds = {"whole X": (200, 1), "extensions": (20, 50)}
    return [
        Game(numbers, codes, choose).play(kind, policy)
        for kind, (numbers, codes) in kinds.items()
        for policy, choose in policies.items()
    ]


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the second table: items a second, and milliseconds of a statement."""

    what: str
    per_s: float
    p50_ms: float
    p99_ms: float


class Bench:
    """A pool of extensions."""

    def __init__(self, db: Database, pool: int) -> None:
        """Claim for parties that come once."""
        self.db = db
        self.pool = pool
        self.party = 0
        self.held: list[PlaceClaim] = []

    def claim(self) -> PlaceClaim:
        """One more order."""
        self.party += 1
        return PlaceClaim(
            most=None, pool_id=self.pool, prefix=None, asked=None, app_id=1, caller_id=1, line_id=new_id(),
            binding_id=new_id(), a_key=self.party, a_sealed=b"a" * 43, callback_sealed=None, direction="both",
            options=None, line_ttl_s=86_400, ttl_s=86_400, order_id="order-000000000001", user_data=None, metadata=None,
            key_hash=None, key_token=None,
        )  # fmt: skip

    async def reserve(self, many: int) -> float:
        """Claim a batch that must win; how long it took."""
        batch = [self.claim() for _ in range(many)]
        begun = time.perf_counter()
        given = await places.reserve(self.db, batch, lease_s=_LEASE_S)
        took = time.perf_counter() - begun
        _expect("won", given)
        self.held += batch
        return took

    async def leave(self, many: int, rest_s: float) -> None:
        """End lines, the oldest first."""
        going, self.held = self.held[:many], self.held[many:]
        ended = [
            Ended(CallKey(one.pool_id, one.line_id, 1, 1), 1, "released", "released", rest_s, "done", 200, "0")
            for one in going
        ]
        await calls.settle_ended(self.db, ended)

    async def rate(self, what: str, size: int, seconds: float) -> Figure:
        """Batches for some time; two in flight."""
        times: list[float] = []
        end = time.perf_counter() + seconds

        async def lane() -> None:
            while time.perf_counter() < end:
                times.append(await self.reserve(size))

        begun = time.perf_counter()
        await asyncio.gather(lane(), lane())
        return _figure(what, size * len(times) / (time.perf_counter() - begun), times)

    async def refusals(self, what: str, size: int) -> Figure:
        """Refused batches, one after the other."""
        times = []
        for _ in range(_REFUSALS):
            batch = [self.claim() for _ in range(size)]
            begun = time.perf_counter()
            given = await places.reserve(self.db, batch, lease_s=_LEASE_S)
            times.append(time.perf_counter() - begun)
            _expect("exhausted", given)
        return _figure(what, size * _REFUSALS / sum(times), times)


def _expect(outcome: str, given: Sequence[Given]) -> None:
    if any(one.outcome != outcome for one in given):
        raise SystemExit(f"not every claim was {outcome}: nothing was measured")


def _figure(what: str, per_s: float, times: Sequence[float]) -> Figure:
    ordered = sorted(times)
    return Figure(what, per_s, 1000 * statistics.median(ordered), 1000 * ordered[int(len(ordered) * 0.99)])


async def measured(dsn: str, seconds: float) -> list[Figure]:
    """Fill, churn and exhaust a pool."""
    db = Database(dsn, connections=4, timeout_s=120)
    await db.open()
    try:
        await db.fetch(
            "INSERT INTO app (name, mode, app_key, secret_sealed, base_url) VALUES ('b', 'axe', 'b', 's', 'http://b')"
        )
        await db.fetch("INSERT INTO caller (app_id, name) VALUES (1, 'b')")
        made = await db.fetch("INSERT INTO pool (app_id, name, area_code) VALUES (1, 'b', '0755') RETURNING id")
        begun = time.perf_counter()
        await db.fetch(
            "INSERT INTO x_number (pool_id, x_id, number) SELECT $1, x, '+86' || (17000000000 + x)"
            " FROM generate_series(0, $2::integer - 1) AS x",
            made[0]["id"], _X,
        )  # fmt: skip
        took = time.perf_counter() - begun
        bench = Bench(db, made[0]["id"])
        found = [Figure(f"lay out {_X * _CODES} places", _X * _CODES / took, 1000 * took, 1000 * took)]
        found += [await bench.rate(f"claims in batches of {size}", size, seconds) for size in (1, 50, 200)]
        end = time.perf_counter() + 2 * seconds
        while time.perf_counter() < end:
            # Everybody rests behind the clock, so that the same places come again and leave dead rows behind.
            await bench.leave(200, -1.0)
            await bench.reserve(200)
        found.append(await bench.rate("claims in batches of 50, after churn", 50, seconds))
        while len(bench.held) < _X * _CODES - 400:
            await bench.reserve(400)
        await bench.reserve(_X * _CODES - len(bench.held))
        for _ in range(100):
            await bench.leave(200, 3600.0)
        found.append(await bench.refusals("refusals, one at a time", 1))
        found.append(await bench.refusals("refusals in batches of 50", 50))
    finally:
        await db.close()
    return found


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each measurement")
    parser.add_argument("--state-root", type=Path, default=Path("/var/tmp"), help="a real disk")  # noqa: S108
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    played = gaps()
    with tempfile.TemporaryDirectory(dir=asked.state_root, prefix="bench-") as folder:
        Path(folder).chmod(0o755)
        with Embedded(Path(folder)) as server:
            asyncio.run(migrate(server.socket_dsn))
            figures = asyncio.run(measured(server.socket_dsn, asked.seconds))
    if asked.json:
        print(
            orjson.dumps(
                {"gaps": [asdict(one) for one in played], "figures": [asdict(one) for one in figures]}
            ).decode()
        )
        return
    print(f"{'':12}{'policy':14}{'median h':>10}{'tenth h':>10}{'shortest h':>12}{'X used':>8}")
    for gap in played:
        print(
            f"{gap.kind:12}{gap.policy:14}{gap.median_h:>10.2f}{gap.tenth_h:>10.2f}{gap.shortest_h:>12.2f}{gap.x_used:>8}"
        )
    print(f"\n{'':40}{'a second':>10}{'p50 ms':>10}{'p99 ms':>10}")
    for one in figures:
        print(f"{one.what:40}{one.per_s:>10.0f}{one.p50_ms:>10.2f}{one.p99_ms:>10.2f}")


if __name__ == "__main__":
    main()

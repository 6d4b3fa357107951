"""A process that claims and ends what others claim too: ``python -m tests.store.rival URL SEED MODE ROUNDS``.

Prints how many claims had which outcome, as JSON; ``wrong`` counts the looks at the books that found a fault.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections import Counter

from broker.store.allocation import BatchTorn, LockMode
from broker.store.database import Database
from tests.store.shop import Shop

PARTIES = 10
NUMBERS = 4


def batch(dice: random.Random, size: int) -> list[tuple[int, int, int]]:
    """Claims (a, b, x) that do not want the same party on the same X twice."""
    taken: set[tuple[int, int]] = set()
    found: list[tuple[int, int, int]] = []
    for _ in range(size):
        a, b = dice.sample(range(PARTIES), 2)
        x = dice.randrange(NUMBERS)
        if not {(a, x), (b, x)} & taken:
            taken |= {(a, x), (b, x)}
            found.append((a, b, x))
    return found


async def rival(shop: Shop, dice: random.Random, mode: LockMode, rounds: int) -> Counter[str]:
    """Claim, look at the books, end most of what was won, and so on."""
    seen: Counter[str] = Counter()
    for _ in range(rounds):
        claims = [shop.claim(a, b, x, cap=3) for a, b, x in batch(dice, dice.randrange(1, 6))]
        try:
            outcomes = await shop.reserve(*claims, mode=mode)
        except BatchTorn:
            seen["torn"] += 1
            continue
        seen.update(outcomes)
        seen["wrong"] += bool(await shop.wrong_books())
        for claim, outcome in zip(claims, outcomes, strict=True):
            # Nearly all are ended and hardly any rests: in a pool that is full nobody meets anybody.
            if outcome == "won" and dice.random() < 0.99:
                await shop.end(claim, no=1, rest_s=600.0 if dice.random() < 0.02 else -1.0)
    return seen


async def main(url: str, seed: int, mode: LockMode, rounds: int) -> Counter[str]:
    """Join the shop that is open already."""
    db = Database(url, connections=1, timeout_s=20)
    await db.open()
    row = await db.fetchrow("SELECT array_agg(id ORDER BY id) AS pools, min(app_id) AS app FROM pool")
    assert row is not None
    shop = Shop(db, row["app"], 1, tuple(row["pools"]))
    seen = await rival(shop, random.Random(seed), mode, rounds)  # noqa: S311 - a repeatable game
    await db.close()
    return seen


if __name__ == "__main__":
    _url, _seed, _mode, _rounds = sys.argv[1:]
    print(json.dumps(asyncio.run(main(_url, int(_seed), LockMode(_mode), int(_rounds)))))  # noqa: T201

"""A process that claims and leaves places others claim too: ``python -m tests.store.place_rival URL SEED``.

Prints how many claims had which outcome, as JSON; ``wrong`` counts looks at the books that found a fault, ``early``
places that somebody got before the rest of somebody else was over.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections import Counter

from broker.store.database import Database
from broker.store.places import Given, PlaceClaim
from tests.store.stall import Stall

_ROUNDS = 60
_PARTIES = 8
#: Who had a place until when: asked of what is about to be overwritten, so kept by a trigger.
WATCH = (
    "CREATE TABLE early (x_id integer)",
    """
    CREATE FUNCTION note_early() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      IF NEW.until = 'infinity' AND OLD.until > broker_now() AND OLD.party_key IS DISTINCT FROM NEW.party_key THEN
        INSERT INTO early VALUES (NEW.x_id);
      END IF;
      RETURN NEW;
    END $$
    """,
    "CREATE TRIGGER watch BEFORE UPDATE ON place FOR EACH ROW EXECUTE FUNCTION note_early()",
)


async def rival(stall: Stall, dice: random.Random) -> Counter[str]:
    """Claim, look at the books, leave most of what was won, and so on."""
    seen: Counter[str] = Counter()
    held: list[PlaceClaim] = []
    for _ in range(_ROUNDS):
        claims = [stall.want(dice.randrange(_PARTIES), most=5) for _ in range(dice.randrange(1, 8))]
        given: list[Given] = await stall.give(*claims)
        seen.update(one.outcome for one in given)
        seen["wrong"] += bool(await stall.wrong_books())
        held += [claim for claim, one in zip(claims, given, strict=True) if one.outcome == "won"]
        dice.shuffle(held)
        while len(held) > 3:
            await stall.leave(held.pop(), rest_s=0.03 if dice.random() < 0.5 else -1.0)
    for claim in held:
        await stall.leave(claim, rest_s=-1.0)
    return seen


async def main(url: str, seed: int) -> Counter[str]:
    """Join the stall that is open already."""
    db = Database(url, connections=1, timeout_s=20)
    await db.open()
    row = await db.fetchrow("SELECT p.id AS pool, p.app_id AS app, c.id AS caller FROM pool AS p, caller AS c")
    assert row is not None
    stall = Stall(db, row["app"], row["caller"], (row["pool"],), "axe")
    seen = await rival(stall, random.Random(seed))  # noqa: S311 - a repeatable game
    seen["early"] = await stall.value("SELECT count(*) FROM early")
    await db.close()
    return seen


if __name__ == "__main__":
    _url, _seed = sys.argv[1:]
    print(json.dumps(asyncio.run(main(_url, int(_seed)))))  # noqa: T201

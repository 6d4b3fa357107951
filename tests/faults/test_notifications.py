"""P9 in small: pushes of all kinds, repeated and shuffled, over two workers that are killed: each effect once.

``TEST_PUSHES`` (500) says how many there are; ``python -m bench.pushes`` is the large one.
"""

from __future__ import annotations

import asyncio
import os
import random

import asyncpg
import pytest

from bench.ledger import Ledger, differences
from bench.mixed import kill_a_worker
from bench.pushed import Deliverer, books, bound, idle_numbers, left
from bench.pushing import Signature
from broker.cli.demo import identity
from broker.store.crypto import Vault, parse_data_keys, parse_index_key
from tests.contract.service import client_of, eventually, memory, up
from tests.pg import state_folder

pytestmark = pytest.mark.slow

PUSHES = int(os.environ.get("TEST_PUSHES", "500"))
_APPS = {"axb": "demo-axb", "x": "demo-x"}
_ORDERS, _SENDERS, _SEED = 6, 16, 9
_KILLED_AT = (0.1, 0.4, 0.7)


async def test_every_effect_once() -> None:
    """Duplicates, disorder, cut connections and killed workers change nothing: each effect once, none lost."""
    with state_folder(memory()) as folder, up(folder, "--workers", "2") as service:
        who, edge = identity(folder), service.ready["edge"]
        db = await asyncpg.connect(service.database)
        async with client_of(service) as client:
            keys = {mode: who.apps[mode].api_key for mode in _APPS}
            orders = await bound(client.http, service.api, keys, _ORDERS)
        ledger = Ledger(random.Random(_SEED))  # noqa: S311 - the same disorder every time
        ledger.fill(PUSHES, orders, await idle_numbers(db, _APPS["axb"]))
        signatures = {
            mode: Signature(edge, name, who.apps[mode].app_key, who.apps[mode].app_secret)
            for mode, name in _APPS.items()
        }
        deliverer = Deliverer(edge, signatures, cut=0.05, seed=_SEED)
        queue = ledger.deliveries()
        total = len(queue)
        delivering = asyncio.create_task(deliverer.deliver(queue, _SENDERS))
        for share in _KILLED_AT:

            async def reached(share: float = share) -> bool:
                return deliverer.delivered >= share * total

            await eventually(reached, f"{share:.0%} are delivered", limit_s=120)
            assert kill_a_worker(service.process.pid) == 1
        await delivering

        async def settled() -> bool:
            return not await left(db)

        await eventually(settled, "every notification has its effects", limit_s=60)
        vault = Vault(parse_data_keys(who.data_keys), parse_index_key(who.index_key))
        assert differences(ledger, await books(db, vault, _APPS, ledger)) == []
        await db.close()
    assert deliverer.answers["cut"] > 0

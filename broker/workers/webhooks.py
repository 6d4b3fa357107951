"""The webhooks that this process delivers to: takes those that nobody has, gives back those with nothing to do."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from broker.domain.ids import new_id
from broker.flows.feed import Feeds
from broker.metrics import Metrics
from broker.store import webhooks
from broker.store.crypto import Vault
from broker.store.database import Database
from broker.workers.deliver import Deliverer, Delivery
from broker.workers.webhook_client import WebhookClient

log = structlog.get_logger()

_MOST: Final = 64
_TAKEN_AT_ONCE: Final = 8


class Webhooks:
    """Deliverers of this process, one for each webhook that it has."""

    def __init__(
        self, db: Database, vault: Vault, feeds: Feeds, client: WebhookClient, delivery: Delivery, metrics: Metrics
    ) -> None:
        """Nothing is taken before :meth:`look`."""
        self._db, self._vault, self._feeds, self._client = db, vault, feeds, client
        self._delivery, self._metrics = delivery, metrics
        self._owner = new_id()
        self._at_work: dict[asyncio.Task[None], Deliverer] = {}
        self._stopped = False

    async def look(self) -> bool:
        """Take some webhooks that have something to do; a service calls this again and again."""
        room = min(_MOST - len(self._at_work), _TAKEN_AT_ONCE)
        if self._stopped or room <= 0:
            return False
        taken = await webhooks.claim(self._db, self._vault, self._owner, lease_s=self._delivery.lease_s, limit=room)
        for webhook in taken:
            deliverer = Deliverer(
                self._db, self._vault, webhook, self._client, self._feeds, self._delivery, self._metrics
            )
            task = asyncio.create_task(deliverer.run(), name=f"webhook {webhook.id}")
            self._at_work[task] = deliverer
            task.add_done_callback(self._ended)
        return len(taken) == _TAKEN_AT_ONCE

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._at_work[task]
        if not task.cancelled() and task.exception() is not None:
            log.error("webhook_broken", exc_info=task.exception())

    async def stop(self, limit_s: float) -> None:
        """Finish what is being sent, write down what came of it, give everything back."""
        self._stopped = True
        for deliverer in self._at_work.values():
            deliverer.stop()
        if self._at_work:
            _, late = await asyncio.wait(self._at_work, timeout=limit_s)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
        await self._client.close()

"""An instance of the broker whose only app has lines of one party, beside a real emulator of that mode."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from broker.clock import boottime
from broker.domain.change import LineChange
from broker.domain.choice import Policy
from broker.domain.modes import MODES
from broker.domain.options import DEFAULT, CallOptions
from broker.domain.phone import PhoneNumber
from broker.flows.allocators import Allocators
from broker.flows.bind import Accepted, bind
from broker.flows.calls import PlatformCall
from broker.flows.change import Changer, Plan, Wait
from broker.flows.order import BindOrder
from broker.flows.picked import Unpicked
from broker.flows.place import Placer
from broker.platform.huawei.access import driver_of
from broker.store.bindings import Binding, show
from broker.store.changes import OwnChange
from broker.store.database import Database
from broker.workers.dispatch import Dispatcher
from tests.emulator.support import Emulated, emulator
from tests.workers.rig import REST_S, Instance, instance_of, seed

DIGITS = 4


class Sole(Instance):
    """An instance that gives out places."""

    def __post_init__(self) -> None:
        """Choose places, and bind anew what the mode cannot modify."""
        super().__post_init__()
        self.placer = Placer(self.db, self.vault, lambda: self.known, lease_s=self.timing.lease_s, boottime=boottime)
        unpicked = Unpicked(self.db, self.vault, lease_s=self.timing.lease_s, boottime=boottime)
        allocators = Allocators(self.allocator, self.placer, unpicked, lambda: self.known)
        self.dispatcher = Dispatcher(
            self.db, self.sender, allocators, vault=self.vault, rest_s=lambda _: REST_S, replaces=self._replaces
        )

    def _replaces(self, call: PlatformCall, change: LineChange) -> bool:
        app = self.known.apps[call.app_id]
        return (change.a is not None and "a" in MODES[app.mode].rebinds) or (change.renewal and app.recreate)

    async def take(
        self, a: str, *, ttl_s: int = 3600, options: CallOptions = DEFAULT, callback: str | None = None,
        wait: bool = True,
    ) -> Accepted:  # fmt: skip
        """Bind A as the API does."""
        order = BindOrder(
            app=self.app, caller_id=1, a=PhoneNumber(a), b=None, a_key=self.vault.party_key(a), b_key=None,
            pools=tuple(self.known.pools.values()), ttl_s=ttl_s, direction="both", policy=Policy.PACK, options=options,
            callback=PhoneNumber(callback) if callback is not None else None,
        )  # fmt: skip
        return await bind(
            order, self.placer, self.dispatcher, lease_s=self.timing.lease_s, deadline=boottime() + 10.0, wait=wait
        )

    async def change(
        self, made: Accepted, line: LineChange | None, own: OwnChange | None = None, *, wait: bool = True
    ) -> Binding:
        """Change a binding as the API does."""

        async def read(row: tuple[int, Any]) -> Binding | None:
            return (await show(self.db, self.vault, [row])).get(row)

        changer = Changer(
            self.db, self.vault, lambda: self.known, self.allocator, self.dispatcher, read, lease_s=self.timing.lease_s
        )
        plan = Plan(own=own or OwnChange(), line=line)
        return await changer.change(await self.show(made), plan, Wait(boottime() + 20.0, wait=wait))


@contextlib.asynccontextmanager
async def world(dsn: str, folder: Path, mode: str) -> AsyncIterator[Emulated]:
    """Run an emulator with an app of ``mode`` and three numbers, which the database knows as one pool with places."""
    async with emulator(folder / "emulator", app={"mode": mode, "extension_digits": DIGITS}) as emu:
        db = Database(dsn, connections=2, timeout_s=5)
        await db.open()
        await seed(db, emu)
        await db.fetch("UPDATE app SET mode = $1, extension_digits = $2, extensions_per_x = 5", mode, DIGITS)
        await db.close()
        yield emu


@contextlib.asynccontextmanager
async def sole(dsn: str, emu: Emulated, **changed: Any) -> AsyncIterator[Sole]:
    """Run an instance on it."""
    async with instance_of(Sole, dsn, emu, platform=driver_of, **changed) as one:
        yield one

"""What `up` makes for a newcomer: keys, an app of each mode, pools and a tone; the same ones at every start."""

from __future__ import annotations

import base64
import math
import os
import secrets
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from broker.api.auth import new_key
from broker.domain import g711, tone, wav
from broker.store.crypto import Vault
from broker.store.database import Database
from broker.store.registry import hash_key
from broker.store.statements import statements

#: An approved tone that the platform knows, too.
TONE = "demo_tone.wav"
#: Whose the apps are, and who uses each of them.
_OWNER = _CALLER = "demo"
#: Digits of an AXE extension, as a new app has them.
EXTENSION_DIGITS = 4
_QUARANTINE_S = 7200
_CAP = 500


@dataclass(frozen=True, slots=True)
class DemoPool:
    """A pool of ``count`` fictional numbers of a virtual operator's range, from ``first`` on."""

    name: str
    area_code: str
    first: int
    count: int
    routing: str = "pair"

    def numbers(self) -> list[str]:
        """Return its X numbers."""
        return [f"+86{self.first + place}" for place in range(self.count)]


#: The pools of each mode's app.
POOLS: Mapping[str, tuple[DemoPool, ...]] = {
    "axb": (DemoPool("beijing", "010", 17010000001, 24), DemoPool("shenzhen", "0755", 17075500001, 40)),
    "ax": (DemoPool("beijing", "010", 17010010001, 16), DemoPool("shenzhen", "0755", 17075510001, 24)),
    "axe": (DemoPool("beijing", "010", 17010020001, 4), DemoPool("shenzhen", "0755", 17075520001, 4)),
    "axyb": (DemoPool("beijing", "010", 17010030001, 16), DemoPool("shenzhen", "0755", 17075530001, 24)),
    "x": (
        DemoPool("beijing", "010", 17010040001, 16),
        DemoPool("shenzhen", "0755", 17075540001, 24),
        DemoPool("shops", "0755", 17075541001, 16, routing="one"),
    ),
}


@dataclass(frozen=True, slots=True)
class DemoApp:
    """Secrets of one app: its own at the platform, and its caller's."""

    app_key: str
    app_secret: str
    api_key: str

    @classmethod
    def new(cls) -> DemoApp:
        """Make some."""
        return cls("demo" + secrets.token_hex(8), secrets.token_hex(16), new_key())


@dataclass(frozen=True, slots=True)
class Identity:
    """Secrets of this state folder; ``apps`` by mode."""

    data_keys: str
    index_key: str
    apps: Mapping[str, DemoApp]


def app_name(mode: str) -> str:
    """Return what the demonstration app of a mode is called."""
    return f"demo-{mode}"


def identity(folder: Path) -> Identity:
    """Read the folder's keys, making those that it has not got."""
    path = folder / "keys.json"
    try:
        kept = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        kept = {
            "data_keys": "1:" + base64.b64encode(secrets.token_bytes(32)).decode(),
            "index_key": base64.b64encode(secrets.token_bytes(32)).decode(),
            **asdict(DemoApp.new()),
        }
    # A folder of the time when there was one app has that app's secrets beside its own.
    first = {name: kept[name] for name in ("app_key", "app_secret", "api_key")}
    others = kept.get("apps", {})
    apps = {"axb": DemoApp(**first)} | {
        mode: DemoApp(**others[mode]) if mode in others else DemoApp.new() for mode in POOLS if mode != "axb"
    }
    wanted = kept | {"apps": {mode: asdict(app) for mode, app in apps.items() if mode != "axb"}}
    if wanted != kept or not path.exists():
        _write(path, wanted)
    return Identity(kept["data_keys"], kept["index_key"], apps)


def _write(path: Path, keys: Mapping[str, object]) -> None:
    draft = path.with_suffix(".new")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(orjson.dumps(keys))
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


async def seed(db: Database, vault: Vault, who: Identity, platform_url: str) -> None:
    """Make apps, callers, keys, pools, numbers and tones, or leave those that exist."""
    known = {row["number"] for row in await db.fetch(statements("config")["numbers"])}
    file = _two_notes()
    for mode, app in who.apps.items():
        app_id = await _seed_app(db, vault, mode, app, platform_url)
        for pool in POOLS[mode]:
            await _seed_pool(db, app_id, pool, known)
        await db.fetch(statements("config")["add_approved_tone"], app_id, TONE, file, wav.read(file).duration_ms)


async def _seed_app(db: Database, vault: Vault, mode: str, app: DemoApp, platform_url: str) -> int:
    sql, name = statements("config"), app_name(mode)
    sealed = vault.seal("app", "secret", 0, name, app.app_secret)
    made = await db.fetchrow(
        sql["add_app"], name, mode, app.app_key, sealed, platform_url, None, 1, _QUARANTINE_S, _CAP
    )
    app_id = int(made["id"]) if made else 0
    await db.fetch(sql["own_app"], app_id, _OWNER)
    caller = await db.fetchrow(sql["add_caller"], app_id, _CALLER)
    await db.fetch(
        sql["add_key"], hash_key(app.api_key), caller["id"] if caller else 0, ["bind", "read"], app.api_key[-4:]
    )
    return app_id


async def _seed_pool(db: Database, app_id: int, pool: DemoPool, known: AbstractSet[str]) -> None:
    sql = statements("config")
    made = await db.fetchrow(sql["add_pool"], app_id, pool.name, pool.area_code)
    pool_id = int(made["id"]) if made else 0
    await db.fetch(sql["route_pool"], pool_id, pool.routing)
    for number in pool.numbers():
        if number not in known:
            await db.fetch(sql["add_number"], pool_id, number)


def _two_notes() -> bytes:
    """Return a second of sound: an A and the E above it, each swelling and fading."""
    half = tone.RATE // 2
    samples = (
        round(12_000 * math.sin(math.pi * at / half) * math.sin(2 * math.pi * hertz * at / tone.RATE))
        for hertz in (440, 660)
        for at in range(half)
    )
    return wav.write_alaw(g711.alaw(samples), tone.RATE)

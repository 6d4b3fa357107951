"""What an instance caches: apps, keys, pools, numbers and tones, reloaded when ``config_version`` moves."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

import asyncpg

from broker.domain.choice import Policy
from broker.domain.extension import codes
from broker.domain.modes import MODES, Allocation
from broker.store.crypto import SealBroken, Vault
from broker.store.database import Database
from broker.store.statements import statements

#: Interfaces of the platform that may have a limit of their own.
INTERFACES = ("bind", "unbind", "modify", "query")


@dataclass(frozen=True, slots=True)
class App:
    """A platform application: the tenant. ``rate`` is platform calls a second over all instances, None = no limit.

    ``tones`` are its voice files and their states; only approved ones may be named in a bind.
    """

    id: int
    name: str
    mode: str
    app_key: str
    secret: str = field(repr=False)
    base_url: str
    auth_scheme: str
    rate: float | None
    burst: int
    default_ttl_s: int
    quarantine_s: int
    cap: int
    policy: Policy
    suspended: str | None
    max_ttl_s: int = 31_536_000
    recording: bool = True
    sms: bool = True
    owner: str | None = None
    extension_digits: int = 4
    extensions_per_x: int = 200
    recreate: bool = False
    retention_days: int = 90
    #: Nothing is allocated until an audit has come to its end.
    gated: bool = False
    #: Another system binds: lines are predictions. And when that last changed.
    shadow: bool = False
    shadow_changed_at: datetime | None = None
    #: What the platform has lost is bound anew; else its bindings end.
    rebinds: bool = True
    requests_per_s: float | None = None
    max_live_bindings: int | None = None
    #: A binding that is pending so long is withdrawn.
    withdraw_after_s: int | None = None
    #: How long the line of a released binding lives on where the release does not say.
    release_grace_s: int = 0
    #: Share of released lines that rest so many times longer.
    sample_share: float = 0.0
    sample_factor: int = 7
    #: Calls an hour that one X may carry while others carry less.
    heat: int | None = None
    #: Secrets that a push may be signed with: the current one, and the staged or the previous one. Ours use the first.
    accepted_secrets: tuple[str, ...] = field(default=(), repr=False)
    #: Whether pushes may be signed by X-WSSE, the networks they come from, and what a caller hears who reaches nobody.
    push_wsse: bool = True
    push_from: str | None = None
    close_tone: str | None = None
    tones: Mapping[str, str] = field(default_factory=dict, hash=False)
    #: Rates of single interfaces (bind, unbind, modify, query) within ``rate``, where they have one.
    own_rates: Mapping[str, float] = field(default_factory=dict, hash=False)
    #: Fingerprint of the access data that calls are signed with.
    access: str = ""
    #: How many callers share its limit.
    callers: int = 1


@dataclass(frozen=True, slots=True)
class Key:
    """Who calls with an API key, and what it may. ``hint`` is the key's end, for people; None = no limit."""

    app: App
    caller_id: int
    caller: str
    scopes: frozenset[str]
    hint: str = ""
    requests_per_s: float | None = None
    max_live_bindings: int | None = None


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool and its numbers: ``numbers[x_id]``; ``open_mask`` has the bits of those that may be handed out."""

    id: int
    app: App
    name: str
    area_code: str
    open: bool
    numbers: tuple[str, ...]
    open_mask: int
    routing: str = "pair"
    typo_safe: bool = False
    #: The pool is low when no more than so much is left; None = nobody is told.
    low_percent: int | None = None

    @property
    def codes(self) -> tuple[int, ...]:
        """The extensions of each X that are given out; 0 = the whole X; none where X numbers go to pairs."""
        mode = MODES[self.app.mode]
        if "extension" in mode.binds:
            return codes(self.app.extension_digits, self.app.extensions_per_x, typo_safe=self.typo_safe)
        whole = mode.allocation is Allocation.PLACE or ("routing" in mode.binds and self.routing == "one")
        return (0,) if whole else ()


@dataclass(frozen=True, slots=True)
class Registry:
    """One consistent snapshot of the configuration. ``places`` says of each X number its pool and its place there.

    ``weights`` are callers' shares of their app's limit, ``most_live`` the limits of live bindings by caller id.
    """

    version: int
    apps: Mapping[int, App]
    keys: Mapping[bytes, Key]
    pools: Mapping[int, Pool]
    app_pools: Mapping[int, tuple[Pool, ...]]
    named_pools: Mapping[tuple[int, str], Pool]
    places: Mapping[str, tuple[int, int]]
    weights: Mapping[int, int]
    most_live: Mapping[int, int] = field(default_factory=dict)

    @property
    def our_numbers(self) -> Collection[str]:
        """All X numbers."""
        return self.places.keys()

    def key(self, presented: str) -> Key | None:
        """Return whose key this is. Keys are random, so a plain hash look-up tells an attacker nothing by its time."""
        return self.keys.get(hash_key(presented))


def hash_key(presented: str) -> bytes:
    """Return how an API key is stored."""
    return hashlib.sha256(presented.encode(errors="surrogateescape")).digest()


async def version(db: Database) -> int:
    """Return the current configuration version."""
    row = await db.fetchrow(statements("config")["version"])
    return int(row["version"]) if row else 0


async def load(db: Database, vault: Vault) -> Registry:
    """Read everything. The version is read first: a change in between causes one more load, never a missed one.

    Raises:
        SealBroken: if the data keys do not open an app's secret.
    """
    sql = statements("config")
    current = await version(db)
    tones: dict[int, dict[str, str]] = {}
    for row in await db.fetch(sql["tones"]):
        tones.setdefault(row["app_id"], {})[row["name"]] = row["state"]
    apps = {row["id"]: _app(row, vault, tones.get(row["id"], {})) for row in await db.fetch(sql["apps"])}
    keys = {
        row["key_hash"]: Key(
            apps[row["app_id"]],
            row["caller_id"],
            row["caller"],
            frozenset(row["scopes"]),
            row["hint"],
            requests_per_s=row["requests_per_s"],
            max_live_bindings=row["max_live_bindings"],
        )
        for row in await db.fetch(sql["keys"])
        if row["app_id"] in apps
    }
    numbers, masks = _numbers(await db.fetch(sql["numbers"]))
    pools = {
        row["id"]: Pool(
            id=row["id"],
            app=apps[row["app_id"]],
            name=row["name"],
            area_code=row["area_code"],
            open=row["state"] == "open",
            numbers=tuple(numbers.get(row["id"], ())),
            open_mask=masks.get(row["id"], 0),
            routing=row["routing"],
            typo_safe=row["typo_safe"],
            low_percent=row["low_percent"],
        )
        for row in await db.fetch(sql["pools"])
        if row["app_id"] in apps
    }
    app_pools: dict[int, list[Pool]] = {}
    for pool in pools.values():
        app_pools.setdefault(pool.app.id, []).append(pool)
    return Registry(
        version=current,
        apps=apps,
        keys=keys,
        pools=pools,
        app_pools={app_id: tuple(found) for app_id, found in app_pools.items()},
        named_pools={(pool.app.id, pool.name): pool for pool in pools.values()},
        places={
            number: (pool_id, x_id)
            for pool_id, listed in numbers.items()
            if pool_id in pools
            for x_id, number in enumerate(listed)
            if number
        },
        weights={row["id"]: row["weight"] for row in await db.fetch(sql["weights"])},
        most_live={key.caller_id: key.max_live_bindings for key in keys.values() if key.max_live_bindings is not None},
    )


def _app(row: asyncpg.Record, vault: Vault, tones: Mapping[str, str]) -> App:
    kept = (row["secret_sealed"], row["next_secret_sealed"], row["previous_secret_sealed"])
    try:
        secrets = tuple(vault.open("app", "secret", 0, row["name"], sealed) for sealed in kept if sealed is not None)
    except SealBroken as error:
        raise SealBroken(f"app {row['name']}: {error}; is BROKER_DATA_KEYS the one it was stored with?") from None
    return App(
        id=row["id"],
        name=row["name"],
        mode=row["mode"],
        app_key=row["app_key"],
        secret=secrets[0],
        base_url=row["base_url"],
        auth_scheme=row["auth_scheme"],
        rate=row["rate"],
        burst=row["burst"],
        default_ttl_s=row["default_ttl_s"],
        quarantine_s=row["quarantine_s"],
        cap=row["cap"],
        policy=Policy(row["policy"]),
        suspended=(row["state_reason"] or "suspended") if row["state"] == "suspended" else None,
        max_ttl_s=row["max_ttl_s"],
        recording=row["recording"],
        sms=row["sms"],
        owner=row["owner"],
        extension_digits=row["extension_digits"],
        extensions_per_x=row["extensions_per_x"],
        recreate=row["recreate"],
        retention_days=row["retention_days"],
        gated=row["gated"],
        shadow=row["shadow"],
        shadow_changed_at=row["shadow_changed_at"],
        rebinds=row["rebinds"],
        requests_per_s=row["requests_per_s"],
        max_live_bindings=row["max_live_bindings"],
        withdraw_after_s=row["withdraw_after_s"],
        release_grace_s=row["release_grace_s"],
        sample_share=row["sample_share"],
        sample_factor=row["sample_factor"],
        heat=row["heat"],
        accepted_secrets=secrets,
        push_wsse=row["push_wsse"],
        push_from=row["push_from"],
        close_tone=row["close_tone"],
        tones=tones,
        own_rates={kind: rate for kind in INTERFACES if (rate := row[f"{kind}_rate"]) is not None},
        callers=row["callers"],
        access=hashlib.sha256(f"{row['app_key']} {row['base_url']} ".encode() + row["secret_sealed"]).hexdigest()[:32],
    )


def _numbers(rows: Iterable[asyncpg.Record]) -> tuple[dict[int, list[str]], dict[int, int]]:
    """Return by pool the numbers in their places, and the bits of those that may be handed out."""
    numbers: dict[int, list[str]] = {}
    masks: dict[int, int] = {}
    for row in rows:
        listed = numbers.setdefault(row["pool_id"], [])
        listed.extend([""] * (row["x_id"] + 1 - len(listed)))
        listed[row["x_id"]] = row["number"]
        if row["state"] == "open":
            masks[row["pool_id"]] = masks.get(row["pool_id"], 0) | 1 << row["x_id"]
    return numbers, masks

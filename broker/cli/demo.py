"""What `up` makes for a newcomer: keys, one demonstration app, its pools and a tone; the same ones at every start."""

from __future__ import annotations

import base64
import math
import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from broker.api.auth import new_key
from broker.domain import g711, tone, wav
from broker.store.crypto import Vault
from broker.store.database import Database
from broker.store.registry import hash_key
from broker.store.statements import statements

#: Pool name, area code, first X and how many; fictional numbers of a virtual operator's range.
POOLS = (("beijing", "010", 17010000001, 24), ("shenzhen", "0755", 17075500001, 40))
#: An approved tone that the platform knows, too.
TONE = "demo_tone.wav"
_QUARANTINE_S = 7200
_CAP = 500


@dataclass(frozen=True, slots=True)
class Identity:
    """Secrets of this state folder."""

    data_keys: str
    index_key: str
    app_key: str
    app_secret: str
    api_key: str


def identity(folder: Path) -> Identity:
    """Read the folder's keys, making them at the first start."""
    path = folder / "keys.json"
    try:
        return Identity(**orjson.loads(path.read_bytes()))
    except FileNotFoundError:
        made = Identity(
            data_keys="1:" + base64.b64encode(secrets.token_bytes(32)).decode(),
            index_key=base64.b64encode(secrets.token_bytes(32)).decode(),
            app_key="demo" + secrets.token_hex(8),
            app_secret=secrets.token_hex(16),
            api_key=new_key(),
        )
        draft = path.with_suffix(".new")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(orjson.dumps(asdict(made)))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        return made


def numbers() -> list[tuple[str, str]]:
    """Return (X number, area code) of all demonstration pools."""
    return [(f"+86{first + place}", area) for _, area, first, count in POOLS for place in range(count)]


async def seed(db: Database, vault: Vault, who: Identity, platform_url: str) -> None:
    """Make app, caller, key, pools, numbers and tone, or leave those that exist."""
    sql = statements("config")
    sealed = vault.seal("app", "secret", 0, "demo-axb", who.app_secret)
    app = await db.fetchrow(
        sql["add_app"], "demo-axb", "axb", who.app_key, sealed, platform_url, None, 1, _QUARANTINE_S, _CAP
    )
    caller = await db.fetchrow(sql["add_caller"], app["id"] if app else 0, "demo")
    await db.fetch(
        sql["add_key"], hash_key(who.api_key), caller["id"] if caller else 0, ["bind", "read"], who.api_key[-4:]
    )
    known = {row["number"] for row in await db.fetch(sql["numbers"])}
    for name, area, first, count in POOLS:
        pool = await db.fetchrow(sql["add_pool"], app["id"] if app else 0, name, area)
        for place in range(count):
            if (number := f"+86{first + place}") not in known:
                await db.fetch(sql["add_number"], pool["id"] if pool else 0, number)
    file = _two_notes()
    await db.fetch(sql["add_approved_tone"], app["id"] if app else 0, TONE, file, wav.read(file).duration_ms)


def _two_notes() -> bytes:
    """Return a second of sound: an A and the E above it, each swelling and fading."""
    half = tone.RATE // 2
    samples = (
        round(12_000 * math.sin(math.pi * at / half) * math.sin(2 * math.pi * hertz * at / tone.RATE))
        for hertz in (440, 660)
        for at in range(half)
    )
    return wav.write_alaw(g711.alaw(samples), tone.RATE)

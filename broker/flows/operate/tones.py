"""Tones, the voice files of an app: add, submit, approve, reject, remove, export.

Approval itself happens in the platform's console; here it is written down, so that binds name only what will play.
"""

from __future__ import annotations

import asyncio

from broker.domain import tone, wav
from broker.domain.tone import CannotConvert
from broker.domain.wav import BadWav
from broker.errors import Conflict, FieldError, Invalid, NotFound
from broker.flows.operate.desk import Desk, Shown, app_id, shown
from broker.flows.operate.fields import NewTone, ToneFilter
from broker.log import scrubbed
from broker.store.statements import statements

#: Of one app: every instance keeps all names in memory.
MOST_TONES = 500


async def every(desk: Desk, app: str, wanted: ToneFilter) -> list[Shown]:
    """Return the tones of an app."""
    return shown(await desk.db.fetch(statements("operate")["tones"], await app_id(desk, app), None, wanted.state))


async def show(desk: Desk, app: str, name: str) -> Shown:
    """Return one tone.

    Raises:
        NotFound: there is no such app or tone.
    """
    return await _show(desk, await app_id(desk, app), name)


async def add(desk: Desk, app: str, new: NewTone, content: bytes) -> Shown:
    """Take a file in as a draft, or put it in the place of the tone of this name.

    The same content again changes nothing, but that a rejected tone is a draft again.

    Raises:
        NotFound: there is no such app.
        Invalid: the platform would not take the file, and it is not to be (or cannot be) converted.
        Conflict: the app has as many tones as it may have.
    """
    owner = await app_id(desk, app)
    # Converting takes seconds of a long file: not in the loop that serves others.
    taken, duration_ms = await asyncio.to_thread(_taken, content, convert=new.convert)
    stored = await desk.db.fetchrow(
        statements("operate")["add_tone"], owner, new.name, taken, duration_ms, MOST_TONES
    )  # fmt: skip
    if stored is None and not await _rows(desk, owner, new.name):
        raise Conflict(f"An app has at most {MOST_TONES} tones: remove one first.")
    return {**await _show(desk, owner, new.name), "converted": taken != content}


async def submit(desk: Desk, app: str, name: str) -> Shown:
    """Note that the file was uploaded in the platform's console."""
    return await _move(desk, app, name, "submitted", None)


async def approve(desk: Desk, app: str, name: str) -> Shown:
    """Note that the platform approved it: from now on binds may name it."""
    return await _move(desk, app, name, "approved", None)


async def reject(desk: Desk, app: str, name: str, reason: str) -> Shown:
    """Note that the platform did not approve it, and why."""
    return await _move(desk, app, name, "rejected", reason)


async def remove(desk: Desk, app: str, name: str) -> Shown:
    """Forget a tone: binds can name it no more; those bound with it keep it.

    Raises:
        NotFound: there is no such app or tone.
    """
    if await desk.db.fetchrow(statements("operate")["remove_tone"], await app_id(desk, app), name) is None:
        raise _no_tone(name)
    return {"name": name, "removed": True}


async def export(desk: Desk, app: str, name: str) -> bytes:
    """Return the file, to be uploaded in the platform's console.

    Raises:
        NotFound: there is no such app or tone.
    """
    row = await desk.db.fetchrow(statements("operate")["tone_content"], await app_id(desk, app), name)
    if row is None:
        raise _no_tone(name)
    return bytes(row["content"])


def _taken(content: bytes, *, convert: bool) -> tuple[bytes, int]:
    """Return the file as the platform takes it, and its length in milliseconds."""
    try:
        sound = wav.read(content)
        wrong = tone.unmet(sound, len(content))
        if wrong and convert:
            content = tone.convert(sound)
            sound, wrong = wav.read(content), []
    except (BadWav, CannotConvert) as error:
        raise _refused(str(error)) from None
    if wrong:
        raise _refused(f"The platform takes no such file: it has {', '.join(wrong)}. Ask for it to be converted.")
    return content, sound.duration_ms


def _refused(words: str) -> Invalid:
    # The body is the file itself, so the pointer is that of the whole.
    return Invalid("The file is not taken; see errors.", errors=(FieldError("", words),))


async def _move(desk: Desk, app: str, name: str, state: str, reason: str | None) -> Shown:
    owner = await app_id(desk, app)
    now = (await _show(desk, owner, name))["state"]
    if now == state:
        return await _show(desk, owner, name)
    if now != tone.FROM[state]:
        raise Conflict(f"The tone is {now}; only a tone that is {tone.FROM[state]} can become {state}.")
    moved = await desk.db.fetchrow(statements("operate")["set_tone_state"], owner, name, state, reason, now)
    if moved is None:
        raise Conflict("The tone was changed by somebody else at this moment: look again.")
    return await _show(desk, owner, name)


async def _show(desk: Desk, owner: int, name: str) -> Shown:
    rows = await _rows(desk, owner, name)
    if not rows:
        raise _no_tone(name)
    return rows[0]


async def _rows(desk: Desk, owner: int, name: str) -> list[Shown]:
    return shown(await desk.db.fetch(statements("operate")["tones"], owner, name, None))


def _no_tone(name: str) -> NotFound:
    return NotFound(f"The app has no tone '{scrubbed(name)}'.")

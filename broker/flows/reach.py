"""Who is reached through an X, now or at a moment before, in every mode."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from broker.domain.reach import Behind, Reached, Why
from broker.errors import FieldError, Invalid
from broker.flows.route import one_of
from broker.store import reach
from broker.store.crypto import Vault
from broker.store.database import Database
from broker.store.reach import By, Spot


@dataclass(frozen=True, slots=True)
class Question:
    """``caller`` dials ``spot`` (and ``digits``), now or ``at`` a past moment."""

    spot: Spot
    caller: str
    digits: str | None = None
    at: datetime | None = None


async def ask(db: Database, vault: Vault, question: Question) -> Reached | Why:
    """Return whom the caller reaches, or why nobody.

    Raises:
        Invalid: the moment has not come yet, or there are digits where none are dialled.
    """
    spot, at = question.spot, question.at
    if question.digits is not None and spot.mode != "axe":
        raise _wrong("/digits", "are dialled in mode axe only")
    if at is not None:
        come, kept = await reach.kept(db, at, spot.retention_days)
        if not come:
            raise _wrong("/at", "must not be in the future")
        if not kept:
            return Why.NOT_KEPT
    if spot.mode == "axe":
        return await _by_extension(db, vault, question)
    by = By.PAIR if spot.mode == "axb" or (spot.mode == "x" and spot.routing == "pair") else By.WHOLE
    return await _look(db, vault, question, by)


async def _by_extension(db: Database, vault: Vault, question: Question) -> Reached | Why:
    """A reaches whoever called last; everybody else dials an extension."""
    own = await _look(db, vault, question, By.OWN)
    if own is not Why.NOT_BOUND:
        return own
    if question.digits is None:
        return Why.DIGITS_MISSING
    return await _look(db, vault, question, By.PLACE)


async def _look(db: Database, vault: Vault, question: Question, by: By) -> Reached | Why:
    spot, caller, at = question.spot, question.caller, question.at
    extension = int(question.digits or 0) if by is By.PLACE else 0
    lines = await reach.behind(db, vault, spot, by, caller, extension=extension, at=at)
    if at is not None:
        lines += await reach.was_behind(db, vault, spot, by, caller, extension=extension, at=at)
    if by is By.OWN:
        # What was found by a key of the caller may be somebody else's.
        lines = [line for line in lines if _is_a(line, caller)]
    return one_of(lines, caller, spot, by)


def _is_a(line: Behind, caller: str) -> bool:
    return line.a.reveal() == caller


def _wrong(pointer: str, words: str) -> Invalid:
    return Invalid("Some fields are wrong; see errors.", errors=(FieldError(pointer, words),))

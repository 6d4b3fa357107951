"""Who is reached through an X, now or at a moment before, in every mode."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from broker.domain.ids import public_id
from broker.domain.phone import PhoneNumber
from broker.domain.reach import UNKNOWN, WORDS, Behind, Reached, Why
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
    caller: PhoneNumber
    digits: str | None = None
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Books:
    """What the answer is found in."""

    db: Database
    vault: Vault


async def tell(books: Books, question: Question, *, reveal_to: str | None = None) -> dict[str, Any]:
    """Return the answer as it is shown. ``reveal_to``: who sees the number in clear; noted first.

    Raises:
        Invalid: as :func:`ask`.
    """
    spot = question.spot
    found = await ask(books.db, books.vault, question)
    reached, why = (found, found.why) if isinstance(found, Reached) else (None, found)
    if reveal_to is not None and reached is not None:
        await reach.audit(books.db, reveal_to, spot.pool_id, reached.line.line_id, reached.line.bindings)
    return {
        "reached": None if why in UNKNOWN else reached is not None,
        "why": why.value,
        "detail": WORDS[why],
        "x": spot.x,
        "caller": str(question.caller),
        "digits": question.digits,
        "at": question.at,
        "role": reached.role if reached is not None else None,
        "party": None if reached is None else str(reached.party) if reveal_to is None else reached.party.reveal(),
        "bindings": [public_id(spot.pool_id, one) for one in reached.line.bindings] if reached is not None else [],
    }


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
        if not kept or (spot.shadow_changed_at is not None and at < spot.shadow_changed_at):
            return Why.NOT_KEPT
    if spot.shadow:
        return Why.SHADOW
    if spot.mode == "axe":
        return await _by_extension(db, vault, question)
    if spot.mode == "axyb":
        return await _by_platform(db, vault, question)
    by = By.PAIR if spot.mode == "axb" or (spot.mode == "x" and spot.routing == "pair") else By.WHOLE
    return await _look(db, vault, question, by)


async def _by_platform(db: Database, vault: Vault, question: Question) -> Reached | Why:
    """The number may be a Y, by which A reaches a B, or the X of somebody."""
    spot, caller = question.spot, question.caller.reveal()
    if lines := await reach.behind_y(db, vault, spot, caller, at=question.at):
        return one_of(lines, caller, spot, By.PAIR)
    found = await _look(db, vault, question, By.WHOLE)
    # Who had which Y is not in the history.
    return Why.NOT_KEPT if found is Why.NOT_BOUND and question.at is not None else found


async def _by_extension(db: Database, vault: Vault, question: Question) -> Reached | Why:
    """A reaches whoever called last; everybody else dials an extension."""
    own = await _look(db, vault, question, By.OWN)
    if own is not Why.NOT_BOUND:
        return own
    if question.digits is None:
        return Why.DIGITS_MISSING
    if len(question.digits) != question.spot.extension_digits:
        return Why.NOT_BOUND
    return await _look(db, vault, question, By.PLACE)


async def _look(db: Database, vault: Vault, question: Question, by: By) -> Reached | Why:
    spot, caller, at = question.spot, question.caller.reveal(), question.at
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

"""Apps: create, show, change, suspend, resume, and prove that the platform knows them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import asyncpg
import orjson

from broker.domain.notice import PUSH_KINDS
from broker.domain.shadow import MODES
from broker.errors import Conflict, FieldError, Invalid, Unavailable
from broker.flows.operate.desk import Access, Desk, Shown, no_app, sealed, shown
from broker.flows.operate.fields import AppChange, NewApp
from broker.platform.protocol import Answer, Platform, Verdict
from broker.store.limits import Limit, take_slots
from broker.store.statements import statements

_CHECK_S = 5.0
#: New settings of extensions may lay out hundreds of thousands of places.
_LONG_S = 60.0
_LONGEST_TURN_S = 10.0
#: Asked about when the app has no number yet: nobody's, so that "not found" is the answer of a platform that knows us.
_NOBODY = "+8600000000000"

#: Answers that only a request with a right address and secret gets.
_PROOF = frozenset({Verdict.DONE, Verdict.NOT_FOUND})
_TOO_LONG = FieldError("/default_ttl_s", "must not be over the app's max_ttl_s")
#: What constraints over several fields say.
_TOGETHER = {
    "app_one_end": FieldError("/renew_by_call_s", "calls either end a binding (end_after_call_s) or renew it"),
    "app_call_back_mode": FieldError("/call_back_s", "a line has no temporary callee in this mode", "not_modifiable"),
    "app_renewal_bound": FieldError("/longest_life_s", "is needed with renew_by_call_s"),
    "app_renewal_mode": FieldError("/renew_by_call_s", "in mode axyb the platform renews nothing", "not_modifiable"),
}

_WORDS = {
    Verdict.NUMBER_REFUSED: "address and secret are right; the platform refuses the number that was asked about",
    Verdict.APP_SUSPENDED: "address and secret are right, but the platform has suspended the app",
    Verdict.BAD_DIGEST: "the platform does not accept the secret",
    Verdict.SOURCE_BLOCKED: "the platform has locked our address out for 30 minutes",
    Verdict.CLOCK_SKEW: "our clock is too far from the platform's",
    Verdict.FLOW_CONTROL: "the platform says that calls come too fast; try again",
    Verdict.NOT_SENT: "the platform cannot be reached at this address",
    Verdict.UNKNOWN: "the platform gave no readable answer",
}


async def every(desk: Desk) -> list[Shown]:
    """Return all apps."""
    return shown(await desk.db.fetch(statements("operate")["apps"], None))


async def show(desk: Desk, name: str) -> Shown:
    """Return one app.

    Raises:
        NotFound: there is none of this name.
    """
    row = await desk.db.fetchrow(statements("operate")["apps"], name)
    if row is None:
        raise no_app(name)
    # What the platform's console is to be given, behind the address of the edge listener.
    return {**row, "push_paths": [f"/n/{name}/{kind}" for kind in PUSH_KINDS]}


async def create(desk: Desk, new: NewApp) -> Shown:
    """Create an app.

    Raises:
        Conflict: its name or key is taken.
        Invalid: the default lifetime is over the maximum, or its mode cannot be in shadow.
    """
    if new.shadow and new.mode not in MODES:
        wrong = FieldError("/shadow", "only apps of the modes axb, ax and axe can be in shadow")
        raise Invalid("Some fields are wrong; see errors.", errors=(wrong,))
    profile = new.model_dump(exclude={"secret"})
    made = await _stored(desk, "add_app", orjson.dumps(profile).decode(), sealed(desk, new.name, new.secret))
    if made is None:
        raise Conflict("Another app has this name or this app key.")
    return await show(desk, new.name)


async def change(desk: Desk, name: str, wanted: AppChange) -> Shown:
    """Change what is given and leave the rest.

    Raises:
        NotFound: there is no such app.
        Invalid: the default lifetime would be over the maximum.
        Conflict: extensions are held, so that their number of digits stays.
    """
    given = wanted.model_dump(exclude_unset=True)
    secret = given.pop("secret", None)
    changed = await _stored(
        desk, "change_app", name, orjson.dumps(given).decode(), None if secret is None else sealed(desk, name, secret)
    )
    if changed is None:
        raise no_app(name)
    return await show(desk, name)


async def suspend(desk: Desk, name: str, reason: str | None) -> Shown:
    """Refuse new bindings of the app; what is bound stays bound and can be released."""
    return await _set_state(desk, name, "suspended", reason)


async def resume(desk: Desk, name: str) -> Shown:
    """Take new bindings again."""
    return await _set_state(desk, name, "open", None)


async def check(desk: Desk, name: str, platform: Callable[[Access], Platform], *, staged: bool = False) -> Shown:
    """Ask the platform one question in the app's name and tell what the answer proves of the current or staged secret.

    The question takes its turn in the app's limit like every other call.

    Raises:
        NotFound: there is no such app.
        Conflict: no secret is staged, or the app is of mode X, where the platform answers no question.
        Unavailable: the app's calls leave no room for the question now.
    """
    sql = statements("operate")
    row = await desk.db.fetchrow(sql["app_access"], name)
    if row is None:
        raise no_app(name)
    if row["mode"] == "x":
        raise Conflict(f"The app '{name}' is of mode X: the platform keeps no bindings that it could be asked about.")
    kept = row["next_secret_sealed" if staged else "secret_sealed"]
    if kept is None:
        raise Conflict(f"The app '{name}' has no staged secret.")
    access = Access(
        mode=row["mode"],
        app_key=row["app_key"],
        secret=desk.vault.open("app", "secret", 0, name, kept),
        base_url=row["base_url"],
        auth_scheme=row["auth_scheme"],
    )
    asked = await desk.db.fetchrow(sql["any_number"], row["id"])
    if row["rate"] is not None:
        await _take_turn(desk, row["id"], row["rate"], row["burst"])
    driver = platform(access)
    x, extension = asked["number"] if asked else _NOBODY, "1".zfill(row["extension_digits"])
    try:
        answer = await driver.query(x=x, extension=extension, permit=lambda: True, timeout_s=_CHECK_S)
    finally:
        await driver.close()
    return {"app": name, **_judged(answer)}


async def _take_turn(desk: Desk, app: int, rate: float, burst: int) -> None:
    slots = await take_slots(desk.db, app, want=1, limit=Limit(rate, burst), horizon_s=_LONGEST_TURN_S)
    if slots.granted == 0:
        raise Unavailable("The app's platform calls leave no room for a question now.", retry_after_s=10)
    await asyncio.sleep(max(0.0, slots.first_s))


def _judged(answer: Answer) -> Shown:
    passed = answer.verdict in _PROOF
    words = (
        "address and secret are right" if passed else _WORDS.get(answer.verdict, "the platform refused the question")
    )
    return {
        "ok": passed,
        "verdict": answer.verdict.value,
        "detail": words,
        "http": answer.http,
        "code": answer.code,
    }


async def _set_state(desk: Desk, name: str, state: str, reason: str | None) -> Shown:
    if await desk.db.fetchrow(statements("operate")["set_app_state"], name, state, reason) is None:
        raise no_app(name)
    return await show(desk, name)


async def _stored(desk: Desk, statement: str, *given: object) -> asyncpg.Record | None:
    try:
        return await desk.db.fetchrow(statements("operate")[statement], *given, timeout_s=_LONG_S)
    except asyncpg.CheckViolationError as error:
        # The rules over several fields; each by itself was checked before.
        wrong = _TOGETHER.get(error.constraint_name or "", _TOO_LONG)
        raise Invalid("Some fields are wrong; see errors.", errors=(wrong,)) from None
    except asyncpg.PostgresError as error:
        if error.sqlstate == "BB003":
            raise Conflict("Extensions of this app are held: the number of their digits stays.") from None
        raise

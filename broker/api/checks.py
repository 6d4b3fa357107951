"""What an order, or a change of one, may not ask for: rules that need an app, a mode, or our own numbers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from broker.domain.modes import LONGEST_TTL_S, MODES
from broker.domain.options import DEFAULT, CallOptions
from broker.domain.party import Kind, kind_of
from broker.domain.phone import PhoneNumber
from broker.errors import FieldError
from broker.flows.tones import check_tones
from broker.store.registry import App, Registry

#: Who may be bound (contract 11).
PARTIES: Final = frozenset({Kind.MOBILE, Kind.LANDLINE})
_REFUSED: Final = {
    Kind.SERVICE: ("service_number", "is a 400 or 95 number; the platform binds mobiles and landlines only"),
    Kind.INTERNATIONAL: ("international_number", "is no number of the mainland; the platform connects no others"),
    Kind.SPECIAL: ("special_number", "is neither a mobile nor a landline of the mainland"),
}


def first_of_each(errors: Sequence[FieldError]) -> tuple[FieldError, ...]:
    """Return the first error of each field: of one that the mode does not know there is no more to say."""
    return tuple({error.pointer: error for error in reversed(errors)}.values())[::-1]


def party_errors(
    parties: Mapping[str, PhoneNumber | None], registry: Registry, *, allowed: Collection[Kind] = PARTIES
) -> list[FieldError]:
    """Return which of the parties, by pointer, cannot be one."""
    errors: list[FieldError] = []
    for pointer, party in parties.items():
        if party is None:
            continue
        if party.reveal() in registry.our_numbers:
            errors.append(FieldError(pointer, "is one of our X numbers; a party must be a real phone"))
        elif (kind := kind_of(party)) not in allowed:
            code, detail = _REFUSED[kind]
            errors.append(FieldError(pointer, detail, code))
    return errors


def ttl_errors(ttl_s: int, app: App) -> list[FieldError]:
    """Return whether the app's bindings may not last that long; under a maximum of its own, nothing lasts for ever."""
    mode = MODES[app.mode]
    longest = min(app.max_ttl_s, mode.longest_ttl_s)
    if ttl_s == 0 and not mode.endless:
        detail = f"bindings of mode {mode.name} end: give 60 to {longest} seconds"
    elif ttl_s > mode.longest_ttl_s:
        detail = f"bindings of mode {mode.name} last {longest} seconds at most"
    elif ttl_s > app.max_ttl_s or (ttl_s == 0 and app.max_ttl_s < LONGEST_TTL_S):
        detail = f"this app's bindings last {longest} seconds at most"
    else:
        return []
    return [FieldError("/ttl_s", detail, "ttl_out_of_range")]


def extension_errors(digits: str | None, app: App) -> list[FieldError]:
    """Return what is wrong with the extension asked for: an app's have all the same number of digits."""
    if digits is None:
        return []
    if len(digits) != app.extension_digits:
        detail = f"this app's extensions have {app.extension_digits} digits"
        return [FieldError("/extension", detail, "extension_digits")]
    if not digits.strip("0"):
        return [FieldError("/extension", "must not be all zeros", "extension_zero")]
    return []


def callback_errors(
    number: PhoneNumber | None, a: PhoneNumber | None, options: CallOptions, ttl_s: int, registry: Registry
) -> list[FieldError]:
    """Return what is wrong with whom A reaches who dials X; a callback record ends no later than its binding."""
    errors = party_errors({"/callback/number": number}, registry)
    if number is not None and number == a:
        errors.append(FieldError("/callback/number", "must differ from a", "callee_is_a"))
    if options.callback_ttl_s is not None and 0 < ttl_s < options.callback_ttl_s:
        errors.append(FieldError("/callback/ttl_s", "must not be longer than the binding's ttl_s", "ttl_out_of_range"))
    return errors


def options_errors(options: CallOptions, app: App, was: CallOptions = DEFAULT) -> list[FieldError]:
    """Return what is wrong with the options of an order of the app's, or of a change from what they were."""
    if options == DEFAULT:
        return []
    tones, had = _tones(options), _tones(was)
    # A tone that the line has already is no longer the order system's choice.
    errors = check_tones(app, {pointer: tone for pointer, tone in tones.items() if tone != had[pointer]})
    if options.recording and not app.recording:
        errors.append(FieldError("/recording", "this app has no recording"))
    if options.sms and not app.sms:
        errors.append(FieldError("/sms", "this app has no SMS"))
    if options.hint_tone is not None and not options.recording:
        errors.append(FieldError("/recording/hint_tone", "goes with enabled: true"))
    if options.last_minute_tone is not None and not options.max_call_minutes:
        errors.append(FieldError("/last_minute_tone", "goes with max_call_minutes"))
    return errors


def _tones(options: CallOptions) -> dict[str, str | None]:
    return {
        "/recording/hint_tone": options.hint_tone,
        "/last_minute_tone": options.last_minute_tone,
        "/tones/caller": options.caller_tone,
        "/tones/callee": options.callee_tone,
        "/callback/tone": options.callback_tone,
    }

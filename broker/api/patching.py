"""The options of a line after a merge patch."""

from __future__ import annotations

from dataclasses import replace

from broker.api import parse
from broker.domain.modes import Mode
from broker.domain.options import CallOptions
from broker.domain.phone import PhoneNumber
from broker.errors import Conflict
from broker.store.bindings import Binding


def patched(now: CallOptions, asked: parse.ChangeRequest) -> CallOptions:
    """Return the options after the merge patch."""
    given = asked.model_fields_set
    wanted = now
    if "recording" in given:
        wanted = _recording(asked.recording, wanted)
    if "tones" in given:
        wanted = _tones(asked.tones or parse.Tones(caller=None, callee=None), wanted)
    if "max_call_minutes" in given:
        wanted = replace(wanted, max_call_minutes=asked.max_call_minutes or None)
        if not wanted.max_call_minutes:  # what plays in the last minute goes with the limit
            wanted = replace(wanted, last_minute_tone=None)
    if "last_minute_tone" in given:
        wanted = replace(wanted, last_minute_tone=asked.last_minute_tone)
    if "sms" in given:
        wanted = replace(wanted, sms=asked.sms)
    if "display" in given:
        wanted = replace(wanted, display="caller" if asked.display == "caller" else None)
    if "callback" in given:
        wanted = _callback(asked.callback, wanted)
    return wanted


def called_back(now: PhoneNumber | None, asked: parse.ChangeRequest) -> PhoneNumber | None:
    """Return whom A reaches who dials X when nobody has called, after the merge patch; a tone takes its place."""
    wanted = asked.callback
    if "callback" not in asked.model_fields_set:
        return now
    if wanted is None or "number" in wanted.model_fields_set or wanted.tone is not None:
        return wanted.number if wanted is not None else None
    return now


def check_kept(mode: Mode, binding: Binding, callback: PhoneNumber | None, options: CallOptions) -> None:
    """Refuse to take away what the mode can only replace.

    Raises:
        Conflict: it would be.
    """
    was = binding.options
    lost = {
        "callback": (binding.callback or was.callback_tone) and not (callback or options.callback_tone),
        "recording.hint_tone": was.hint_tone and options.recording and not options.hint_tone,
    }
    for name in sorted(mode.keeps):
        if lost[name]:
            raise Conflict(f"{name} of a bound line can be replaced, and not taken away.", code="not_modifiable")


def _recording(asked: parse.RecordingPatch | None, now: CallOptions) -> CallOptions:
    if asked is None:
        return replace(now, recording=None, hint_tone=None)
    wanted = now
    if "enabled" in asked.model_fields_set:
        wanted = replace(wanted, recording=asked.enabled or None)
    if "hint_tone" in asked.model_fields_set:
        wanted = replace(wanted, hint_tone=asked.hint_tone)
    return wanted if wanted.recording or wanted.hint_tone != now.hint_tone else replace(wanted, hint_tone=None)


def _tones(asked: parse.Tones, now: CallOptions) -> CallOptions:
    given = asked.model_fields_set
    return replace(
        now,
        caller_tone=asked.caller if "caller" in given else now.caller_tone,
        callee_tone=asked.callee if "callee" in given else now.callee_tone,
    )


def _callback(asked: parse.Callback | None, now: CallOptions) -> CallOptions:
    if asked is None:
        return replace(now, callback_tone=None, callback_ttl_s=None)
    wanted = now
    if "tone" in asked.model_fields_set or asked.number is not None:  # a number takes the tone's place
        wanted = replace(wanted, callback_tone=asked.tone)
    if "ttl_s" in asked.model_fields_set:
        wanted = replace(wanted, callback_ttl_s=asked.ttl_s)
    return wanted

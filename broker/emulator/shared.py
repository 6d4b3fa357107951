"""Interfaces that apps of every mode have: stopping a call, and the address of a recording (contract 9.1, 9.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from broker.emulator import fields as check
from broker.emulator.codes import NO_RECORD, NO_SESSION, OTHER_MODE, PARAMETER_ERROR, SUCCESS, Refusal
from broker.emulator.mode import Ask, Decision, Mention, Op
from broker.emulator.recordings import PATH, Recordings
from broker.emulator.sessions import Sessions
from broker.emulator.settings import EmulatorSettings

STOP_PATH: Final = "/rest/httpsessions/callStop/v2.0"
RECORDING_PATH: Final = "/rest/provision/voice/record/v1.0"


class CallStop:
    """``POST callStop``: ends one call of the app that asks."""

    routes: Mapping[tuple[str, str], Op] = {("POST", STOP_PATH): Op.STOP}

    def __init__(self, settings: EmulatorSettings, sessions: Sessions) -> None:
        self._modes = settings.call_stop_modes
        self._sessions = sessions

    def parse(self, ask: Ask) -> None:
        """Fill in ``ask.fields``; this interface has a refusal of its own for whatever is wrong."""
        try:
            ask.fields = check.body_fields(ask.body)
        except Refusal:
            raise Refusal(PARAMETER_ERROR) from None

    def decide(self, ask: Ask) -> Decision:
        """Find the call."""
        if ask.app.config.mode not in self._modes:
            raise Refusal(OTHER_MODE)
        self.parse(ask)
        session_id = ask.fields.get("sessionid")
        if not isinstance(session_id, str) or ask.fields.get("signal") != "call_stop":
            raise Refusal(PARAMETER_ERROR)
        session = self._sessions.live(session_id)
        if session is None or session.app_key != ask.app.config.app_key:
            raise Refusal(NO_SESSION)
        return Decision(SUCCESS, [], effect=lambda: self._sessions.hang_up(session_id))

    def mention(self, op: Op, fields: Mapping[str, Any]) -> Mention:
        """Return nothing: a session is no number."""
        del op, fields
        return Mention()


class RecordingAddress:
    """``GET record``: redirects to the file of one recording of the app that asks."""

    routes: Mapping[tuple[str, str], Op] = {("GET", RECORDING_PATH): Op.RECORDING}

    def __init__(self, settings: EmulatorSettings, recordings: Recordings) -> None:
        self._domain = settings.record_domain
        self._link_ms = settings.recording_link_s * 1000
        self._recordings = recordings

    def parse(self, ask: Ask) -> None:
        """Fill in ``ask.fields`` from the query string."""
        ask.fields = check.query_fields(ask.query)

    def decide(self, ask: Ask) -> Decision:
        """Find the file; its address is good for a while, and the file may go before that."""
        self.parse(ask)
        name = check.text(ask.fields, "fileName", 1, 128)
        domain = check.text(ask.fields, "recordDomain", 1, 128)
        if name is None:
            raise check.bad("fileName")
        if domain is None:
            raise check.bad("recordDomain")
        recording = self._recordings.find(name, ask.now_ms)
        if recording is None or recording.app_key != ask.app.config.app_key or domain != self._domain:
            raise Refusal(NO_RECORD)
        return Decision(b"", [], http=301, location=f"{PATH}{name}?until={ask.now_ms + self._link_ms}")

    def mention(self, op: Op, fields: Mapping[str, Any]) -> Mention:
        """Return nothing: a recording is no number."""
        del op, fields
        return Mention()

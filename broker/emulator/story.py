"""One call as its app is told of it: the events on the way, and the record at its end (contract 6.4, 6.5)."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from broker.emulator.binding import Binding
from broker.emulator.mode import Connection, Dial
from broker.emulator.outcomes import cause_of, description
from broker.emulator.recordings import PATH
from broker.emulator.registry import ModeName
from broker.emulator.sessions import Session
from broker.emulator.settings import EmulatorSettings
from broker.emulator.times import subscribe_time

HOST: Final = "emulator"
_SERVICE_TYPES: Final = {ModeName.AX: "003", ModeName.AXB: "004"}


class Direction(IntEnum):
    """``direction`` of a record, and of a message."""

    TO_A = 0
    FROM_A = 1
    ABNORMAL = 2


@dataclass(slots=True, eq=False)
class Story:
    """What has happened so far; times are ``None`` for what has not. ``binding`` is the one that the call met."""

    session_id: str
    dial: Dial
    called_ms: int
    connection: Connection
    binding: Binding | None
    forwarded_ms: int | None = None
    alerted_ms: int | None = None
    answered_ms: int | None = None

    @property
    def mode(self) -> ModeName:
        """Of the app whose X was dialled."""
        return self.dial.app.config.mode

    @property
    def called_back(self) -> bool:
        """Whether A of an AXE binding calls, who enters no extension."""
        return self.binding is not None and self.dial.caller == self.binding.a

    def event(self, kind: str, at_ms: int) -> dict[str, Any]:
        """Return the ``statusInfo`` of an event before the end."""
        told: dict[str, Any] = {"sessionId": self.session_id, "timestamp": subscribe_time(at_ms)}
        if kind == "collectInfo":
            return told | {"digitInfo": self.dial.digits}
        entry = kind == "callin"
        told |= {"caller": self.dial.caller, "called": self.dial.x if entry else self.connection.connected_to}
        if self.mode is ModeName.X:
            told["notifyMode"] = "Block" if entry else "Notify"
        if not (entry and self.mode is ModeName.AXE):
            told |= self._whose()
        return told

    def end(self, at_ms: int, state_code: int, released_by: int) -> dict[str, Any]:
        """Return the ``statusInfo`` of the end."""
        told = {
            "sessionId": self.session_id,
            "timestamp": subscribe_time(at_ms),
            "caller": self.dial.caller,
            "called": self.connection.connected_to or self.dial.x,
            "stateCode": state_code,
            "stateDesc": description(state_code),
            **self._whose(),
        }
        return told | ({"callRelDirection": released_by} if self.mode is ModeName.X else {})

    def record(
        self, at_ms: int, state_code: int, released_by: int, session: Session | None, settings: EmulatorSettings
    ) -> dict[str, Any]:
        """Return the call's ``FeeInfo``; ``session`` is what it was while it was up, if it was."""
        cause, app = cause_of(state_code), self.dial.app.config
        failed = self.answered_ms is None
        told: dict[str, Any] = {
            "direction": self._direction(),
            "spId": settings.sp_id,
            "appKey": app.app_key,
            "icid": secrets.token_hex(16),
            "bindNum": self.dial.x,
            "sessionId": self.session_id,
            "callerNum": self.dial.caller,
            "calleeNum": self.dial.x,
            "fwdDisplayNum": self.connection.shown,
            "fwdDstNum": self.connection.connected_to,
            "callInTime": subscribe_time(self.called_ms),
            "fwdStartTime": _time(self.forwarded_ms),
            "fwdAlertingTime": _time(self.alerted_ms),
            "fwdAnswerTime": _time(self.answered_ms),
            "callEndTime": subscribe_time(at_ms),
            "failTime": subscribe_time(at_ms) if failed else None,
            "fwdUnaswRsn": cause.q850 if failed else 0,
            "ulFailReason": cause.point if failed else 0,
            "sipStatusCode": cause.sip if failed else 0,
            "callOutUnaswRsn": 0,
            "recordFlag": 0,
            "ttsPlayTimes": 0,
            "ttsTransDuration": 0,
            "serviceType": _SERVICE_TYPES.get(self.mode),
            "hostName": HOST,
            "voiceCheckType": 0,
            "mptyId": self.connection.terms.subscription_id,
            "extendNum": self.binding.extension if self.binding is not None else None,
            **self._whose(),
        }
        if session is not None and session.recording is not None:
            told |= {
                "recordFlag": 1,
                "recordStartTime": subscribe_time(session.started_ms),
                "recordDomain": settings.record_domain,
                "recordBucketName": f"sp-{app.app_key}"[:128],
                "recordObjectName": session.recording,
            }
            if settings.record_download_base:
                until_ms = at_ms + settings.recording_link_s * 1000
                told["recordFileDownloadUrl"] = (
                    f"{settings.record_download_base}{PATH}{session.recording}?until={until_ms}"
                )
        if self.mode is ModeName.X:
            told |= {"notifyMode": "Block", "callRelDirection": released_by}
        return {name: value for name, value in told.items() if value is not None}

    def _whose(self) -> dict[str, Any]:
        terms = self.connection.terms
        told = {"subscriptionId": terms.subscription_id, "userData": terms.user_data}
        return {name: value for name, value in told.items() if value is not None}

    def _direction(self) -> Direction:
        if self.mode is ModeName.X:
            return Direction.FROM_A
        if self.binding is None:
            return Direction.ABNORMAL
        return Direction.FROM_A if self.dial.caller == self.binding.a else Direction.TO_A


def _time(ms: int | None) -> str | None:
    return None if ms is None else subscribe_time(ms)

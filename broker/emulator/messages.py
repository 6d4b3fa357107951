"""Short messages: whom one sent to an X reaches, and what the app is told and asked of it (contract 6.6)."""

from __future__ import annotations

import math
import secrets
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

from broker.emulator.binding import Binding
from broker.emulator.core import Core
from broker.emulator.fields import is_number
from broker.emulator.mode import Dial
from broker.emulator.pushing import Pusher
from broker.emulator.registry import ModeName
from broker.emulator.settings import EmulatorSettings
from broker.emulator.story import Direction
from broker.emulator.times import rfc3339
from broker.emulator.told import Kind

SENT: Final = 0
NO_BINDING: Final = 2
X_UNUSABLE: Final = 3
DISCARDED: Final = 6
NO_REPLY: Final = 7
NO_SMS: Final = 11
#: Characters of a part of a long message.
_PART: Final = 67
_SHORT: Final = 70


@dataclass(frozen=True, slots=True)
class _Way:
    """Where a message goes; ``receiver`` is ``None`` if nowhere, and then ``result`` says why."""

    receiver: str | None = None
    content: str = ""
    result: int = SENT
    binding: Binding | None = None
    direction: Direction = Direction.ABNORMAL
    asked: bool = False
    """Whether the app decides."""
    user_data: str | None = None
    """What the app gave with its decision."""


class Messages:
    """The way of a message through the platform. ``counts``: messages by result, and those ``sent``."""

    def __init__(self, settings: EmulatorSettings, core: Core, pusher: Pusher) -> None:
        self.counts: Counter[str] = Counter()
        self._settings = settings
        self._core = core
        self._pusher = pusher

    async def send(self, sender: str, to: str, content: str) -> dict[str, Any]:
        """Send a message to an X and return who got it, what it said, and ``sendResult``."""
        identifier = secrets.token_hex(16)
        self.counts["sent"] += 1
        dial = self._core.dialled(sender, to, "")
        way = _Way(result=NO_BINDING) if dial is None else self._way(dial, content)
        if dial is not None:
            way = await self._carry(dial, identifier, content, way)
        self.counts[str(way.result)] += 1
        return {
            "sms_identifier": identifier,
            "forwarded_to": way.receiver if way.result == SENT else None,
            "content": way.content if way.result == SENT else None,
            "send_result": way.result,
        }

    def _way(self, dial: Dial, content: str) -> _Way:
        if dial.x in dial.app.barred:
            return _Way(result=X_UNUSABLE)
        match dial.app.config.mode:
            case ModeName.AXB:
                return _between(dial, content, self._core.modes[ModeName.AXB].bindings_of(dial.x))
            case ModeName.AX:
                return _to_or_from_a(dial, content, next(iter(self._core.modes[ModeName.AX].bindings_of(dial.x)), None))
            case ModeName.X:
                return _Way(content=content, direction=Direction.FROM_A, asked=True)
            case ModeName.AXE | ModeName.AXYB:
                return _Way(result=NO_SMS)

    async def _carry(self, dial: Dial, identifier: str, content: str, way: _Way) -> _Way:
        app = dial.app.config
        if app.mode in {ModeName.AXE, ModeName.AXYB}:
            return way
        if way.asked:
            question = self._event(dial, identifier, content, way, "Block")
            reply = await self._pusher.ask(app, Kind.SMS_CONTROL, "Block", dial.x, question)
            way = _followed(way, reply)
        self._pusher.tell(app, Kind.SMS, "Notify", dial.x, self._event(dial, identifier, content, way, "Notify"))
        return way

    def _event(self, dial: Dial, identifier: str, content: str, way: _Way, mode: str) -> dict[str, Any]:
        told: dict[str, Any] = {
            "smsIdentifier": identifier,
            "notificationMode": mode,
            "calling": dial.caller,
            "called": way.receiver,
            "virtualNumber": dial.x,
            "event": "Text SMS ",  # with the blank that published examples have
            "timeStamp": rfc3339(self._core.clock.now_ms()),
            "subscriptionId": way.binding.subscription_id if way.binding is not None else None,
            "smsContent": content if self._settings.sms_has_content else None,
            "sendResult": way.result if mode == "Notify" else None,
            "extInfo": {
                "extParas": [
                    {"key": "splitNum", "value": str(_parts(way.content) if way.result == SENT else 0)},
                    {"key": "direction", "value": str(int(way.direction))},
                ]
            },
            "userData": way.user_data or (way.binding.user_data if way.binding is not None else None),
        }
        return {name: value for name, value in told.items() if value is not None}


def _between(dial: Dial, content: str, bindings: Iterable[Binding]) -> _Way:
    for binding in bindings:
        if dial.caller in {binding.a, binding.b}:
            from_a = dial.caller == binding.a
            direction = Direction.FROM_A if from_a else Direction.TO_A
            return _allowed(_Way(binding.b if from_a else binding.a, content, SENT, binding, direction))
    return _Way(result=NO_BINDING)


def _to_or_from_a(dial: Dial, content: str, binding: Binding | None) -> _Way:
    if binding is None:
        return _Way(result=NO_BINDING)
    if dial.caller != binding.a:
        return _allowed(_Way(binding.a, f"{content}[From{dial.caller}]", SENT, binding, Direction.TO_A))
    text, at, receiver = content.rpartition("@")
    if at and is_number(receiver):
        return _allowed(_Way(receiver, text, SENT, binding, Direction.FROM_A))
    return _allowed(_Way(None, content, SENT, binding, Direction.FROM_A, asked=True))


def _allowed(way: _Way) -> _Way:
    barred = way.binding is not None and (way.binding.extras or {}).get("privateSms") == "false"
    return _Way(None, "", NO_SMS, way.binding, way.direction) if barred else way


def _followed(way: _Way, reply: object) -> _Way:
    """Do as the app says; a message without a proper answer is discarded."""
    actions = reply.get("actions") if isinstance(reply, dict) else None
    action = actions[0] if isinstance(actions, list) and actions else actions
    followed = replace(way, asked=False, user_data=_user_data(action))
    match action:
        case {"operation": "DiscardMessage"}:
            return replace(followed, result=DISCARDED)
        case {"operation": "vNumberRoute", "message": {"called": str(called)}} if is_number(called):
            return replace(followed, receiver=called)
        case _:
            return replace(followed, result=NO_REPLY)


def _user_data(action: object) -> str | None:
    given = action.get("userData") if isinstance(action, dict) else None
    return given if isinstance(given, str) else None


def _parts(content: str) -> int:
    return 1 if len(content) <= _SHORT else math.ceil(len(content) / _PART)

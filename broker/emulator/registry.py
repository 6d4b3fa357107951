"""Applications and the X numbers they rent: what the platform's console would hold."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from broker.emulator.limits import Bucket
from broker.emulator.told import Kind


class ModeName(StrEnum):
    """The modes of the platform; an application has exactly one."""

    AXB = "axb"
    AX = "ax"
    AXE = "axe"
    AXYB = "axyb"
    X = "x"


@dataclass(frozen=True, slots=True)
class AppConfig:
    """What an operator sets for an app; ``rate`` is in requests a second, ``None`` is without flow control."""

    app_key: str
    secret: str
    mode: ModeName
    rate: float | None = None
    burst: float | None = None
    extension_digits: int | None = None
    events_url: str | None = None
    """Where events of calls go, and in X mode the question where a call goes to."""
    callin_url: str | None = None
    """Where ``callin`` goes if not there."""
    cdr_url: str | None = None
    sms_url: str | None = None
    sms_control_url: str | None = None
    """Where the app is asked about a message."""
    status_url: str | None = None
    """Where states of numbers go; else they go where events do."""
    push_wsse: bool = False
    """Whether pushes are signed the older way."""

    @property
    def kind(self) -> tuple[ModeName, int | None]:
        """What is fixed while the app has numbers."""
        return self.mode, self.extension_digits if self.mode is ModeName.AXE else None

    def url_of(self, kind: Kind, *, callin: bool = False) -> str | None:
        """Return where pushes of a kind go (contract 6.1)."""
        match kind:
            case Kind.EVENTS:
                return (callin and self.callin_url) or self.events_url
            case Kind.CDR:
                return self.cdr_url
            case Kind.SMS:
                return self.sms_url
            case Kind.SMS_CONTROL:
                return self.sms_control_url
            case Kind.NUMBER_STATUS:
                return self.status_url or self.events_url

    def bucket(self) -> Bucket | None:
        """Return a full bucket of this configuration."""
        if not self.rate:
            return None
        return Bucket(self.rate, self.burst if self.burst is not None else max(1.0, self.rate))


@dataclass(slots=True)
class App:
    """An application at work: its configuration, its flow-control state, its numbers and their cities."""

    config: AppConfig
    secret: str
    bucket: Bucket | None
    numbers: dict[str, str] = field(default_factory=dict)
    """Number to area code."""
    areas: dict[str, list[str]] = field(default_factory=dict)
    tones: set[str] = field(default_factory=set)
    """Voice files that were approved for the app."""
    barred: set[str] = field(default_factory=set)
    """Numbers without calls and messages, by their last status. Not durable."""


class Registry:
    """All applications, and which of them owns a number."""

    def __init__(self) -> None:
        self.apps: dict[str, App] = {}
        self.owners: dict[str, App] = {}

    def put_app(self, config: AppConfig) -> None:
        """Create or replace the configuration; a bucket that stays the same keeps its level."""
        app = self.apps.get(config.app_key)
        if app is None:
            self.apps[config.app_key] = App(config, config.secret, config.bucket())
            return
        if (config.rate, config.burst) != (app.config.rate, app.config.burst):
            app.bucket = config.bucket()
        app.config = config
        app.secret = config.secret

    def put_numbers(self, app: App, numbers: Iterable[tuple[str, str]]) -> None:
        """Make ``numbers`` (number, area code) the numbers of ``app``."""
        for number in app.numbers:
            del self.owners[number]
        app.numbers = dict(numbers)
        app.areas = {}
        for number, area_code in app.numbers.items():
            self.owners[number] = app
            app.areas.setdefault(area_code, []).append(number)

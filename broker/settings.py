"""Settings from the environment: `BROKER_*`, and `BROKER_*_FILE` for secrets.

A misspelt variable is an error that names the nearest one; all errors are reported at once.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from broker.domain.webhook import parse_networks, parse_schedule
from broker.store.crypto import KeyringError, parse_data_keys, parse_index_key

_PREFIX = "BROKER_"
_SECRETS = frozenset({"database_url", "data_keys", "index_key"})
#: Read by others: the launcher's folder, tests.
_ELSEWHERE = frozenset({"BROKER_STATE_DIR"})


class SettingsError(Exception):
    """What is wrong with the environment, one line for each variable."""

    def __init__(self, problems: list[str]) -> None:
        """Collect the lines."""
        super().__init__("\n".join(problems))
        self.problems = problems


class Settings(BaseModel):
    """Everything that can be set. Units are in the names; ranges are checked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    database_url: Annotated[str, Field(description="PostgreSQL DSN")]
    data_keys: Annotated[str, Field(description="NUMBER:BASE64 of 32 bytes, comma separated; the first one encrypts")]
    index_key: Annotated[str, Field(description="base64 of 32 bytes: key of the blind index")]

    api_host: str = "127.0.0.1"
    api_port: Annotated[int, Field(ge=0, le=65535)] = 8080
    admin_host: str = "127.0.0.1"
    admin_port: Annotated[int, Field(ge=0, le=65535)] = 8081
    edge_host: str = "127.0.0.1"
    edge_port: Annotated[int, Field(ge=0, le=65535)] = 8082
    edge_tls_cert: Annotated[str, Field(description="PEM file; empty: the edge listener speaks plain HTTP")] = ""
    edge_tls_key: Annotated[str, Field(description="PEM file; empty: the key is in the certificate's file")] = ""
    question_timeout_s: Annotated[
        float, Field(ge=0.05, le=4, description="for whom a call or SMS is for; then nobody")
    ] = 1.0
    workers: Annotated[int, Field(ge=1, le=64)] = 2
    edge_workers: Annotated[
        int,
        Field(ge=0, le=63, description="so many of them listen to the platform alone; 0 = every worker listens to all"),
    ] = 0

    db_connections: Annotated[int, Field(ge=2, le=200, description="per worker")] = 8
    db_timeout_s: Annotated[float, Field(ge=0.1, le=60)] = 5.0
    db_statement_cache: Annotated[int, Field(ge=0, le=10000, description="0 behind a pooler")] = 200

    batch_size: Annotated[int, Field(ge=1, le=1000)] = 200
    batches_in_flight: Annotated[int, Field(ge=1, le=16, description="of allocation, per worker")] = 2
    request_timeout_s: Annotated[float, Field(ge=0.1, le=30, description="default of Request-Timeout")] = 3.0

    platform_connections: Annotated[int, Field(ge=1, le=1000, description="per app and worker")] = 64
    platform_timeout_s: Annotated[float, Field(ge=0.1, le=30)] = 5.0
    platform_absence_s: Annotated[
        float, Field(ge=1, le=600, description="an unknown bind is given up only this long after its last send")
    ] = 60.0
    platform_flow_pause_s: Annotated[
        float, Field(ge=1, le=120, description="least pause when the platform says that calls come too fast")
    ] = 1.0
    egress: str = Field(
        "default",
        pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$",
        description="name of the address that the platform sees calls come from; the same on instances that share it",
    )
    dead_after_tries: Annotated[
        int, Field(ge=2, le=10_000, description="failures of a platform call while others are answered, ...")
    ] = 20
    dead_after_s: Annotated[
        float,
        Field(ge=0, le=604_800, description="... over at least so long: then it is dead until an operator decides"),
    ] = 3600.0
    lease_s: Annotated[float, Field(ge=6, le=120)] = 8.0
    rescue_interval_s: Annotated[float, Field(ge=0.1, le=60)] = 3.0
    sweep_interval_s: Annotated[float, Field(ge=0.1, le=60)] = 1.0
    expiry_grace_s: Annotated[float, Field(ge=0, le=60)] = 1.0
    audit_interval_s: Annotated[
        int,
        Field(ge=0, le=2_592_000, description="between the begins of two audits; an app's own wins; 0 = when asked"),
    ] = 3600
    audit_share: Annotated[float, Field(gt=0, le=1, description="of an app's limit")] = 0.1
    audit_rate: Annotated[float, Field(gt=0, le=1000, description="calls a second where an app has no limit")] = 10.0
    evacuation_overlap_s: Annotated[
        float, Field(ge=0, le=3600, description="how long a moved binding's old X still reaches its parties")
    ] = 30.0
    evacuation_retry_s: Annotated[
        float, Field(ge=0.1, le=3600, description="until a line that could not be moved is tried again")
    ] = 30.0
    audit_lease_s: Annotated[
        float, Field(ge=1, le=600, description="an audit is taken over so long after its process has died")
    ] = 60.0
    overload_wait_s: Annotated[
        float, Field(ge=0.05, le=60, description="a wait on our side that is longer and stays makes us refuse requests")
    ] = 0.25
    webhook_timeout_s: Annotated[float, Field(ge=0.1, le=60)] = 10.0
    webhook_concurrency: Annotated[int, Field(ge=1, le=100, description="per webhook")] = 8
    webhook_retry_s: Annotated[
        str, Field(description="waits between attempts, comma separated; after the last one an event is a dead letter")
    ] = "5,60,300,1800,7200,18000,36000,50400,72000,72000"
    webhook_pause_s: Annotated[
        float, Field(ge=0.1, le=3600, description="longest pause for a webhook that fails again and again")
    ] = 60.0
    webhook_lease_s: Annotated[float, Field(ge=2, le=300, description="an instance that dies is followed after it")] = (
        20.0
    )
    webhook_allow: Annotated[
        str, Field(description="networks that webhooks may go to though they are not public, and without TLS")
    ] = ""
    drain_s: Annotated[float, Field(ge=1, le=60)] = 12.0

    metrics_dir: Annotated[
        str, Field(description="where the processes keep their metrics; empty: the system's temporary folder")
    ] = ""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    test_locks: Literal["try", "off"] = Field("try", description="tests only: off leaves the unique keys as only guard")
    test_crash_at: str = Field(
        "", pattern=r"^([a-z_]+:(kill|stop):[1-9][0-9]*)?$", description="tests only: PLACE:kill|stop:NTH"
    )

    @field_validator("edge_workers")
    @classmethod
    def _some_for_orders(cls, value: int, info: ValidationInfo) -> int:
        if value and value >= info.data.get("workers", value + 1):
            raise ValueError("must be less than BROKER_WORKERS: somebody has to serve the order systems")
        return value

    @field_validator("webhook_retry_s")
    @classmethod
    def _waits(cls, value: str) -> str:
        try:
            parse_schedule(value)
        except ValueError:
            raise ValueError("must be up to 50 waits in seconds, at most a week each, comma separated") from None
        return value

    @field_validator("webhook_allow")
    @classmethod
    def _networks(cls, value: str) -> str:
        try:
            parse_networks(value)
        except ValueError:
            raise ValueError("must be networks such as 10.0.0.0/8, comma separated") from None
        return value

    @field_validator("database_url")
    @classmethod
    def _dsn(cls, value: str) -> str:
        if not value.startswith(("postgresql://", "postgres://")):
            raise ValueError("must begin with postgresql://")
        return value

    @field_validator("data_keys")
    @classmethod
    def _keys(cls, value: str) -> str:
        try:
            parse_data_keys(value)
        except KeyringError as error:
            raise ValueError(str(error)) from None
        return value

    @field_validator("index_key")
    @classmethod
    def _index(cls, value: str) -> str:
        try:
            parse_index_key(value)
        except KeyringError as error:
            raise ValueError(str(error)) from None
        return value


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the environment.

    Raises:
        SettingsError: naming every wrong, missing or misspelt variable; values of secrets are never shown.
    """
    values, problems, unread = _given(os.environ if environ is None else environ)
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_input=False, include_context=False):
            if detail["loc"][0] in unread:
                continue
            variable = _PREFIX + str(detail["loc"][0]).upper()
            hint = f" (or {variable}_FILE)" if detail["loc"][0] in _SECRETS else ""
            words = "is not set" + hint if detail["type"] == "missing" else detail["msg"].removeprefix("Value error, ")
            problems.append(f"{variable}: {words}")
        raise SettingsError(problems) from None
    if problems:
        raise SettingsError(problems)
    return settings


def _given(environ: Mapping[str, str]) -> tuple[dict[str, Any], list[str], set[str]]:
    """Return the values set, what is wrong with names and files, and the fields whose file could not be read."""
    known = {_PREFIX + name.upper(): name for name in Settings.model_fields}
    files = {variable + "_FILE": name for variable, name in known.items() if name in _SECRETS}
    values: dict[str, Any] = {}
    problems: list[str] = []
    unread: set[str] = set()
    for variable, value in sorted(environ.items()):
        if not variable.startswith(_PREFIX) or variable in _ELSEWHERE or variable.startswith("BROKER_BENCH_"):
            continue
        if variable in known:
            values[known[variable]] = value
        elif variable in files:
            if variable.removesuffix("_FILE") in environ:
                problems.append(f"{variable}: {variable.removesuffix('_FILE')} is set, too; set one of them")
            try:
                values[files[variable]] = _secret(variable, value)
            except SettingsError as error:
                problems += error.problems
                unread.add(files[variable])
        else:
            near = difflib.get_close_matches(variable, [*known, *files], n=1, cutoff=0.6)
            problems.append(f"{variable}: no such setting" + (f"; did you mean {near[0]}?" if near else ""))
    return values, problems, unread


def database_url(environ: Mapping[str, str]) -> str | None:
    """Return the DSN alone, for commands that need no other setting; None if it is not set.

    Raises:
        SettingsError: its file cannot be read, or it is set twice.
    """
    variable = _PREFIX + "DATABASE_URL"
    file = environ.get(f"{variable}_FILE")
    if file is None:
        return environ.get(variable)
    if variable in environ:
        raise SettingsError([f"{variable}_FILE: {variable} is set, too; set one of them"])
    return _secret(f"{variable}_FILE", file)


def _secret(variable: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SettingsError([f"{variable}: cannot read the file: {error.strerror}"]) from None
    except UnicodeDecodeError:
        raise SettingsError([f"{variable}: the file is not text"]) from None


def shown(settings: Settings) -> dict[str, object]:
    """Return the settings by variable name, with secrets hidden."""
    return {
        _PREFIX + name.upper(): "(hidden)" if name in _SECRETS else value
        for name, value in settings.model_dump().items()
    }

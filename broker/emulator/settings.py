"""Everything an emulator can be told at start; whatever the contract marks UNCONFIRMED is here with its assumption."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from broker.emulator.registry import ModeName

Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(ge=0)]
Minutes = Annotated[float, Field(gt=0)]


def _listed(value: object) -> object:
    return tuple(value.split(",")) if isinstance(value, str) else value


class EmulatorSettings(BaseModel):
    """One frozen object; section numbers are those of the platform contract."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    state_dir: Path
    host: str = "127.0.0.1"
    port: Port = 0
    """Wire listener; 0 lets the system choose."""
    admin_host: Literal["127.0.0.1", "::1", "localhost"] = "127.0.0.1"
    admin_port: Port = 0
    certfile: Path | None = None
    keyfile: Path | None = None
    keep_alive: bool = True
    """Off: the server closes after each answer, as the contract's 1.1 describes the platform."""

    fsync: bool = False
    """Off: an acknowledged effect survives the death of this process; on: of the machine too."""
    keep_rows: Annotated[int, Field(ge=0)] = 1_000_000
    """Ledger rows kept over a start; older ones are dropped when the journal is compacted."""
    compact_after: Annotated[int, Field(ge=1)] = 50_000
    """Journal lines to replay at start above which the start rewrites the journal."""
    seed: int | None = None
    """Seed of fault shares and of the choice by city; ``None``: different on each run."""

    created_skew_s: Seconds = 300
    """1.4: how far ``Created`` may be from our clock."""
    created_accepts_utc8: bool = False
    """1.4: also accept a ``Created`` written in UTC+8, as the sister product's page has it."""
    refuse_repeated_nonce: bool = False
    """1.4: answer "Invalid digest." to a nonce seen within the skew."""
    invalid_digest_code: str = "1010010"
    """7.3: the number printed beside "Invalid digest." under 401."""
    wsse_first_code: int = 1_023_033
    """7.2: the code for a missing X-WSSE; Username, Nonce, Created and PasswordDigest follow in that order."""

    block_after: Annotated[int, Field(ge=0)] = 5
    """Bad digests from one source address within ``block_window_s`` that block it; 0 never blocks."""
    block_window_s: Seconds = 60
    block_for_s: Seconds = 1800

    default_rate: Annotated[float, Field(ge=0)] | None = 50
    """7.6: requests a second of an app that was put without ``rate``; ``None`` or 0: no flow control."""
    default_burst: Annotated[float, Field(ge=1)] | None = None
    """Bucket size of an app that was put without ``burst``; ``None``: one second's worth, at least 1."""

    pairs_per_x: Annotated[int, Field(ge=1)] = 5_000
    """2.5: AXB bindings one X holds."""
    landline_explicit_x: Literal["relation_num", "own_area"] = "relation_num"
    """2.6: what decides X for a landline A that comes with ``relationNum``."""
    query_echoes_extras: bool = True
    """2.4: whether a query returns recordHintTone, lastMinVoice, privateSms and preVoice when they were set."""
    paging_as_text: bool = False
    """2.4: ``pageIndex`` and ``pageSize`` of the answer as strings instead of numbers."""

    real_caller_allowed: bool = True
    """3.1, 4.1: whether A may be shown the real caller; off, as operators have it: such a call ends with 8024."""

    ax_x_per_a: Annotated[int, Field(ge=1)] = 5
    """3.6: X that one A of an AX app may have at a time."""
    ax_same_pair_code: Literal["1016002", "1011005"] = "1016002"
    """3.6: the answer to binding an A to the X that it has already."""
    ax_query_missing_code: Literal["1016001", "1011004"] = "1016001"
    """3.4: the answer to a query that finds no binding."""
    ax_modify_fields: Literal["all", "newest"] = "all"
    """3.3: whether all fields of a bind can be modified, or those alone that the newest page lists."""
    ax_turn_flag: Literal["on", "off", "unknown"] = "on"
    """3.1: ``turnFlag`` of a bind without it, or ``unknown``: the field is neither read nor shown."""
    ax_turned_off_state: int = 8055
    """3.1: how a call to an X ends that is turned off."""
    ax_no_callee_state: Literal[8013, 8019] = 8013
    """8.1: how a call from A ends when no temporary callee is set, or none any more."""
    ax_call_uses_up_callee: bool = False
    """3.5: whether a temporary callee is good for one call only."""

    axe_extension_digits: Annotated[int, Field(ge=1, le=4)] = 4
    """4.5: digits of an extension of an app that was put without ``extension_digits``."""
    axe_bind_hours: Annotated[int, Field(ge=0, le=720)] = 168
    """4.1: lifetime of a binding that is bound without ``bindExpiredTime``; 0 never expires."""
    axe_callback_hours: Annotated[int, Field(ge=0, le=720)] = 24
    """4.1: lifetime of callback records of a binding that is bound without ``callbackExpiredTime``."""
    axe_callback_zero: Literal["never", "at_once"] = "never"
    """4.1: when callback records of ``callbackExpiredTime`` 0 expire."""
    axe_foreign_x_code: str = "1012001"
    """4.1: the answer to a ``virtualNum`` that is not the app's."""
    axe_none_in_area_code: str = "1012008"
    """2.6: the answer when the city has no X of the app."""
    axe_taken_code: Literal["1013102", "1020167"] = "1013102"
    """4.5: the answer to a wanted extension that is bound."""
    axe_repeats_a: bool = True
    """4.5: whether one A may have several extensions of one X; if not, the second bind is 1016002."""
    axe_modify_restarts_clock: bool = True
    """4.3: whether a new ``bindExpiredTime`` counts from the modification; if not, from the bind."""
    axe_modify_changes_a: bool = False
    """4.3: whether a modification reads ``bindNum``."""

    axyb_x_per_a: Annotated[int, Field(ge=1)] = 5
    """5.2: X that one A owns at a time."""
    axyb_relations_per_y: Annotated[int, Field(ge=1)] = 1_000
    """5.2: relations one Y has."""
    axyb_query_rows: Annotated[int, Field(ge=1)] = 5
    """5.2: relations one query shows, the oldest first; a further one is not seen."""
    axyb_duplicate_code: str = "1012010"
    """5.2: the refusal of a B that has a Y under this AX already."""
    axyb_exhausted_code: str = "1012008"
    """5.2: the refusal when no number can serve as X, or as Y."""
    axyb_x_limit_code: str = "1011003"
    """5.2: the refusal of an A that owns ``axyb_x_per_a`` X already."""

    block_reply_s: Annotated[float, Field(gt=0)] = 5
    """5.1, 6.3, 6.6: how long an app may take to answer a question, or a push."""
    x_closed_state: int = 8017
    """8.1: how a call ends that the app does not want."""
    push_again_min: Annotated[tuple[Minutes, ...], BeforeValidator(_listed)] = (1, 4, 9, 106, 203, 300)
    """6.3: when a push without a 200 is sent again; as text: with commas between."""
    push_again_from: Literal["first", "last"] = "first"
    """6.3: what those minutes count from: the first push, or the one before."""
    push_again_factor: Annotated[float, Field(gt=0, le=1)] = 1
    """What those minutes are multiplied with: 0.001 makes five hours 18 seconds."""
    most_pushes: Annotated[int, Field(ge=1)] = 200_000
    """Pushes that wait to be sent, or to be sent again; what is told beyond that is given up at once."""
    keep_told: Annotated[int, Field(ge=1)] = 200_000
    """Rows kept of what apps were told."""
    sms_has_content: bool = False
    """6.6: whether notices of messages carry the content, which the platform has to be asked for."""
    record_download_base: str = ""
    """6.5: what ``recordFileDownloadUrl`` of records begins with, such as the wire's address; empty: no such field."""
    sp_id: Annotated[str, Field(min_length=1, max_length=32)] = "emulated"
    """6.5: ``spId`` of all records."""
    keep_calls: Annotated[int, Field(ge=1)] = 10_000
    """Connected calls that are kept, live or over; beyond it the oldest is hung up and forgotten."""
    call_stop_modes: Annotated[tuple[ModeName, ...], BeforeValidator(_listed)] = tuple(ModeName)
    """9.2: modes whose apps may stop calls; as text: with commas between."""
    keep_recordings: Annotated[int, Field(ge=1)] = 10_000
    """Recordings that are kept; beyond it the oldest is forgotten before its time."""
    recording_link_s: Annotated[int, Field(ge=1)] = 604_800
    """9.1: how long the address of a recording is good, which an older note gives as 3 days."""
    record_domain: str = "storage.emulator"
    """9.1: ``recordDomain`` of all recordings."""

    known_tones: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ()
    """9.3: voice files that are approved for every app, beside those put for one; as text: with commas between."""
    idle_tones_checked: bool = True
    """2.1: whether a file without effect (recordHintTone without recording, lastMinVoice without maxDuration) is
    refused too when it is not approved."""

    @model_validator(mode="after")
    def _tls_needs_a_certificate(self) -> EmulatorSettings:
        if self.keyfile is not None and self.certfile is None:
            raise ValueError("keyfile was given without certfile")
        return self

"""How a call ends: what the called side does, the documented release causes, and what the record says (contract 8)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from broker.emulator.release import NORMAL, TIME_IS_UP


@dataclass(frozen=True, slots=True)
class Cause:
    """One ``stateCode``: how far such a call comes, and what its record says of the failure."""

    q850: int = 0
    """``fwdUnaswRsn``."""
    sip: int = 0
    point: int = 518
    """``ulFailReason``."""
    forwarded: bool = True
    rings: bool = False


_REFUSED: Final = Cause(sip=403, point=519, forwarded=False)
_CONNECTED: Final = Cause(point=0, rings=True)

#: What the called side, or a caller who does not wait, can be told to do.
WORDS: Final[Mapping[str, int]] = {
    "answer": NORMAL,
    "busy": 8102,
    "no_answer": 8101,
    "rejected": 7503,
    "refused": 7504,
    "off": 8104,
    "unreachable": 8103,
    "unknown": 8100,
    "suspended": 8105,
    "timeout": 8035,
    "gave_up": 7501,
    "gave_up_ringing": 7502,
}

#: Every cause of the documented list.
CAUSES: Final[Mapping[int, Cause]] = {
    NORMAL: _CONNECTED,
    TIME_IS_UP: _CONNECTED,
    7501: Cause(16, 487, 553),
    7502: Cause(16, 487, 552, rings=True),
    7503: Cause(21, 603, rings=True),
    7504: Cause(21, 603),
    7505: Cause(38, 503, 519),
    7506: Cause(38, 503),
    7508: Cause(3, 404),
    7516: Cause(16, 487, 530, forwarded=False),
    8035: Cause(18, 408, 513),
    8100: Cause(1, 404),
    8101: Cause(19, 480, 514, rings=True),
    8102: Cause(17, 486),
    8103: Cause(20, 480),
    8104: Cause(20, 480),
    8105: Cause(27, 480),
    8139: Cause(41, 500),
    522: Cause(sip=503, point=522, forwarded=False),
    8007: Cause(point=0, rings=True),
    8008: Cause(sip=500, point=100, forwarded=False),
    8015: Cause(sip=500, point=503),
    8041: Cause(sip=500, point=503),
    7507: Cause(sip=404, point=524, forwarded=False),
    8006: Cause(sip=404, point=524, forwarded=False),
    7001: Cause(sip=403, point=7001, forwarded=False),
    7002: Cause(sip=403, point=7002, forwarded=False),
    7003: Cause(sip=403, point=7003, forwarded=False),
    7004: Cause(sip=403, point=7004, forwarded=False),
    **dict.fromkeys(
        (
            7005, 7100, 7101, 7102, 7105, 7106, 7107, 7108, 7109, 7500, 8011, 8013, 8014, 8016, 8017, 8018, 8019, 8020,
            8022, 8023, 8024, 8025, 8030, 8031, 8032, 8033, 8040, 8042, 8043, 8044, 8046, 8047, 8048, 8049, 8050, 8051,
            8055, 8056, 8057,
            8000, 8001, 8002, 8012,  # older copies of the table alone
        ),
        _REFUSED,
    ),
}  # fmt: skip

_DESCRIPTIONS: Final[Mapping[int, str]] = {
    NORMAL: "The user releases the call.",
    TIME_IS_UP: "The longest duration of the call is reached.",
    **{code: f"The call was not answered: {word}." for word, code in WORDS.items() if code},
}


def cause_of(state_code: int) -> Cause:
    """Return what is known of a cause; one that is not listed is refused before it goes anywhere."""
    return CAUSES.get(state_code, _REFUSED)


def description(state_code: int) -> str:
    """Return ``stateDesc``."""
    return _DESCRIPTIONS.get(state_code, f"The platform refuses the call with cause {state_code}.")

"""Why a call ended, in words: the platform's causes (contract section 8)."""

from __future__ import annotations

from typing import Final

#: ``stateCode`` of the event of the end (8.1).
_CAUSES: Final = {
    0: "somebody hung up after the call was connected",
    522: "the platform's voice ports are exhausted",
    7001: "call frequency is limited for the developer",
    7002: "call frequency is limited for the app",
    7003: "call frequency is limited for the displayed number",
    7004: "the callee is on a blacklist",
    7005: "the caller is on a blacklist",
    7100: "the app was not found",
    7101: "the app has no privacy numbers",
    7105: "the service type does not match",
    7106: "the app may not place privacy calls",
    7107: "a security prompt could not be played",
    7108: "the subscriber is frozen",
    7109: "the tenant's voice ports are exhausted",
    7500: "calls to this prefix are restricted",
    7501: "the caller gave up before the callee's phone rang",
    7502: "the caller gave up while the callee's phone rang",
    7503: "the callee rejected the call",
    7504: "the call was refused: rejected, do not disturb, a blacklist or the handset",
    7505: "network fault on the caller's side",
    7506: "network fault on the callee's side",
    7507: "a voice file is missing",
    7508: "routing failed",
    7516: "the caller gave up before the call was forwarded",
    8006: "a voice file does not exist",
    8007: "the prompt of the last minute failed",
    8008: "playing and collecting digits failed",
    8010: "the longest duration was reached",
    8012: "the app key is invalid",
    8013: "A dialled X and had named nobody to reach",
    8014: "nobody is bound, or a number is badly formatted",
    8015: "recording failed",
    8016: "calls in this direction are not allowed",
    8017: "the app ordered the hang-up",
    8018: "no right to the service",
    8019: "there is nobody to call back",
    8022: "the binding is absent or expired",
    8023: "a landline may not call",
    8024: "the real caller may not be shown",
    8025: "the number dialled does not exist",
    8030: "the binding is absent",
    8031: "no Y could be given out",
    8032: "a party dialled its own privacy number",
    8033: "no extension was entered",
    8035: "the callee could not be connected in time",
    8041: "recording failed",
    8042: "calls from abroad are restricted",
    8043: "calls abroad are restricted",
    8044: "unusual calling times",
    8046: "unusual answer rate",
    8047: "call frequency is limited for the caller",
    8048: "call frequency is limited for the callee",
    8049: "call frequency is limited for the service number",
    8050: "calls are not allowed at this hour",
    8051: "the sub-enterprise is suspended",
    8055: "the X cannot be used",
    8056: "test calls are limited",
    8057: "the direction is limited",
    8100: "the callee's number does not exist",
    8101: "no answer",
    8102: "busy",
    8103: "the callee's signal is bad",
    8104: "the callee's phone is off or without network",
    8105: "the callee's line is suspended",
}
#: ``ulFailReason`` of the record (8.3), and Q.850 values of a failed forward (8.2).
_POINTS: Final = {
    0: "hung up after the connection",
    100: "no digits were collected",
    512: "the recorder switched over",
    513: "the call timed out",
    514: "ringing timed out",
    515: "the callee's side cancelled",
    516: "the caller's side cancelled",
    517: "the platform waited in vain for an answer",
    518: "the callee's side failed",
    519: "the caller's side failed",
    520: "the caller's side failed",
    521: "the callee's side released before ringing",
    522: "no voice ports",
    524: "a voice file is absent",
    528: "calls to this prefix are restricted",
    529: "the app key does not exist",
    530: "the caller hung up before the forward",
    539: "the caller hung up before the recording began",
    540: "the callee hung up before the recording began",
    542: "the longest recording was reached",
    1003: "the app ordered the hang-up",
}
_Q850: Final = {
    1: "the callee's number does not exist",
    16: "hung up",
    17: "busy",
    18: "no response",
    19: "no answer",
    20: "the callee's phone is off or without network",
    21: "rejected",
    22: "the callee's number has changed",
    27: "the callee's phone is out of order",
    28: "a number is badly formatted",
    31: "ended without a cause",
    34: "no circuit",
    38: "the network is out of order",
    41: "temporary failure",
    42: "congestion",
    127: "ended without a cause",
}
#: ``sendResult`` of a short message (6.6).
_SENDING: Final = {
    0: "forwarded",
    1: "the account is frozen",
    2: "nobody is bound",
    3: "the X is suspended",
    4: "the app is not in service",
    5: "internal error of the platform",
    6: "the app ordered it discarded",
    7: "the app did not answer in time",
    8: "blacklist",
    9: "parts of it were forwarded",
    10: "no part could be forwarded",
    11: "the X cannot carry short messages",
    12: "it lacks the required word",
    13: "it has a forbidden word",
}


def cause(state_code: int | None) -> str | None:
    """Return the words for the cause that an event names; ``None`` where there is none."""
    return None if state_code is None else _CAUSES.get(state_code, f"cause {state_code}")


def release(code: int | None, q850: int | None) -> str | None:
    """Return the words for a record's release: the Q.850 value says more where there is one."""
    if q850:
        return _Q850.get(q850, f"Q.850 cause {q850}")
    return None if code is None else _POINTS.get(code) or _CAUSES.get(code, f"release point {code}")


def sending(result: int) -> str:
    """Return the words for what became of a short message."""
    return _SENDING.get(result, f"result {result}")

"""Result codes of the platform with their HTTP status and English text (contract 7)."""

from __future__ import annotations

import functools
from typing import Final

import orjson

#: (HTTP status, resultcode) -> resultdesc. Keyed by both: 1010010 means two things.
TEXTS: Final[dict[tuple[int, str], str]] = {
    (400, "1023006"): "Authorization not contained in the HTTP header.",
    (400, "1023007"): "realm not contained in Authorization.",
    (400, "1023008"): "profile not contained in Authorization.",
    (400, "1023009"): "The value of realm in Authorization must be SDP.",
    (400, "1023010"): "The value of profile in Authorization must be UsernameToken.",
    (400, "1023011"): "The value of type in Authorization must be app_key.",
    (400, "1023012"): "type not contained in Authorization.",
    (400, "1023033"): "HTTP header not found X-AKSK field.",
    (400, "1023034"): "UserName not contained in X-AKSK.",
    (400, "1023035"): "Nonce not contained in X-AKSK.",
    (400, "1023036"): "Created not contained in X-AKSK.",
    (400, "1023037"): "PasswordDigest not contained in X-AKSK.",
    (401, "1010010"): "Invalid digest.",
    (401, "1010013"): "Time out limit.",
    (403, "1010002"): "Invalid request.",
    (403, "1010003"): "Invalid app_key.",
    (403, "1010004"): "The status of the app_key is unavailable.",
    (403, "1010008"): "The status of the app_key is unavailable.",
    (403, "1010010"): "The flow control upper limit is reached on the platform.",
    (403, "1010021"): "Application unavailable.",
    (403, "1010029"): "The subscriber status is frozen.",
    (403, "1010040"): "The app_key is not allowed to invoke the API.",
    (403, "1011001"): "Account does not exist.",
    (403, "1011002"): "Insufficient number of resources.",
    (403, "1011003"): "Exceeded the upper limit of resources that can be applied for.",
    (403, "1011004"): "The number is not applied for binding application.",
    (403, "1011005"): "Resources have been allocated.",
    (403, "1011006"): "Under traffic control status.",
    (403, "1012001"): "Resource of number is not to be applied.",
    (403, "1012007"): "The record does not exist.",
    (403, "1012008"): "Insufficient number of resources.",
    (403, "1012010"): "The relation number has been bound.",
    (403, "1012012"): "Application does not have the permission.",
    (403, "1012102"): "The number is contained in the blacklist.",
    (403, "1013102"): "The extend number has been bound.",
    (403, "1016001"): "The record does not exist.",
    (403, "1016002"): "The record already exists.",
    (403, "1020166"): "The app client ip is not in ip white list.",
    (403, "1020167"): "No idle extend Number.",
    (403, "1020176"): "Authentication failed, try again later.",
    (403, "1020179"): "Application does not enable sms function.",
    (500, "1010001"): "Internal system error.",
    (500, "1020001"): "Parameter error.",
    (500, "1020002"): "Internal error.",
    (500, "1020150"): "The app_key is invalid.",
    (500, "1020152"): "Invalid sessionId.",
    (500, "1023001"): "Internal error.",
    (500, "1023002"): "Response timeout.",
}

_STATUS: Final[dict[str, int]] = {}
for _http, _code in TEXTS:
    _STATUS[_code] = max(_http, _STATUS.get(_code, 0))  # 1010010 alone is flow control, the business reading

INVALID_REQUEST: Final = "1010002"
INTERNAL_ERROR: Final = "1010001"
FLOW_CONTROL: Final = "1010010"
OTHER_MODE: Final = "1010040"
UNKNOWN_APP: Final = "1010003"
TIME_OUT_LIMIT: Final = "1010013"
NUMBER_NOT_APPLIED: Final = "1012001"
NO_RECORD: Final = "1012007"
INSUFFICIENT: Final = "1012008"
ALREADY_BOUND: Final = "1012010"
NOT_OF_APP: Final = "1011001"
NONE_FREE: Final = "1011002"
TOO_MANY_X: Final = "1011003"
X_NOT_BOUND: Final = "1011004"
X_ALLOCATED: Final = "1011005"
NO_SUCH_BINDING: Final = "1016001"
BINDING_EXISTS: Final = "1016002"
NO_IDLE_EXTENSION: Final = "1020167"
PARAMETER_ERROR: Final = "1020001"
NO_SESSION: Final = "1020152"
SOURCE_BLOCKED: Final = "1020176"

SUCCESS: Final = orjson.dumps({"resultcode": "0", "resultdesc": "Success"})


def usual_status(code: str) -> int:
    """Return the HTTP status that ``code`` comes with; 403 for a code that no table has."""
    return _STATUS.get(code, 403)


class Refusal(Exception):
    """The platform says no. ``parameter`` is the body or query field that 1010002 blames."""

    def __init__(self, code: str, *, http: int = 0, parameter: str = "", text: str = "") -> None:
        self.code = code
        self.http = http or usual_status(code)
        self.parameter = parameter
        self.text = text
        super().__init__(code)

    @property
    def body(self) -> bytes:
        """The JSON envelope."""
        return refusal_body(self.http, self.code, self.parameter, self.text)


@functools.lru_cache(maxsize=512)
def refusal_body(http: int, code: str, parameter: str = "", text: str = "") -> bytes:
    """Return the envelope of a refusal; 1010002 names the parameter as the platform does."""
    described = text or TEXTS.get((http, code)) or TEXTS.get((usual_status(code), code), "Request failed.")
    if parameter:
        described = f"{described} The parameter {parameter} is invalid."
    return orjson.dumps({"resultcode": code, "resultdesc": described})

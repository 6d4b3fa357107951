"""What (HTTP status, ``resultcode``) means: the whole of contract section 7 as one table.

The pair is the key because the platform reuses numbers: 1010010 is "invalid digest" under 401 and "flow control" under
403, and HTTP 500 carries both its own failures and the caller's mistakes. A verdict other than ``UNKNOWN`` and ``DONE``
is a claim that the platform did nothing; whatever leaves that open stays ``UNKNOWN``.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple

from broker.platform.protocol import Verdict

SUCCESS: Final = "0"
DIGEST_OR_FLOW: Final = "1010010"
NO_SESSION: Final = "1020152"
_FOUND_ELSEWHERE: Final = 301  # how a recording's address is told (contract 9.1); no other redirect is


class Operation(StrEnum):
    """What was asked; an answer's meaning may depend on it."""

    BIND = "bind"
    MODIFY = "modify"
    UNBIND = "unbind"
    QUERY = "query"
    CALLEE = "callee"
    BIND_PEER = "bind_peer"
    UNBIND_PEER = "unbind_peer"
    STOP = "stop"
    RECORDING = "recording"


class Row(NamedTuple):
    """One line of the table: the verdict and a short text for people, used when the platform sends none."""

    verdict: Verdict
    text: str


TABLE: Final[Mapping[tuple[int, str], Row]] = MappingProxyType(
    {
        # 7.1
        (200, SUCCESS): Row(Verdict.DONE, "success"),
        # 7.2: our Authorization or X-AKSK header is malformed
        (400, "1023006"): Row(Verdict.CONFIGURATION, "Authorization header missing"),
        (400, "1023007"): Row(Verdict.CONFIGURATION, "Authorization lacks realm"),
        (400, "1023008"): Row(Verdict.CONFIGURATION, "Authorization lacks profile"),
        (400, "1023009"): Row(Verdict.CONFIGURATION, "Authorization: realm is not SDP"),
        (400, "1023010"): Row(Verdict.CONFIGURATION, "Authorization: profile is not UsernameToken"),
        (400, "1023011"): Row(Verdict.CONFIGURATION, "Authorization: type is not Appkey"),
        (400, "1023012"): Row(Verdict.CONFIGURATION, "Authorization lacks type"),
        (400, "1023033"): Row(Verdict.CONFIGURATION, "X-AKSK header missing"),
        (400, "1023034"): Row(Verdict.CONFIGURATION, "X-AKSK lacks Username"),
        (400, "1023035"): Row(Verdict.CONFIGURATION, "X-AKSK lacks Nonce"),
        (400, "1023036"): Row(Verdict.CONFIGURATION, "X-AKSK lacks Created"),
        (400, "1023037"): Row(Verdict.CONFIGURATION, "X-AKSK lacks PasswordDigest"),
        # 7.3
        (401, DIGEST_OR_FLOW): Row(Verdict.BAD_DIGEST, "invalid digest"),
        (401, "1010013"): Row(Verdict.CLOCK_SKEW, "Created is too far from the platform's clock"),
        # 7.4
        (403, "1010002"): Row(Verdict.BAD_REQUEST, "invalid request"),
        (403, "1010003"): Row(Verdict.CONFIGURATION, "invalid app_key or access address"),
        (403, "1010004"): Row(Verdict.APP_SUSPENDED, "application unavailable"),
        (403, "1010008"): Row(Verdict.APP_SUSPENDED, "application not in normal state"),
        (403, DIGEST_OR_FLOW): Row(Verdict.FLOW_CONTROL, "the platform's flow control"),
        (403, "1010021"): Row(Verdict.APP_SUSPENDED, "application unavailable"),
        (403, "1010029"): Row(Verdict.APP_SUSPENDED, "account frozen, usually arrears"),
        (403, "1010040"): Row(Verdict.CONFIGURATION, "the application is of another mode"),
        (403, "1011001"): Row(Verdict.NUMBER_REFUSED, "X is not this application's"),
        (403, "1011002"): Row(Verdict.CAPACITY, "no free X"),
        (403, "1011003"): Row(Verdict.PARTY_LIMIT, "A has its maximum of X numbers"),
        (403, "1011004"): Row(Verdict.NOT_FOUND, "X has no binding in this application"),
        (403, "1011005"): Row(Verdict.CONFLICT, "X is bound already"),
        (403, "1011006"): Row(Verdict.FLOW_CONTROL, "the requester is under flow control"),
        (403, "1012001"): Row(Verdict.NUMBER_REFUSED, "X is not this application's"),
        (403, "1012007"): Row(Verdict.NOT_FOUND, "no such binding"),
        (403, "1012008"): Row(Verdict.CAPACITY, "X is full"),
        (403, "1012010"): Row(Verdict.CONFLICT, "A or B is bound on this X already"),
        # The contract's reading of a text that is cut in every copy: the application may not do what was asked. 7.6
        # files it under "everything else", and calling it a conflict would spend a query and another X on each bind.
        (403, "1012012"): Row(Verdict.CONFIGURATION, "the application does not permit this"),
        (403, "1012102"): Row(Verdict.NUMBER_REFUSED, "the number is blacklisted"),
        (403, "1013102"): Row(Verdict.CONFLICT, "the extension is bound already"),
        (403, "1016001"): Row(Verdict.NOT_FOUND, "no such binding"),
        (403, "1016002"): Row(Verdict.CONFLICT, "the binding exists already"),
        (403, "1020154"): Row(Verdict.FLOW_CONTROL, "assumed: flow control"),
        (403, "1020166"): Row(Verdict.CONFIGURATION, "our address is not on the white list"),
        (403, "1020167"): Row(Verdict.CONFLICT, "no idle extension"),
        (403, "1020176"): Row(Verdict.SOURCE_BLOCKED, "too many authentication failures from our address"),
        # privateSms goes out only for an order that asks for SMS; orders that do not are still served.
        (403, "1020179"): Row(Verdict.BAD_REQUEST, "the application has no SMS"),
        # 7.5
        (500, "1010001"): Row(Verdict.UNKNOWN, "internal system error"),
        (500, "1020001"): Row(Verdict.BAD_REQUEST, "parameter error"),
        (500, "1020002"): Row(Verdict.UNKNOWN, "internal error"),
        (500, "1020150"): Row(Verdict.CONFIGURATION, "invalid app_key"),
        # Only of a call stop "not found": it would let an unbind count as done because of a session id.
        (500, NO_SESSION): Row(Verdict.BAD_REQUEST, "no such call, or it is over"),
        (500, "1023001"): Row(Verdict.UNKNOWN, "internal error"),
        (500, "1023002"): Row(Verdict.UNKNOWN, "response time-out inside the platform"),
    }
)

#: For a known code under a status that the contract does not print: gateways rewrite statuses, codes stay.
_BY_CODE: Final = {code: row for (_, code), row in TABLE.items() if code not in {SUCCESS, DIGEST_OR_FLOW}}

_NO_CODE: Final[Mapping[int, Row]] = MappingProxyType(
    {
        404: Row(Verdict.CONFIGURATION, "HTTP 404: wrong access address or URI"),
        408: Row(Verdict.UNKNOWN, "HTTP 408 from a gateway"),
        429: Row(Verdict.FLOW_CONTROL, "HTTP 429 from a gateway"),
    }
)

_OF_A_BIND: Final = frozenset({Verdict.CONFLICT, Verdict.CAPACITY, Verdict.PARTY_LIMIT, Verdict.NUMBER_REFUSED})
#: Verdicts that ask for another X, or for other parties on it, and that no answer to this operation can mean.
_BARRED: Final[Mapping[Operation, frozenset[Verdict]]] = {
    Operation.BIND: frozenset(),
    Operation.MODIFY: frozenset({Verdict.CAPACITY, Verdict.NUMBER_REFUSED}),
    Operation.UNBIND: _OF_A_BIND,
    Operation.QUERY: _OF_A_BIND,
    Operation.CALLEE: _OF_A_BIND,
    Operation.BIND_PEER: frozenset({Verdict.NUMBER_REFUSED}),
    Operation.UNBIND_PEER: _OF_A_BIND,
    Operation.STOP: _OF_A_BIND,
    Operation.RECORDING: _OF_A_BIND,
}


def judge(operation: Operation, status: int, code: str | None, text: str = "") -> Row:
    """Return what an answer means for ``operation``; ``code`` is ``None`` when there was no JSON object or no code.

    Some readings depend on the operation. "Nothing there" in answer to a bind is about X (unknown or released: contract
    1012007), so another X may do; in answer to a peer's bind it is about the AX. And whatever else is refused for its X
    (1012001: not ours) proves nothing about the binding, as wrong credentials look the same: never "not found", an
    operator must look. A modification may collide as a bind does, with a pair that has its new A or B on the same X,
    and its new A may have as many X as the platform allows. A peer may collide, and there may be no Y left for it.
    """
    if operation is Operation.RECORDING and status == _FOUND_ELSEWHERE:
        return Row(Verdict.DONE, "the recording's address")
    row = _row(status, code, text)
    if operation is Operation.BIND and row.verdict is Verdict.NOT_FOUND:
        return Row(Verdict.NUMBER_REFUSED, row.text)
    if operation is Operation.STOP and code == NO_SESSION and row.verdict is Verdict.BAD_REQUEST:
        return Row(Verdict.NOT_FOUND, row.text)
    return Row(Verdict.CONFIGURATION, row.text) if row.verdict in _BARRED[operation] else row


def _row(status: int, code: str | None, text: str) -> Row:
    family = status // 100
    if family == 3:  # noqa: PLR2004 - a redirect is refused whatever it carries: the access address is wrong
        return Row(Verdict.CONFIGURATION, f"HTTP {status}: the access address redirects")
    if code is None:
        return _NO_CODE.get(status) or _by_family(family, f"HTTP {status} without a result code")
    row = TABLE.get((200 if family == 2 else status, code)) or _BY_CODE.get(code)  # noqa: PLR2004
    if row is not None:
        return row
    if code == DIGEST_OR_FLOW:  # neither 401 nor 403: only the text is left to tell
        return TABLE[401 if "digest" in text.lower() else 403, code]
    if code == SUCCESS:
        return Row(Verdict.UNKNOWN, f"success under HTTP {status}")
    return _by_family(family, f"unlisted code {code} under HTTP {status}")


def _by_family(family: int, text: str) -> Row:
    """Only a 4xx says by itself that nothing was done."""
    return Row(Verdict.CONFIGURATION if family == 4 else Verdict.UNKNOWN, text)  # noqa: PLR2004

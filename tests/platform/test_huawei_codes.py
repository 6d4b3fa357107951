"""The result-code table against the contract's section 7."""

from __future__ import annotations

import pytest

from broker.platform.huawei.codes import TABLE, Operation, judge
from broker.platform.protocol import Verdict

#: Every resultcode that the contract lists in section 7, in its order; written from the contract, not from the table.
CONTRACT_CODES = [
    # 7.1
    "0",
    # 7.2
    "1023006",
    "1023007",
    "1023008",
    "1023009",
    "1023010",
    "1023011",
    "1023012",
    "1023033",
    "1023034",
    "1023035",
    "1023036",
    "1023037",
    # 7.3
    "1010010",
    "1010013",
    # 7.4
    "1010002",
    "1010003",
    "1010004",
    "1010008",
    "1010010",
    "1010021",
    "1010029",
    "1010040",
    # 7.4, AX
    "1011001",
    "1011002",
    "1011003",
    "1011004",
    "1011005",
    "1011006",
    # 7.4, AXB
    "1012001",
    "1012007",
    "1012008",
    "1012010",
    "1012012",
    "1012102",
    "1013102",
    "1016001",
    "1016002",
    # 7.4, shared
    "1020154",
    "1020166",
    "1020167",
    "1020176",
    "1020179",
    # 7.5
    "1010001",
    "1020001",
    "1020002",
    "1020150",
    "1020152",
    "1023001",
    "1023002",
]

Exceptions = dict[Operation, Verdict]
BIND, MODIFY, PEER, STOP = Operation.BIND, Operation.MODIFY, Operation.BIND_PEER, Operation.STOP
NO_X: Exceptions = {BIND: Verdict.NUMBER_REFUSED}
FULL: Exceptions = {BIND: Verdict.CAPACITY, PEER: Verdict.CAPACITY}
TAKEN: Exceptions = dict.fromkeys((BIND, MODIFY, PEER), Verdict.CONFLICT)
TOO_MANY: Exceptions = dict.fromkeys((BIND, MODIFY, PEER), Verdict.PARTY_LIMIT)

#: (HTTP status, code, verdict, operations of which it is another one).
EXPECTED: list[tuple[int, str, Verdict, Exceptions]] = [
    (200, "0", Verdict.DONE, {}),
    *((400, str(code), Verdict.CONFIGURATION, {}) for code in (*range(1023006, 1023013), *range(1023033, 1023038))),
    (401, "1010010", Verdict.BAD_DIGEST, {}),
    (401, "1010013", Verdict.CLOCK_SKEW, {}),
    (403, "1010002", Verdict.BAD_REQUEST, {}),
    (403, "1010003", Verdict.CONFIGURATION, {}),
    (403, "1010004", Verdict.APP_SUSPENDED, {}),
    (403, "1010008", Verdict.APP_SUSPENDED, {}),
    (403, "1010010", Verdict.FLOW_CONTROL, {}),
    (403, "1010021", Verdict.APP_SUSPENDED, {}),
    (403, "1010029", Verdict.APP_SUSPENDED, {}),
    (403, "1010040", Verdict.CONFIGURATION, {}),
    (403, "1011001", Verdict.CONFIGURATION, NO_X),
    (403, "1011002", Verdict.CONFIGURATION, FULL),
    (403, "1011003", Verdict.CONFIGURATION, TOO_MANY),
    (403, "1011004", Verdict.NOT_FOUND, NO_X),
    (403, "1011005", Verdict.CONFIGURATION, TAKEN),
    (403, "1011006", Verdict.FLOW_CONTROL, {}),
    (403, "1012001", Verdict.CONFIGURATION, NO_X),
    (403, "1012007", Verdict.NOT_FOUND, NO_X),
    (403, "1012008", Verdict.CONFIGURATION, FULL),
    (403, "1012010", Verdict.CONFIGURATION, TAKEN),
    (403, "1012012", Verdict.CONFIGURATION, {}),
    (403, "1012102", Verdict.CONFIGURATION, NO_X),
    (403, "1013102", Verdict.CONFIGURATION, TAKEN),
    (403, "1016001", Verdict.NOT_FOUND, NO_X),
    (403, "1016002", Verdict.CONFIGURATION, TAKEN),
    (403, "1020154", Verdict.FLOW_CONTROL, {}),
    (403, "1020166", Verdict.CONFIGURATION, {}),
    (403, "1020167", Verdict.CONFIGURATION, TAKEN),
    (403, "1020176", Verdict.SOURCE_BLOCKED, {}),
    (403, "1020179", Verdict.BAD_REQUEST, {}),
    (500, "1010001", Verdict.UNKNOWN, {}),
    (500, "1020001", Verdict.BAD_REQUEST, {}),
    (500, "1020002", Verdict.UNKNOWN, {}),
    (500, "1020150", Verdict.CONFIGURATION, {}),
    (500, "1020152", Verdict.BAD_REQUEST, {STOP: Verdict.NOT_FOUND}),
    (500, "1023001", Verdict.UNKNOWN, {}),
    (500, "1023002", Verdict.UNKNOWN, {}),
]


@pytest.mark.parametrize("operation", list(Operation))
@pytest.mark.parametrize("row", EXPECTED, ids=lambda row: f"{row[0]}-{row[1]}")
def test_every_row(row: tuple[int, str, Verdict, Exceptions], operation: Operation) -> None:
    """Each pair of the contract means what was decided for it, whatever was asked."""
    status, code, verdict, exceptions = row
    assert judge(operation, status, code).verdict is exceptions.get(operation, verdict)


@pytest.mark.parametrize("operation", list(Operation))
def test_a_redirect_tells_a_recording_and_nothing_else(operation: Operation) -> None:
    """301 is how a recording's address comes; every other redirect is a wrong access address."""
    told = Verdict.DONE if operation is Operation.RECORDING else Verdict.CONFIGURATION
    assert judge(operation, 301, None).verdict is told
    for status in (300, 302, 303, 307, 308):
        assert judge(operation, status, None).verdict is Verdict.CONFIGURATION


@pytest.mark.parametrize("status", [200, 403, 500])
def test_a_call_that_is_over(status: int) -> None:
    """1020152 is a call that is over under any status, for a call stop only."""
    assert judge(Operation.STOP, status, "1020152").verdict is Verdict.NOT_FOUND
    assert judge(Operation.UNBIND, status, "1020152").verdict is Verdict.BAD_REQUEST


def test_the_table_is_the_contract() -> None:
    """The table has every code of section 7 and no other, and the walk above has every row of the table."""
    assert {code for _, code in TABLE} == set(CONTRACT_CODES)
    assert {(status, code) for status, code, *_ in EXPECTED} == set(TABLE)
    assert len(EXPECTED) == len(TABLE) == len(CONTRACT_CODES)
    assert all(row.text for row in TABLE.values())


@pytest.mark.parametrize(
    ("status", "code", "verdict"),
    [
        (200, None, Verdict.UNKNOWN),
        (200, "4711", Verdict.UNKNOWN),
        (202, "0", Verdict.DONE),
        (204, None, Verdict.UNKNOWN),
        (302, "0", Verdict.CONFIGURATION),
        (400, None, Verdict.CONFIGURATION),
        (400, "0", Verdict.UNKNOWN),
        (403, "9999999", Verdict.CONFIGURATION),
        (404, None, Verdict.CONFIGURATION),
        (408, None, Verdict.UNKNOWN),
        (429, None, Verdict.FLOW_CONTROL),
        (500, None, Verdict.UNKNOWN),
        (500, "0", Verdict.UNKNOWN),
        (500, "9999999", Verdict.UNKNOWN),
        (503, None, Verdict.UNKNOWN),
        (599, None, Verdict.UNKNOWN),
    ],
)
def test_outside_the_table(status: int, code: str | None, verdict: Verdict) -> None:
    """What the contract does not list is a refusal only under 3xx and 4xx; everything else may have happened."""
    for operation in Operation:
        assert judge(operation, status, code).verdict is verdict
        assert judge(operation, status, code).text


@pytest.mark.parametrize(
    ("status", "code", "text", "verdict"),
    [
        (200, "1012010", "", Verdict.CONFLICT),
        (200, "1023002", "", Verdict.UNKNOWN),
        (200, "1020176", "", Verdict.SOURCE_BLOCKED),
        (400, "1010002", "", Verdict.BAD_REQUEST),
        (403, "1020150", "", Verdict.CONFIGURATION),
        (403, "1020152", "", Verdict.BAD_REQUEST),
        (403, "1010013", "", Verdict.CLOCK_SKEW),
        (503, "1010001", "", Verdict.UNKNOWN),
        (200, "1010010", "Invalid digest.", Verdict.BAD_DIGEST),
        (200, "1010010", "The flow control upper limit is reached.", Verdict.FLOW_CONTROL),
        (500, "1010010", "", Verdict.FLOW_CONTROL),
        (401, "1010010", "The flow control upper limit is reached.", Verdict.BAD_DIGEST),
        (403, "1010010", "Invalid digest.", Verdict.FLOW_CONTROL),
    ],
)
def test_a_known_code_under_another_status(status: int, code: str, text: str, verdict: Verdict) -> None:
    """A code keeps its meaning under a status that the contract does not print; 1010010 is then told by its text."""
    assert judge(Operation.BIND, status, code, text).verdict is verdict

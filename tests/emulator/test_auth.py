from __future__ import annotations

from pathlib import Path

import pytest

from tests.emulator.support import KEY, PATH, X1, A, B, Emulated, created_at, emulator, signed

BIND = {"relationNum": X1, "callerNum": A, "calleeNum": B}


def without(header: str, attribute: str) -> str:
    """Cut one attribute out of a signed header."""
    return header.replace(f"{attribute}=", "Other=")


@pytest.mark.parametrize("scheme", ["AKSK", "WSSE"])
@pytest.mark.parametrize("gap", [",", ", "])
async def test_both_schemes_and_separators_are_accepted(emu: Emulated, scheme: str, gap: str) -> None:
    """AKSK and WSSE authenticate with "," and with ", " between the attributes."""
    assert (await emu.send(body=BIND, headers=signed(scheme=scheme, gap=gap))).outcome == (200, "0")


async def test_attribute_names_ignore_case(emu: Emulated) -> None:
    """``username`` is as good as ``Username``."""
    headers = {name: value.replace("Username=", "USERNAME=") for name, value in signed().items()}
    assert (await emu.send(body=BIND, headers=headers)).outcome == (200, "0")


@pytest.mark.parametrize(
    ("find", "put", "code"),
    [
        ("realm=", "other=", "1023007"),
        ("profile=", "other=", "1023008"),
        ('"SDP"', '"sdp2"', "1023009"),
        ('"UsernameToken"', '"Token"', "1023010"),
        ('"Appkey"', '"app"', "1023011"),
        ("type=", "other=", "1023012"),
    ],
)
async def test_each_fault_of_authorization_has_its_code(emu: Emulated, find: str, put: str, code: str) -> None:
    """Every missing or wrong part of Authorization is a 400 of its own."""
    headers = signed()
    headers["Authorization"] = headers["Authorization"].replace(find, put)
    assert (await emu.send(body=BIND, headers=headers)).outcome == (400, code)


@pytest.mark.parametrize("scheme", ["AKSK", "WSSE"])
@pytest.mark.parametrize(
    ("attribute", "code"),
    [("Username", "1023034"), ("Nonce", "1023035"), ("Created", "1023036"), ("PasswordDigest", "1023037")],
)
async def test_each_missing_part_of_the_token_has_its_code(
    emu: Emulated, scheme: str, attribute: str, code: str
) -> None:
    """Every missing part of X-AKSK or X-WSSE is a 400 of its own, and the text names the header."""
    headers = signed(scheme=scheme)
    headers[f"X-{scheme}"] = without(headers[f"X-{scheme}"], attribute)
    reply = await emu.send(body=BIND, headers=headers)
    assert reply.outcome == (400, code)
    assert f"X-{scheme}" in reply.body["resultdesc"]


async def test_missing_headers_have_their_codes(emu: Emulated) -> None:
    """Without Authorization 1023006, without the token 1023033."""
    assert (await emu.send(body=BIND, headers={})).outcome == (400, "1023006")
    only = {"Authorization": signed()["Authorization"]}
    assert (await emu.send(body=BIND, headers=only)).outcome == (400, "1023033")
    assert (await emu.send(body=BIND, headers={"Authorization": "Bearer x"})).outcome == (400, "1023007")


@pytest.mark.parametrize(("nonce", "created", "code"), [("a-b", "", "1023035"), ("", "2024-05-13 05:24:57", "1023036")])
async def test_malformed_nonce_and_created_count_as_missing(emu: Emulated, nonce: str, created: str, code: str) -> None:
    """A nonce of other than letters and digits, and a ``Created`` in another form, are 400s."""
    assert (await emu.send(body=BIND, headers=signed(nonce=nonce, created=created))).outcome == (400, code)


async def test_wrong_secret_is_an_invalid_digest(emu: Emulated) -> None:
    """401/1010010, and nothing is bound."""
    assert (await emu.send(body=BIND, headers=signed(secret="wrong"))).outcome == (401, "1010010")
    assert await emu.bindings() == []


async def test_unknown_app_key(emu: Emulated) -> None:
    """403/1010003."""
    assert (await emu.send(body=BIND, headers=signed(key="nobody"))).outcome == (403, "1010003")


@pytest.mark.parametrize(("offset_s", "code"), [(-295, "0"), (295, "0"), (-310, "1010013"), (310, "1010013")])
async def test_created_may_be_five_minutes_off(emu: Emulated, offset_s: float, code: str) -> None:
    """A ``Created`` within ±300 s passes, one beyond is 1010013."""
    assert (await emu.send(body=BIND, headers=signed(created=created_at(offset_s)))).code == code


async def test_created_is_judged_on_the_emulators_clock(emu: Emulated) -> None:
    """After the clock moves an hour, today's signature is too old; the Date header shows the emulator's time."""
    await emu.advance(3600)
    reply = await emu.send(body=BIND, headers=signed())
    assert reply.outcome == (401, "1010013")
    assert (await emu.send(body=BIND)).outcome == (200, "0")


async def test_utc8_created_by_setting(tmp_path: Path) -> None:
    """``created_accepts_utc8`` lets a UTC+8 ``Created`` pass."""
    async with emulator(tmp_path, created_accepts_utc8=True) as emu:
        assert (await emu.send(body=BIND, headers=signed(created=created_at(8 * 3600)))).code == "0"


async def test_repeated_nonce_by_setting(tmp_path: Path) -> None:
    """A repeated nonce passes by default and is refused by ``refuse_repeated_nonce``."""
    async with emulator(tmp_path, refuse_repeated_nonce=True) as emu:
        headers = signed(nonce="once")
        assert (await emu.send(body=BIND, headers=headers)).code == "0"
        assert (await emu.send(body=BIND, headers=headers)).outcome == (401, "1010010")


async def test_app_of_another_mode(emu: Emulated) -> None:
    """An AX app may not call the AXB interfaces: 1010040."""
    await emu.app("ax-app", "s", "ax")
    assert (await emu.send(body=BIND, headers=signed(key="ax-app", secret="s"))).outcome == (403, "1010040")


async def test_unknown_uri_and_method(emu: Emulated) -> None:
    """404 and 405 come without a JSON envelope, whoever asks."""
    for method, path, http in (("POST", "/rest/none", 404), ("POST", PATH + "/", 404), ("PATCH", PATH, 405)):
        reply = await emu.send(method, path=path, headers={})
        assert (reply.http, reply.body) == (http, {})


async def test_source_is_blocked_and_released(emu: Emulated) -> None:
    """Five bad digests within a minute block the address, good secret or not, for 30 minutes."""
    for _ in range(5):
        assert (await emu.send(body=BIND, headers=signed(secret="wrong"))).http == 401
    assert (await emu.bind()).outcome == (403, "1020176")
    assert (await emu.send(path="/anything", headers={})).code == "1020176"
    await emu.advance(1799)
    assert (await emu.bind()).outcome == (403, "1020176")
    await emu.advance(1)
    assert (await emu.bind()).outcome == (200, "0")


async def test_slow_failures_do_not_block(emu: Emulated) -> None:
    """Bad digests more than a minute apart never add up to a block."""
    for _ in range(10):
        wrong = signed(secret="wrong", created=created_at(emu.skew_s))
        assert (await emu.send(body=BIND, headers=wrong)).http == 401
        await emu.advance(16)
    assert (await emu.bind()).code == "0"


async def test_what_fails_authentication_is_no_ledger_row(emu: Emulated) -> None:
    """The ledger lists requests that passed authentication; the others are counted in health."""
    await emu.send(body=BIND, headers=signed(secret="wrong"))
    await emu.send(body=BIND, headers=signed(key="nobody"))
    assert await emu.ledger() == []
    assert (await emu.ask("GET", "health")).body["answers"] == {"401/1010010": 1, "403/1010003": 1}


async def test_flow_control_admits_the_burst_and_no_more(emu: Emulated) -> None:
    """With a rate near zero exactly ``burst`` requests pass; every refusal is a ledger row."""
    await emu.app(rate=0.001, burst=3)
    replies = [(await emu.query(relationNum=X1)).outcome for _ in range(6)]
    assert replies == [(403, "1012007")] * 3 + [(403, "1010010")] * 3
    rows = await emu.ledger()
    assert [row["result_code"] for row in rows] == ["1012007"] * 3 + ["1010010"] * 3
    assert len({row["request"] for row in rows}) == 6
    assert all(row["op"] == "query" and row["app_key"] == KEY and row["received_at"] for row in rows)


async def test_same_limits_put_again_do_not_refill(emu: Emulated) -> None:
    """Putting an app with unchanged limits leaves its bucket as it is; rate 0 switches flow control off."""
    await emu.app(rate=0.001, burst=1)
    await emu.query(relationNum=X1)
    await emu.app(rate=0.001, burst=1)
    assert (await emu.query(relationNum=X1)).code == "1010010"
    await emu.app(rate=0)
    assert (await emu.query(relationNum=X1)).code == "1012007"

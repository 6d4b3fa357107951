"""Authentication of wire requests: X-AKSK and the older X-WSSE, a code for each missing piece (contract 1.2-1.4)."""

from __future__ import annotations

import hmac
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from broker.emulator.codes import SOURCE_BLOCKED, TIME_OUT_LIMIT, UNKNOWN_APP, Refusal
from broker.emulator.limits import SourceBlock
from broker.emulator.registry import App, Registry
from broker.emulator.settings import EmulatorSettings
from broker.emulator.times import created_ms
from broker.platform.huawei.sign import aksk_digest, wsse_digest

_ATTRIBUTE: Final = re.compile(r'([A-Za-z]+)\s*=\s*"([^"]*)"')
_NONCE: Final = re.compile(r"[0-9A-Za-z]{1,128}")
# The documented order of the attributes; any other order, and whatever is missing, takes the long way.
_USUAL_TOKEN: Final = re.compile(
    r'UsernameToken Username="([^"]+)", ?PasswordDigest="([^"]+)", ?Nonce="([0-9A-Za-z]{1,128})", ?Created="([^"]+)"'
)
_AKSK_FIRST_CODE: Final = 1_023_033
_UTC8_MS: Final = 8 * 3600 * 1000
_REMEMBERED_HEADERS: Final = 64


class SignedRequest(Protocol):
    """What authentication reads of a request; an absent header is ``None``."""

    peer: str
    authorization: str | None
    x_aksk: str | None
    x_wsse: str | None


@dataclass(frozen=True, slots=True)
class _Scheme:
    """One of the two schemes: the header that carries its token, its digest, the first of its five codes."""

    header: str
    digest: Callable[[str, str, str], str]
    first_code: int

    def missing(self, place: int, what: str) -> Refusal:
        text = f"{what} not contained in {self.header}." if what else f"HTTP header not found {self.header} field."
        return Refusal(str(self.first_code + place), http=400, text=text)


def attributes(value: str) -> dict[str, str]:
    """Return the ``name="value"`` pairs of a header, names in lower case, whatever stands between them."""
    return {name.lower(): content for name, content in _ATTRIBUTE.findall(value)}


class Guard:
    """Turns a request into the app that signed it, or raises the platform's refusal."""

    def __init__(self, settings: EmulatorSettings, registry: Registry) -> None:
        self._registry = registry
        self._sources = SourceBlock(
            after=settings.block_after, window_s=settings.block_window_s, block_s=settings.block_for_s
        )
        self._skew_ms = settings.created_skew_s * 1000
        self._accepts_utc8 = settings.created_accepts_utc8
        self._invalid_digest = settings.invalid_digest_code
        self._nonces = _NonceMemory(self._skew_ms) if settings.refuse_repeated_nonce else None
        self._aksk = _Scheme("X-AKSK", aksk_digest, _AKSK_FIRST_CODE)
        self._wsse = _Scheme("X-WSSE", wsse_digest, settings.wsse_first_code)
        # Every request of a client carries the same Authorization: what it means is worked out once.
        self._known: dict[str, _Scheme] = {}
        self._created: tuple[str | None, int] = (None, 0)  # the text parsed last

    def check_source(self, peer: str, now_ms: int) -> None:
        """Refuse whatever comes from a blocked address."""
        if self._sources.blocked(peer, now_ms):
            raise Refusal(SOURCE_BLOCKED)

    def authenticate(self, request: SignedRequest, now_ms: int) -> App:
        """Return the app whose secret signed ``request``.

        The digest is judged before ``Created``, which means nothing until it is known to be signed; only a wrong
        digest counts towards the block of the source address.
        """
        scheme = self._scheme(request.authorization)
        token = request.x_aksk if scheme is self._aksk else request.x_wsse
        username, nonce, created_at, created, digest = self._pieces(scheme, token)
        app = self._registry.apps.get(username)
        if app is None:
            raise Refusal(UNKNOWN_APP)
        expected = scheme.digest(app.secret, nonce, created)
        if not hmac.compare_digest(expected.encode(), digest.encode(errors="surrogateescape")):
            self._sources.failed(request.peer, now_ms)
            raise Refusal(self._invalid_digest, http=401, text="Invalid digest.")
        if not self._is_timely(created_at, now_ms):
            raise Refusal(TIME_OUT_LIMIT, http=401)
        if self._nonces is not None and not self._nonces.is_new(f"{username} {nonce}", now_ms):
            raise Refusal(self._invalid_digest, http=401, text="Invalid digest.")
        return app

    def _scheme(self, authorization: str | None) -> _Scheme:
        if authorization is None:
            raise Refusal("1023006")
        known = self._known.get(authorization)
        if known is not None:
            return known
        given = attributes(authorization)
        for name, value, missing, wrong in (
            ("realm", "SDP", "1023007", "1023009"),
            ("profile", "UsernameToken", "1023008", "1023010"),
            ("type", "Appkey", "1023012", "1023011"),
        ):
            if name not in given:
                raise Refusal(missing)
            if given[name] != value:
                raise Refusal(wrong)
        word = authorization.split(maxsplit=1)[0].upper()
        if word not in {"AKSK", "WSSE"}:
            raise Refusal("1023006")
        scheme = self._aksk if word == "AKSK" else self._wsse
        if len(self._known) < _REMEMBERED_HEADERS:
            self._known[authorization] = scheme
        return scheme

    def _pieces(self, scheme: _Scheme, token: str | None) -> tuple[str, str, int, str, str]:
        if token is None:
            raise scheme.missing(0, "")
        usual = _USUAL_TOKEN.fullmatch(token)
        if usual is not None and usual[4] == self._created[0]:
            return usual[1], usual[3], self._created[1], usual[4], usual[2]
        given = attributes(token)
        if not given.get("username") or not token[:13].lower() == "usernametoken":
            raise scheme.missing(1, "UserName")
        nonce = given.get("nonce", "")
        if not _NONCE.fullmatch(nonce):
            raise scheme.missing(2, "Nonce")
        created = given.get("created", "")
        if created != self._created[0]:
            created_at = created_ms(created)
            if created_at is None:
                raise scheme.missing(3, "Created")
            self._created = (created, created_at)
        if not given.get("passworddigest"):
            raise scheme.missing(4, "PasswordDigest")
        return given["username"], nonce, self._created[1], created, given["passworddigest"]

    def _is_timely(self, created_at: int, now_ms: int) -> bool:
        age_ms = now_ms - created_at
        # `Created` has no milliseconds: up to one second of its age is rounding, not skew.
        return -self._skew_ms <= age_ms < self._skew_ms + 1000 or (
            self._accepts_utc8 and -self._skew_ms <= age_ms + _UTC8_MS < self._skew_ms + 1000
        )


class _NonceMemory:
    """Nonces seen while their ``Created`` may still be accepted."""

    def __init__(self, skew_ms: float) -> None:
        self._keep_ms = 2 * skew_ms + 1000
        self._seen: set[str] = set()
        self._order: deque[tuple[int, str]] = deque()

    def is_new(self, nonce: str, now_ms: int) -> bool:
        while self._order and now_ms - self._order[0][0] > self._keep_ms:
            self._seen.discard(self._order.popleft()[1])
        if nonce in self._seen:
            return False
        self._seen.add(nonce)
        self._order.append((now_ms, nonce))
        return True

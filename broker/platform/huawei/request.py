"""Signed requests as bytes (contract 1.2 to 1.4): everything that does not change is laid out once."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from enum import StrEnum
from typing import Final

from broker.platform.huawei.sign import aksk_digest, wsse_digest


class Scheme(StrEnum):
    """Which of the two authentication schemes the application uses."""

    AKSK = "aksk"
    WSSE = "wsse"


_DIGEST: Final[dict[Scheme, Callable[[str, str, str], str]]] = {Scheme.AKSK: aksk_digest, Scheme.WSSE: wsse_digest}


class RequestWriter:
    """Composes one application's requests, each with a new nonce and signature.

    A request's path comes behind ``prefix``. ``now`` returns unix time on the clock that ``Created`` is taken from.
    """

    def __init__(
        self,
        *,
        host: str,
        prefix: str,
        app_key: str,
        secret: str,
        scheme: Scheme,
        keep_alive: bool,
        now: Callable[[], float],
    ) -> None:
        if not app_key or not app_key.isascii() or not app_key.isprintable() or '"' in app_key or "\\" in app_key:
            raise ValueError("app_key must be printable ASCII without quotes")
        self._prefix = prefix
        self._secret = secret
        self._digest = _DIGEST[scheme]
        self._now = now
        self._second = -1
        self._created = ""
        name = scheme.value.upper()
        self._head = (
            f" HTTP/1.1\r\nHost: {host}\r\n"
            "Content-Type: application/json;charset=UTF-8\r\n"
            "Accept: application/json\r\n" + ("" if keep_alive else "Connection: close\r\n") + f"Authorization: {name} "
            'realm="SDP",profile="UsernameToken",type="Appkey"\r\n'
            f'X-{name}: UsernameToken Username="{app_key}",PasswordDigest="'
        )

    def post(self, path: str, body: bytes) -> bytes:
        """Return a signed POST of a JSON body."""
        return self._with_body("POST", path, body)

    def put(self, path: str, body: bytes) -> bytes:
        """Return a signed PUT of a JSON body."""
        return self._with_body("PUT", path, body)

    def get(self, path: str, query: str) -> bytes:
        """Return a signed GET; ``query`` is already quoted."""
        return self._signed("GET", f"{path}?{query}")

    def delete(self, path: str, query: str) -> bytes:
        """Return a signed DELETE; ``query`` is already quoted."""
        return self._signed("DELETE", f"{path}?{query}")

    def _with_body(self, method: str, path: str, body: bytes) -> bytes:
        return self._signed(method, path, f"Content-Length: {len(body)}\r\n") + body

    def _signed(self, method: str, target: str, more: str = "") -> bytes:
        nonce = secrets.token_hex(16)
        created = self._created_now()
        digest = self._digest(self._secret, nonce, created)
        proof = f'{digest}",Nonce="{nonce}",Created="{created}"'
        return f"{method} {self._prefix}{target}{self._head}{proof}\r\n{more}\r\n".encode("ascii")

    def _created_now(self) -> str:
        """Return ``Created``: UTC, whole seconds; formatted once a second."""
        second = int(self._now())
        if second != self._second:
            self._second = second
            self._created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(second))
        return self._created

"""Whether a notification is the platform's: its two headers, in either scheme (contract 6.2).

The signature covers the moment and not the body, so it is judged before a byte of the body is read.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from broker.platform.huawei.sign import aksk_digest, wsse_digest

_ATTRIBUTE: Final = re.compile(r'([A-Za-z]{1,20})\s*=\s*"([^"]{0,256})"')
# The documented order of the attributes; any other one, and whatever is missing, takes the long way.
_USUAL: Final = re.compile(
    r'UsernameToken Username="([^"]{1,256})", ?PasswordDigest="([^"]{1,256})", ?'
    r'Nonce="([^"]{1,256})", ?Created="([^"]{1,256})"'
)
_NONCE: Final = re.compile(r"[0-9A-Za-z]{1,128}")
_CREATED: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?Z", re.ASCII)
_LONGEST: Final = 2048
_SCHEMES: Final = (("X-AKSK", aksk_digest), ("X-WSSE", wsse_digest))


class Doubt(StrEnum):
    """Why a notification is not taken for the platform's; the values are labels of a metric."""

    UNSIGNED = "unsigned"
    OTHER_SCHEME = "scheme_not_allowed"
    OTHER_APP = "other_app"
    WRONG_SIGNATURE = "wrong_signature"
    OLD = "old"
    FUTURE = "future"


@dataclass(frozen=True, slots=True)
class Signer:
    """An app as the platform signs for it: either secret is good."""

    app_key: str
    secrets: Sequence[str]
    wsse: bool


def signed_at(headers: Mapping[str, str], signer: Signer) -> datetime | Doubt:
    """Return when a request with such headers was signed, or why it is not the platform's. Its age is not judged."""
    name, digest = next((scheme for scheme in _SCHEMES if scheme[0] in headers), ("", aksk_digest))
    if name == "X-WSSE" and not signer.wsse:
        return Doubt.OTHER_SCHEME
    token = headers.get(name, "")
    username, shown, nonce, created = _attributes(token)
    if not shown or not _NONCE.fullmatch(nonce) or (at := _moment(created)) is None:
        return Doubt.UNSIGNED
    if username != signer.app_key:
        return Doubt.OTHER_APP
    # Every secret is tried whatever the others say, so that time tells nothing of which one it was.
    bare = shown.encode(errors="surrogateescape")  # bytes that are no UTF-8 come as surrogates
    matches = [hmac.compare_digest(digest(secret, nonce, created).encode(), bare) for secret in signer.secrets]
    return at if any(matches) else Doubt.WRONG_SIGNATURE


def _attributes(token: str) -> tuple[str, ...]:
    usual = _USUAL.fullmatch(token)
    if usual is not None:
        return usual.groups()
    given = {key.lower(): value for key, value in _ATTRIBUTE.findall(token[:_LONGEST])}
    return tuple(given.get(name, "") for name in ("username", "passworddigest", "nonce", "created"))


def doubt_of_age(at: datetime, now: datetime, *, most_s: float, skew_s: float) -> Doubt | None:
    """Return whether what was signed then is too old, or from a future that no clock's error explains."""
    age_s = (now - at).total_seconds()
    if age_s > most_s:
        return Doubt.OLD
    return Doubt.FUTURE if age_s < -skew_s else None


def _moment(created: str) -> datetime | None:
    if _CREATED.fullmatch(created) is None:
        return None
    try:
        at = datetime.fromisoformat(created).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return at.replace(microsecond=0)

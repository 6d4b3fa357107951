"""Digests of the two authentication schemes of the platform's wire (contract 1.2, 1.3).

Requests to the platform and its pushes to us use the same formulas with the same APP_Secret.
"""

from __future__ import annotations

import base64
import hashlib
import hmac


def aksk_digest(secret: str, nonce: str, created: str) -> str:
    """Return ``Base64(HMAC-SHA256(key=secret, message=nonce + created))``: contract 1.2."""
    mac = hmac.digest(secret.encode(), (nonce + created).encode(), "sha256")
    return base64.b64encode(mac).decode("ascii")


def wsse_digest(secret: str, nonce: str, created: str) -> str:
    """Return ``Base64(SHA-256(nonce + created + secret))``: contract 1.3, the secret comes last."""
    raw = hashlib.sha256((nonce + created + secret).encode()).digest()
    return base64.b64encode(raw).decode("ascii")

"""Webhooks: signatures of Standard Webhooks 1.0, when to try again, which addresses may be reached."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import random
import secrets
from collections.abc import Sequence
from typing import Final

_PREFIX: Final = "whsec_"
_KEY_BYTES: Final = 32
_LEAST_KEY_BYTES: Final = 24
_MOST_KEY_BYTES: Final = 64
#: IPv4 inside IPv6 that only translators make: RFC 6052.
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def new_secret() -> str:
    """Return a new signing secret."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(_KEY_BYTES)).decode()


def is_secret(text: str) -> bool:
    """Tell whether this is a signing secret: ``whsec_`` and 24 to 64 bytes of base64."""
    if not text.startswith(_PREFIX):
        return False
    try:
        key = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return False
    return _LEAST_KEY_BYTES <= len(key) <= _MOST_KEY_BYTES


def signature(live: Sequence[str], message_id: str, timestamp: int, body: bytes) -> str:
    """Return ``webhook-signature``: one for each live secret, so that either verifies while they are exchanged."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    made = (hmac.new(base64.b64decode(one.removeprefix(_PREFIX)), signed, hashlib.sha256) for one in live)
    return " ".join("v1," + base64.b64encode(mac.digest()).decode() for mac in made)


def parse_schedule(text: str) -> tuple[float, ...]:
    """Read waits in seconds, comma separated.

    Raises:
        ValueError: one is no number from 0 to a week, or there are none or more than fifty.
    """
    waits = tuple(float(part) for part in text.split(","))
    if not all(0 <= wait <= 604_800 for wait in waits) or len(waits) > 50:  # noqa: PLR2004 - a week, and enough
        raise ValueError("must be up to 50 waits of at most a week")
    return waits


def retry_after(schedule: Sequence[float], attempts: int) -> float | None:
    """Return how long to wait after so many attempts, give or take a tenth; None = give up."""
    if attempts > len(schedule):
        return None
    return schedule[attempts - 1] * random.uniform(0.9, 1.1)  # noqa: S311 - jitter


def parse_networks(text: str) -> tuple[Network, ...]:
    """Read networks, comma separated; none for an empty text.

    Raises:
        ValueError: one is no network.
    """
    return tuple(ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip())


def may_reach(address: str, allowed: Sequence[Network]) -> bool:
    """Tell whether a webhook may go to this address: a public one, or one that the operator allows."""
    real = _unwrapped(ipaddress.ip_address(address.partition("%")[0]))
    odd = real.is_multicast or real.is_reserved or (isinstance(real, ipaddress.IPv6Address) and real.is_site_local)
    return is_allowed(address, allowed) or (real.is_global and not odd)


def is_allowed(address: str, allowed: Sequence[Network]) -> bool:
    """Tell whether the operator allows this address by name of its network."""
    real = _unwrapped(ipaddress.ip_address(address.partition("%")[0]))
    return any(real in network for network in allowed)


def _unwrapped(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address stands for, if it does."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address

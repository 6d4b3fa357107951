"""Which broker the city plays against, and that it is one to play with."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import orjson

from broker.embedded.process import started_at

#: What a running `broker up` writes into its state folder; holds no secret.
ADDRESSES = "addresses.json"


class NoTarget(Exception):
    """One sentence for the user."""


@dataclass(frozen=True, slots=True)
class Target:
    """Addresses of a broker and of the emulator that plays its platform; ``admin`` None = not known."""

    api: str
    emulator: str
    admin: str | None
    key: str = field(repr=False)


def beside(folder: Path) -> Target:
    """Return the addresses of the `broker up` that runs in ``folder``.

    Raises:
        NoTarget: none runs there, or its files cannot be read.
    """
    try:
        told = orjson.loads((folder / ADDRESSES).read_bytes())
        if started_at(told["pid"]) == told["started"]:
            key = orjson.loads((folder / "keys.json").read_bytes())["api_key"]
            return Target(told["api"], told["emulator_admin"], told["admin"], key)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise NoTarget(f"{error.filename}: {error.strerror}") from None
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise NoTarget(f"{folder}: its files are not what `broker up` writes") from None
    raise NoTarget(
        f"No `broker up` runs in {folder}: start it, name its folder with --state-dir, "
        "or give --url, --key and --emulator."
    )


def refuse_elsewhere(target: Target) -> None:
    """Check that all addresses are this machine's: the city places hundreds of binds, and rented numbers are no toys.

    Raises:
        NoTarget: one is not, or is no address.
    """
    refuse_far((target.api, target.emulator, target.admin))


def refuse_far(addresses: Iterable[str | None]) -> None:
    """Check that addresses are this machine's.

    Raises:
        NoTarget: one is not, or is no address.
    """
    for address in addresses:
        if address is None:
            continue
        parts = urlsplit(address)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise NoTarget(f"{address} is not an http address.")
        if not _loopback(parts.hostname):
            raise NoTarget(f"{parts.hostname} is not this machine: --anywhere plays there all the same.")


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

"""Where one application's platform lives, and opening connections to it."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

#: Short connections are the contract's normal case (1.1): without this every call would ask the resolver.
RESOLVED_FOR_S: Final = 10.0
_HIGHEST_PORT: Final = 65535

ProtocolT = TypeVar("ProtocolT", bound=asyncio.Protocol)


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """How the platform's certificate is checked: against the system's authorities or ``ca_file``, always by name."""

    ca_file: str | None = None
    server_name: str | None = None  # when the certificate is for another name than the address

    def context(self) -> ssl.SSLContext:
        """Build the context once; reading the authorities takes milliseconds."""
        context = ssl.create_default_context(cafile=self.ca_file)
        context.set_alpn_protocols(["http/1.1"])
        return context


@dataclass(frozen=True, slots=True)
class Origin:
    """An access address, split: scheme, host, port, and the path prefix that every URI gets."""

    host: str
    port: int
    secure: bool
    prefix: str = ""

    @classmethod
    def parse(cls, base_url: str) -> Origin:
        """Split ``https://host[:port][/prefix]``. Raises ``ValueError`` for anything else."""
        if not base_url.isascii() or not base_url.isprintable() or " " in base_url:
            raise ValueError("the access address must be plain ASCII")
        url = urlsplit(base_url)
        if url.scheme not in {"http", "https"} or not url.hostname or url.query or url.fragment or "@" in url.netloc:
            raise ValueError("the access address must look like https://host[:port][/prefix]")
        url.hostname.encode("idna")
        secure = url.scheme == "https"
        port = url.port if url.port is not None else (443 if secure else 80)
        if not 0 < port <= _HIGHEST_PORT:
            raise ValueError("the access address has a port outside 1-65535")
        return cls(url.hostname, port, secure, url.path.rstrip("/"))

    @property
    def host_header(self) -> str:
        """The ``Host`` value: the port only when it is not the scheme's own, brackets around IPv6."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"


class Dialer:
    """Opens connections to one origin; names are resolved at most once in ``RESOLVED_FOR_S``."""

    def __init__(self, origin: Origin, tls: TlsOptions | None = None) -> None:
        self._origin = origin
        self._options: dict[str, Any] = {}
        if origin.secure:
            tls = tls or TlsOptions()
            self._options = {"ssl": tls.context(), "server_hostname": tls.server_name or origin.host}
        self._addresses: list[str] = []
        self._resolved_until = 0.0

    async def open(self, factory: Callable[[], ProtocolT]) -> ProtocolT:
        """Connect to the first address that answers. Raises ``OSError`` with the last address's reason."""
        failure = OSError("the name has no address")
        for address in tuple(await self._resolve()):
            try:
                return await self._connect(factory, address)
            except OSError as error:
                failure = error
        self._resolved_until = 0.0
        raise failure

    async def _connect(self, factory: Callable[[], ProtocolT], address: str) -> ProtocolT:
        loop = asyncio.get_running_loop()
        try:
            _, protocol = await loop.create_connection(factory, address, self._origin.port, **self._options)
        except BaseException:  # cancelled means too slow: let the next call begin with another address
            self._addresses = [other for other in self._addresses if other != address] + [address]
            raise
        return protocol

    async def _resolve(self) -> list[str]:
        loop = asyncio.get_running_loop()
        if loop.time() >= self._resolved_until:
            found = await loop.getaddrinfo(self._origin.host, self._origin.port, type=socket.SOCK_STREAM)
            self._addresses = [str(address[0]) for *_, address in found]
            self._resolved_until = loop.time() + RESOLVED_FOR_S
        return self._addresses

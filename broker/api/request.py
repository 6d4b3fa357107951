"""Requests as they are seen on their way to a handler, whoever has read them."""

from __future__ import annotations

from typing import Any, Protocol

from multidict import MultiMapping


class Request(Protocol):
    """What is asked of a request on its way to its handler."""

    @property
    def method(self) -> str: ...  # noqa: D102 - as the framework's
    @property
    def raw_path(self) -> str: ...  # noqa: D102
    @property
    def headers(self) -> MultiMapping[str]: ...  # noqa: D102
    @property
    def protocol(self) -> object: ...  # noqa: D102
    def __getitem__(self, name: str, /) -> Any: ...
    def __contains__(self, name: object, /) -> bool: ...
    def get(self, name: str, /) -> Any: ...  # noqa: D102
    def __setitem__(self, name: str, value: Any, /) -> None: ...

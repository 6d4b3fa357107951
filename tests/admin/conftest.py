from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.contract.service import Client, Service, add_key, client_of, memory, rows, up
from tests.pg import state_folder


@pytest.fixture(scope="package")
def service() -> Iterator[Service]:
    """One broker with two workers for all tests of the admin listener."""
    with (
        state_folder(memory()) as folder,
        up(folder, "--workers", "2", settings={"BROKER_DB_TIMEOUT_S": "2"}) as running,
    ):
        yield running


@pytest.fixture
async def client(service: Service) -> AsyncIterator[Client]:
    """Requests to it."""
    async with client_of(service) as made:
        yield made


@pytest.fixture(scope="package")
def operator(service: Service) -> str:
    """A key with the scope `operate`."""

    async def make() -> str:
        (app,) = await rows(service, "SELECT id FROM app WHERE name = 'demo-axb'")
        return await add_key(service, app["id"], "console", ["operate"])

    return asyncio.run(make())

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.contract.service import Client, Service, Tenant, add_app, client_of, memory, settled_config, up
from tests.pg import state_folder


@pytest.fixture(scope="package")
def service() -> Iterator[Service]:
    """One broker with two workers for all tests of the contract."""
    # What is unknown is given up soon: the tests of it wait for that.
    settings = {"BROKER_PLATFORM_ABSENCE_S": "10"}
    with state_folder(memory()) as folder, up(folder, "--workers", "2", settings=settings) as running:
        yield running


@pytest.fixture
async def client(service: Service) -> AsyncIterator[Client]:
    """Requests to it; faults at the platform end with the test."""
    async with client_of(service) as made:
        yield made


@pytest.fixture(scope="package")
def other(service: Service) -> Tenant:
    """Another app, without any pool, with callers of each single scope."""

    async def make() -> Tenant:
        callers = [("main", ("bind", "read")), ("binder", ("bind",)), ("reader", ("read",)), ("nothing", ())]
        tenant = await add_app(service, "other", callers=callers)
        async with client_of(service) as client:
            await settled_config(service, client, tenant.keys["nothing"])
        return tenant

    return asyncio.run(make())

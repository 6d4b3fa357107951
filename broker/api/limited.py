"""Limits of requests a second: who is over one is told when to come back, who has one where it stands."""

from __future__ import annotations

import math
from collections.abc import Mapping

from broker.api.context import Services
from broker.api.request import Request
from broker.domain.quota import limit_header, policy_header
from broker.errors import RateLimited
from broker.flows.inbound import Standing
from broker.store.registry import Key


async def charged(request: Request, services: Services, key: Key, cost: int = 1) -> None:
    """Charge ``cost`` requests to the caller and its app.

    Raises:
        RateLimited: one of them has asked for more than its limit allows.
    """
    if cost < 1:
        return
    standing = await services.inbound.charge(key, cost)
    if standing is None:
        return
    request["standing"] = standing
    if standing.wait_s is not None:
        who = "This caller" if standing.whose == "caller" else "This app"
        raise RateLimited(
            f"{who} sends more requests than its limit allows.", retry_after_s=max(1, math.ceil(standing.wait_s))
        )


def told(standing: Standing) -> Mapping[str, str]:
    """Return the headers of the IETF draft for rate limits."""
    return {"RateLimit-Policy": policy_header(standing.left), "RateLimit": limit_header(standing.left)}

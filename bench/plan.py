"""What a load process is told, as one line of JSON, and what it asks of the broker: pairs of random parties."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

import orjson

#: Fictional ranges that meet neither each other nor the X numbers of the scenario.
_COURIER, _CUSTOMER = 13_800_000_000, 15_000_000_000
_CUSTOMERS = 90_000_000


@dataclass(frozen=True, slots=True)
class Plan:
    """Load of one process. Times are seconds; ``seed`` makes the parties and arrivals repeatable."""

    host: str
    port: int
    api_key: str
    kind: Literal["closed", "open"]
    connections: int
    seconds: float
    seed: int
    out: str
    pools: tuple[str, ...] = ()
    couriers: int = 20_000
    ttl_s: int = 86_400
    keep_alive: bool = True
    idempotency: bool = False
    release_after_s: float | None = None
    rate: float = 0.0
    arrivals: Literal["poisson", "constant"] = "poisson"
    max_requests: int = 1_000_000
    request_timeout_s: float = 10.0

    def line(self) -> bytes:
        """Return the plan as one line."""
        return orjson.dumps(self) + b"\n"

    @classmethod
    def parse(cls, line: bytes) -> Plan:
        """Read what :meth:`line` wrote."""
        fields = orjson.loads(line)
        return cls(**{**fields, "pools": tuple(fields["pools"])})


class Orders:
    """Makes requests: a courier, who has several orders at a time, and a customer, who has about one."""

    def __init__(self, plan: Plan) -> None:
        """Compose whatever is the same in every request."""
        self._random = random.Random(plan.seed)
        self._couriers = plan.couriers
        self._pools = plan.pools
        self._ttl_s = plan.ttl_s
        self._seed = plan.seed
        self._idempotency = plan.idempotency
        self._made = 0
        connection = b"" if plan.keep_alive else b"Connection: close\r\n"
        common = b"Host: %s:%d\r\nAuthorization: Bearer %s\r\n%s" % (
            plan.host.encode(), plan.port, plan.api_key.encode(), connection,
        )  # fmt: skip
        self._post = b"POST /v1/bindings HTTP/1.1\r\n" + common + b"Content-Type: application/json\r\n"
        self._delete = b" HTTP/1.1\r\n" + common + b"\r\n"

    def bind(self) -> tuple[str, str, str | None, bytes]:
        """Return A, B, the Idempotency-Key and the request."""
        self._made += 1
        number = self._random.random
        a = f"+86{_COURIER + int(number() * self._couriers)}"
        b = f"+86{_CUSTOMER + int(number() * _CUSTOMERS)}"
        pool = f'"pool":"{self._pools[int(number() * len(self._pools))]}",' if self._pools else ""
        order = f"bench-{self._seed}-{self._made}"
        body = f'{{"a":"{a}","b":"{b}",{pool}"ttl_s":{self._ttl_s},"order_id":"{order}"}}'.encode()
        key = f"Idempotency-Key: {order}\r\n".encode() if self._idempotency else b""
        head = b"%s%sContent-Length: %d\r\n\r\n" % (self._post, key, len(body))
        return a, b, order if self._idempotency else None, head + body

    def release(self, binding: str) -> bytes:
        """Return the request."""
        return b"DELETE /v1/bindings/" + binding.encode() + self._delete

    def arrivals(self, plan: Plan) -> list[float]:
        """Return the intended starts, in seconds from the beginning, drawn beforehand."""
        count = min(int(plan.rate * plan.seconds * 1.5) + 100, plan.max_requests)
        starts: list[float] = []
        at = 0.0
        for place in range(count):
            at = at + self._random.expovariate(plan.rate) if plan.arrivals == "poisson" else place / plan.rate
            if at >= plan.seconds:
                break
            starts.append(at)
        return starts

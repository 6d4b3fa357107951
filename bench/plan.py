"""What a load process is told, as one line of JSON, and what it asks of the broker: pairs of random parties."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

import orjson

#: Fictional ranges that meet neither each other nor the X numbers of the scenario.
_COURIER, _CUSTOMER = 13_800_000_000, 15_000_000_000
_CUSTOMERS = 90_000_000

Op = Literal["bind", "read", "change", "release", "batch"]
Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Ask:
    """A request to send: for which pairs, under which key; ``binding`` of reads, releases and changes."""

    op: Op
    request: bytes
    pairs: tuple[Pair, ...] = ()
    key: str | None = None
    binding: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Load of one process. Times are seconds; ``seed`` makes the parties and arrivals repeatable.

    ``zipf``: the k-th pool gets 1/k^zipf of the first one's orders; ``hot_share`` of all orders are of one courier.
    ``keep``: beyond so many live bindings the oldest are released. ``mix``: shares of requests, instead of binds alone.
    ``retries``: a bind without a final answer is sent again so often. ``steps``: from that second on, that rate.
    """

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
    zipf: float = 0.0
    hot_share: float = 0.0
    keep: int | None = None
    mix: tuple[tuple[Op, float], ...] = ()
    batch_size: int = 20
    retries: int = 0
    steps: tuple[tuple[float, float], ...] = ()

    def line(self) -> bytes:
        """Return the plan as one line."""
        return orjson.dumps(self) + b"\n"

    @classmethod
    def parse(cls, line: bytes) -> Plan:
        """Read what :meth:`line` wrote."""
        fields = orjson.loads(line)
        pairs = {name: tuple(tuple(one) for one in fields[name]) for name in ("mix", "steps")}
        return cls(**{**fields, **pairs, "pools": tuple(fields["pools"])})

    def rate_at(self, second: float) -> float:
        """Return the arrivals a second that are meant at ``second``."""
        return next((rate for at, rate in reversed(self.steps) if at <= second), self.rate)


def courier(number: int) -> str:
    """Return the phone of a courier of the load."""
    return f"+86{_COURIER + number}"


class Orders:
    """Makes requests: a courier, who has several orders at a time, and a customer, who has about one."""

    def __init__(self, plan: Plan) -> None:
        """Compose whatever is the same in every request."""
        self._random = random.Random(plan.seed)
        self._plan = plan
        self._weights = _cumulated([1 / place**plan.zipf for place in range(1, len(plan.pools) + 1)])
        self._ops = [op for op, _ in plan.mix] or ["bind"]
        self._shares = _cumulated([share for _, share in plan.mix] or [1.0])
        self._made = 0
        connection = b"" if plan.keep_alive else b"Connection: close\r\n"
        common = b"Host: %s:%d\r\nAuthorization: Bearer %s\r\n%s" % (
            plan.host.encode(), plan.port, plan.api_key.encode(), connection,
        )  # fmt: skip
        self._typed = common + b"Content-Type: application/json\r\n"
        self._bare = b" HTTP/1.1\r\n" + common + b"\r\n"

    def next_op(self) -> Op:
        """Draw what comes next by the shares of the mix."""
        return self._ops[bisect_right(self._shares, self._random.random())]

    def bind(self) -> Ask:
        """Return a bind of a new order."""
        pair, order, item = self._order()
        key = order if self._plan.idempotency else None
        return Ask("bind", self._typed_request(b"POST /v1/bindings", item.encode(), key), (pair,), key)

    def batch(self) -> Ask:
        """Return a batch of new orders."""
        orders = [self._order() for _ in range(self._plan.batch_size)]
        body = ('{"items":[' + ",".join(item for _, _, item in orders) + "]}").encode()
        request = self._typed_request(b"POST /v1/bindings:batch", body, None)
        return Ask("batch", request, tuple(pair for pair, _, _ in orders))

    def change(self, binding: str, a: str) -> Ask:
        """Return a request that replaces the customer of ``a``."""
        b = self._customer()
        request = self._typed_request(b"PATCH /v1/bindings/" + binding.encode(), f'{{"b":"{b}"}}'.encode(), None)
        return Ask("change", request, ((a, b),), binding=binding)

    def read(self, binding: str) -> Ask:
        """Return a request for what a binding is now."""
        return Ask("read", b"GET /v1/bindings/" + binding.encode() + self._bare)

    def release(self, binding: str) -> Ask:
        """Return a request that ends a binding."""
        return Ask("release", b"DELETE /v1/bindings/" + binding.encode() + self._bare, binding=binding)

    def _order(self) -> tuple[Pair, str, str]:
        self._made += 1
        plan, number = self._plan, self._random.random
        hot = plan.hot_share and number() < plan.hot_share
        a, b = courier(0 if hot else int(number() * plan.couriers)), self._customer()
        pool = f'"pool":"{plan.pools[bisect_right(self._weights, number())]}",' if plan.pools else ""
        order = f"bench-{plan.seed}-{self._made}"
        return (a, b), order, f'{{"a":"{a}","b":"{b}",{pool}"ttl_s":{plan.ttl_s},"order_id":"{order}"}}'

    def _customer(self) -> str:
        return f"+86{_CUSTOMER + int(self._random.random() * _CUSTOMERS)}"

    def _typed_request(self, line: bytes, body: bytes, key: str | None) -> bytes:
        named = f"Idempotency-Key: {key}\r\n".encode() if key else b""
        return b"%s HTTP/1.1\r\n%s%sContent-Length: %d\r\n\r\n%s" % (line, self._typed, named, len(body), body)

    def arrivals(self) -> list[float]:
        """Return the intended starts, in seconds from the beginning, drawn beforehand."""
        plan = self._plan
        starts: list[float] = []
        at = self._gap(0.0) if plan.arrivals == "poisson" else 0.0
        while at < plan.seconds and len(starts) < plan.max_requests:
            starts.append(at)
            at += self._gap(at)
        return starts

    def _gap(self, at: float) -> float:
        rate = self._plan.rate_at(at)
        return self._random.expovariate(rate) if self._plan.arrivals == "poisson" else 1 / rate


def _cumulated(weights: Sequence[float]) -> list[float]:
    """Return sums from 0 to 1 for :func:`bisect_right`, without the last, which rounding could make less than 1."""
    whole = sum(weights)
    return [one / whole for one in accumulate(weights)][:-1]

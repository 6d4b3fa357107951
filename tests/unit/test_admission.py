from __future__ import annotations

from broker.domain.admission import CALM_S, FEWEST, STANDING_S, Gate, Work

_KIND = "POST /v1/bindings"


class _Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class _Broker:
    """A gate and the requests that are in work behind it; each other one in work adds ``each_s``."""

    def __init__(self, *, alone_s: float = 0.01, each_s: float = 0.001, most: int = 10_000) -> None:
        self.clock = _Clock()
        self.gate = Gate(self.clock, longest_wait_s=0.25, most=most)
        self.teach(alone_s, each_s)

    def teach(self, alone_s: float, each_s: float) -> None:
        """Carry out lone requests, then crowds of twenty: the first begins beside none, all end beside all."""
        for _ in range(200):
            self.carry(1, alone_s)
        for _ in range(20):
            self.carry(20, alone_s + each_s * (10.5 + 20) / 2)

    def carry(self, many: int, seconds: float) -> None:
        """Carry out so many at once."""
        works = self.hold(many)
        self.clock.now += seconds
        for work in works:
            # All end together, and each was beside all others.
            work.telling = True
        for work in works:
            self.gate.items, self.gate.singles = many, many
            work.end()
        self.gate.items = self.gate.singles = 0

    def hold(self, many: int) -> list[Work]:
        """Let so many begin."""
        return [self.gate.begin(_KIND) for _ in range(many)]

    def reason(self, within_s: float = 3.0) -> str | None:
        """Why one more is refused."""
        refusal = self.gate.refuses(_KIND, within_s)
        return refusal.reason if refusal is not None else None

    def overload(self) -> None:
        """Have the wait be too long for longer than a moment."""
        works = self.hold(1000)
        for _ in range(3):
            self.reason()
            self.clock.now += STANDING_S * 0.7
        assert self.gate.shedding
        for work in works:
            work.end()


def test_what_cannot_be_done_in_time_is_refused_at_once() -> None:
    """With 500 in work that add 1 ms each, 0.4 s are too few and 0.6 s enough; it is told when to come back."""
    broker = _Broker()
    assert broker.reason() is None
    broker.hold(500)
    refusal = broker.gate.refuses(_KIND, 0.4)
    assert refusal is not None
    assert refusal.reason == "deadline"
    assert 0.4 < refusal.wait_s < 0.6
    assert refusal.retry_after_s == 1
    assert broker.reason(0.6) is None
    assert broker.gate.refused == {"deadline": 1}


def test_retry_after_grows_with_the_wait_and_ends_at_a_minute() -> None:
    """Seconds are whole ones, from 1 to 60."""
    broker = _Broker(each_s=0.5)
    broker.hold(10)
    refusal = broker.gate.refuses(_KIND, 1.0)
    assert refusal is not None
    assert 4 <= refusal.retry_after_s <= 6
    broker.hold(5000)
    refusal = broker.gate.refuses(_KIND, 1.0)
    assert refusal is not None
    assert refusal.retry_after_s == 60


def test_a_burst_passes() -> None:
    """A thousand at once are let in when they have the time, as long as they do not stay."""
    broker = _Broker()
    for _ in range(1000):
        assert broker.reason() is None
        broker.hold(1)
    broker.clock.now += STANDING_S * 0.9
    assert broker.reason() is None
    assert not broker.gate.shedding


def test_a_queue_that_stays_makes_requests_be_shed() -> None:
    """Once the wait has been too long for longer than a moment, few are left in work; with fewer, one gets in."""
    broker = _Broker()
    broker.overload()
    in_work = 0
    while broker.reason() is None:
        broker.hold(1)
        in_work += 1
    assert broker.reason() == "standing"
    assert FEWEST <= in_work <= 30
    assert broker.gate.expected_s() <= 0.03


def test_shedding_ends_when_nothing_need_be_shed() -> None:
    """A second without a refusal ends it; a refusal within that second does not let it end."""
    broker = _Broker()
    broker.overload()
    works = broker.hold(100)
    broker.clock.now += CALM_S * 0.8
    assert broker.reason() == "standing"
    broker.clock.now += CALM_S * 0.8
    assert broker.reason() == "standing"
    for work in works:
        work.end()
    broker.clock.now += CALM_S * 1.1
    assert broker.reason() is None
    assert not broker.gate.shedding
    broker.hold(100)
    assert broker.reason() is None


def test_a_few_are_always_let_in() -> None:
    """However slow it seems: else nobody would learn that it has become faster."""
    broker = _Broker(alone_s=1.0, each_s=100.0)
    broker.hold(FEWEST - 1)
    assert broker.reason(0.1) is None
    broker.hold(1)
    assert broker.reason(0.1) == "deadline"


def test_large_requests_are_held_to_their_deadline() -> None:
    """Two are let in whatever comes; a third one with too much in front of it is refused."""
    broker = _Broker()
    for _ in range(2):
        assert broker.gate.refuses(_KIND, 3.0, large=True) is None
        broker.hold(1)[0].holds(2000)
    refusal = broker.gate.refuses(_KIND, 3.0, large=True)
    assert refusal is not None
    assert refusal.reason == "deadline"
    assert broker.gate.refuses(_KIND, 10.0, large=True) is None


def test_what_was_learned_is_unlearned() -> None:
    """After a slow time the few that are let in show that all is well again."""
    broker = _Broker(alone_s=0.01, each_s=1.0)
    assert broker.gate.expected_s() == 0
    works = broker.hold(10)
    assert broker.reason() == "deadline"
    for work in works:
        work.end()
    for _ in range(150):
        broker.carry(FEWEST, 0.01 + FEWEST * 0.001)
    broker.hold(100)
    assert broker.reason() is None


def test_waiting_for_the_platform_is_no_work() -> None:
    """Who stands aside neither counts nor tells: a slow platform makes nobody be refused."""
    broker = _Broker()
    expected = broker.gate.expected_s()
    works = broker.hold(300)
    asides = [work.aside() for work in works]
    for aside in asides:
        aside.__enter__()
    assert broker.gate.items == 0
    assert broker.reason(0.1) is None
    broker.clock.now += 20.0
    for aside, work in zip(asides, works, strict=True):
        aside.__exit__(None, None, None)
        work.telling = True
        work.end()
    assert broker.gate.expected_s() == expected
    broker.hold(100)
    assert broker.reason(0.5) is None


def test_parts_of_one_request_that_wait_count_once() -> None:
    """A batch whose items wait for the platform each stands aside once, and comes back once."""
    broker = _Broker()
    (work,) = broker.hold(1)
    work.holds(50)
    assert (broker.gate.items, broker.gate.singles) == (50, 0)
    with work.aside():
        with work.aside():
            assert broker.gate.items == 0
        assert broker.gate.items == 0
    assert broker.gate.items == 50
    work.end()
    work.end()
    with work.aside():
        assert broker.gate.items == 0
    assert (broker.gate.items, broker.gate.singles, broker.gate.large, broker.gate.aside) == (0, 0, 0, 0)


def test_a_large_batch_does_not_shed_small_requests() -> None:
    """While a batch of 1,000 is in work, single requests are let in as long as they have the time."""
    broker = _Broker()
    broker.overload()
    (batch,) = broker.hold(1)
    batch.holds(1000)
    broker.hold(FEWEST)
    assert broker.reason(3.0) is None
    assert broker.reason(0.5) == "deadline"


def test_refused_requests_teach_nothing() -> None:
    """What ends with an error says nothing about how long it takes."""
    broker = _Broker()
    before = broker.gate.expected_s(), broker.hold(50)
    broker.clock.now += 30.0
    for work in before[1]:
        work.end()
    assert broker.gate.expected_s() == before[0]


def test_the_number_in_work_is_bounded() -> None:
    """Whatever time they have."""
    broker = _Broker(each_s=0.000_1, most=1000)
    broker.hold(999)
    assert broker.reason(30.0) is None
    (last,) = broker.hold(1)
    assert broker.reason(30.0) == "full"
    with last.aside():
        assert broker.reason(30.0) == "full"
    last.end()
    assert broker.reason(30.0) is None

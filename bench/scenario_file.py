"""A scenario as its file says it: one TOML file, checked as a whole before anything starts.

The shipped ones are in ``bench/scenarios``; ``./scripts/bench show NAME > mine.toml`` makes a copy to change.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bench.plan import Op, Plan
from bench.scenario import Shape
from bench.stack import BenchError

SHIPPED = Path(__file__).parent / "scenarios"

_MOST_S = 7200.0
_Seconds = Annotated[float, Field(gt=0, le=_MOST_S)]
_Rate = Annotated[float, Field(gt=0, le=1e6)]
_Share = Annotated[float, Field(ge=0, le=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Step(_Part):
    """From second ``at_s`` of the window on, arrivals come at ``rate``."""

    at_s: float = Field(ge=0, le=_MOST_S)
    rate: _Rate


class Load(_Part):
    """What is sent: ``closed`` = each client asks again once it has its answer; ``open`` = at ``rate``, whatever."""

    kind: Literal["closed", "open"] = "closed"
    clients: int = Field(default=200, ge=1, le=10_000)
    processes: int = Field(default=1, ge=1, le=64)
    seconds: _Seconds = 10.0
    warmup_s: float = Field(default=2.0, ge=0, le=600)
    runs: int = Field(default=3, ge=1, le=100)
    rate: _Rate | None = None
    steps: list[Step] = Field(default=[], max_length=100)
    arrivals: Literal["poisson", "constant"] = "poisson"
    max_requests: int = Field(default=2_000_000, ge=1, le=100_000_000)
    request_timeout_s: float = Field(default=10.0, gt=0, le=120)
    retries: int = Field(default=0, ge=0, le=20)
    keep_alive: bool = True
    idempotency_keys: bool = False
    ttl_s: int = Field(default=86_400, ge=0, le=7_776_000)
    release_after_s: float | None = Field(default=None, ge=0, le=_MOST_S)
    keep: int | None = Field(default=None, ge=1, le=5_000_000)
    batch_size: int = Field(default=20, ge=1, le=1000)
    couriers: int = Field(default=20_000, ge=1, le=10_000_000)
    hot_share: _Share = 0.0
    seed: int = 1

    @model_validator(mode="after")
    def _agrees(self) -> Load:
        if (self.kind == "open") != (self.rate is not None):
            raise ValueError("an open loop needs a rate, and a closed one has none")
        if self.steps and (self.kind == "closed" or self.steps != sorted(self.steps, key=lambda one: one.at_s)):
            raise ValueError("steps are of an open loop, and in the order of their seconds")
        return self


class Mix(_Part):
    """Shares of the requests; what is held is read, changed and released."""

    bind: _Share = 0.0
    read: _Share = 0.0
    change: _Share = 0.0
    release: _Share = 0.0
    batch: _Share = 0.0

    @model_validator(mode="after")
    def _sums(self) -> Mix:
        if abs(sum(share for _, share in self.shares()) - 1) > 1e-6 or self.bind + self.batch == 0:
            raise ValueError("the shares must sum to 1, with some bind or batch among them")
        return self

    def shares(self) -> tuple[tuple[Op, float], ...]:
        """Return the shares by what is asked."""
        of: tuple[tuple[Op, float], ...] = (
            ("bind", self.bind), ("read", self.read), ("change", self.change), ("release", self.release),
            ("batch", self.batch),
        )  # fmt: skip
        return tuple(one for one in of if one[1])


class Pools(_Part):
    """The cities: with ``zipf`` z the k-th gets 1/k^z of the first one's orders."""

    count: int = Field(default=8, ge=1, le=1000)
    zipf: float = Field(default=0.0, ge=0, le=5)
    numbers: int = Field(default=500, ge=1, le=100_000)
    cap: int = Field(default=500, ge=1, le=5000)
    quarantine_s: int = Field(default=7200, ge=1, le=31_536_000)
    mode: Literal["axb", "x"] = "axb"
    app_rate: _Rate | None = None


class Fill(_Part):
    """What the books hold before the load: live lines (mode x), rests of strangers, couriers with few X left.

    ``barred_share`` of the couriers have all X of each pool but ``free_x`` barred.
    """

    live: int = Field(default=0, ge=0, le=2_000_000)
    resting: int = Field(default=0, ge=0, le=50_000_000)
    barred_share: _Share = 0.0
    free_x: int = Field(default=1, ge=1, le=100_000)


class Wire(_Part):
    """The platform: its latency is log-normal; flow control is answered to so large a share instead of a success.

    Without ``keep_alive`` it closes after each answer; with ``tls`` it has a certificate that the broker trusts.
    """

    keep_alive: bool = True
    tls: bool = False
    median_ms: float | None = Field(default=None, gt=0, le=60_000)
    sigma: float = Field(default=0.5, ge=0, le=3)
    flow_control_share: _Share = 0.0


class Faults(_Part):
    """What is done to the broker during the load."""

    kill_every_s: _Seconds | None = None
    freeze_every_s: _Seconds | None = None
    freeze_s: _Seconds = 5.0
    restart_postgres_every_s: _Seconds | None = None
    checkpoint_every_s: _Seconds | None = None
    held_snapshot: bool = False
    checkpoint: bool = False

    @property
    def end_processes(self) -> bool:
        """Tell whether processes change under the load: then what each of them spent is not known."""
        return self.kill_every_s is not None or self.restart_postgres_every_s is not None

    @property
    def disturb(self) -> bool:
        """Tell whether what has become of a platform call may be unknown for a while."""
        return self.end_processes or self.freeze_every_s is not None


class Broker(_Part):
    """How it is started; settings are its own variables."""

    workers: int = Field(default=2, ge=1, le=64)
    settings: dict[Annotated[str, Field(pattern=r"^BROKER_[A-Z0-9_]{1,60}$")], str] = {}


class ScenarioFile(_Part):
    """The whole file. With ``runner`` a bench of its own is what runs, with these ``arguments``.

    ``against`` names another scenario: the two run in turn, and ratios are told.
    """

    about: str = Field(min_length=1, max_length=500)
    runner: str | None = Field(default=None, pattern=r"^bench\.[a-z_]{1,40}$")
    arguments: list[Annotated[str, Field(max_length=100)]] = Field(default=[], max_length=40)
    against: str | None = Field(default=None, max_length=200)
    load: Load = Load()
    mix: Mix | None = None
    pools: Pools = Pools()
    fill: Fill = Fill()
    platform: Wire = Wire()
    faults: Faults = Faults()
    broker: Broker = Broker()

    @model_validator(mode="after")
    def _one_way(self) -> ScenarioFile:
        given = self.model_fields_set - {"about", "runner", "arguments"}
        if self.runner is not None and given:
            raise ValueError(f"a runner takes arguments, not {', '.join(sorted(given))}")
        if self.runner is None and self.arguments:
            raise ValueError("arguments are for a runner")
        if self.fill.live and self.pools.mode != "x":
            raise ValueError("live lines can be filled in where the platform keeps nothing: mode x")
        if self.mix is not None and (self.load.keep is not None or self.load.release_after_s is not None):
            raise ValueError("a mix releases by its own share: neither keep nor release_after_s goes with it")
        return self

    def plan(self) -> Plan:
        """Return the load of all processes together; where it goes is not known yet."""
        load = self.load
        return Plan(
            host="", port=0, api_key="", kind=load.kind, connections=load.clients, out="", seed=load.seed,
            seconds=load.warmup_s + load.seconds, couriers=load.couriers, ttl_s=load.ttl_s, keep_alive=load.keep_alive,
            idempotency=load.idempotency_keys or load.retries > 0, release_after_s=load.release_after_s,
            rate=load.rate or 0.0, arrivals=load.arrivals, max_requests=load.max_requests,
            request_timeout_s=load.request_timeout_s, zipf=self.pools.zipf, hot_share=load.hot_share, keep=load.keep,
            mix=self.mix.shares() if self.mix else (), batch_size=load.batch_size, retries=load.retries,
            steps=tuple((load.warmup_s + step.at_s, step.rate) for step in load.steps),
        )  # fmt: skip

    def shape(self) -> Shape:
        """Return app and pools."""
        pools = self.pools
        return Shape(
            pools=pools.count, numbers=pools.numbers, cap=pools.cap, quarantine_s=pools.quarantine_s,
            couriers=self.load.couriers, rate=pools.app_rate, mode=pools.mode,
        )  # fmt: skip


def shipped() -> dict[str, Path]:
    """Return the files that come with the bench by their names."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.toml"))}


def find(name: str) -> Path:
    """Return the file that ``name`` means: a shipped scenario, or a path.

    Raises:
        BenchError: if there is none.
    """
    path = shipped().get(name, Path(name))
    if not path.is_file():
        raise BenchError(f"There is no scenario {name}; `bench list` names them, or give the path of a .toml file.")
    return path


def read(path: Path) -> ScenarioFile:
    """Read a file.

    Raises:
        BenchError: with everything that is wrong in it.
    """
    try:
        return ScenarioFile.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise BenchError(f"{path}: {error}") from None
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, one['loc'])) or 'the whole'}: {one['msg']}" for one in error.errors()]
        raise BenchError(f"{path}: " + "; ".join(wrong)) from None

"""What a city does with its phones: a file of shares, and the draws from it."""

from __future__ import annotations

import random
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from broker.emulator.outcomes import WORDS

_LONGEST_S: Final = 3_600
_FILE_BYTES: Final = 64 * 1024

Share = Annotated[float, Field(ge=0, le=1)]
Span = tuple[Annotated[float, Field(ge=0, le=_LONGEST_S)], Annotated[float, Field(ge=0, le=_LONGEST_S)]]


class MixError(Exception):
    """One sentence about a file that cannot be used."""


class Mix(BaseModel):
    """Shares of calls and messages. The outcomes are parts of their sum, whatever it is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    outcomes: dict[str, Annotated[float, Field(ge=0)]] = {
        "answer": 70, "busy": 8, "no_answer": 12, "rejected": 4, "off": 4, "gave_up_ringing": 2,
    }  # fmt: skip
    ring_s: Span = (2, 12)
    talk_s: Span = (5, 40)
    messages: Share = 0.1
    """Of all that is done, the share of messages; the rest are calls."""
    by_a: Share = 0.5
    """Calls and messages that A begins, where A can."""
    strangers: Share = 0.02
    """Calls and messages to X of a pair by somebody who is neither of them."""

    @model_validator(mode="after")
    def _can_be_drawn_from(self) -> Mix:
        unknown = sorted(self.outcomes.keys() - WORDS.keys())
        if unknown:
            raise ValueError(f"outcomes: {unknown[0]} is none of {', '.join(WORDS)}")
        if not sum(self.outcomes.values()):
            raise ValueError("outcomes: at least one must be above 0")
        if self.ring_s[0] > self.ring_s[1] or self.talk_s[0] > self.talk_s[1]:
            raise ValueError("ring_s and talk_s are [least, most]")
        return self


def read(path: Path) -> Mix:
    """Return the mix of a TOML file.

    Raises:
        MixError: it cannot be read, or is no mix.
    """
    try:
        with path.open("rb") as file:
            return Mix.model_validate(tomllib.loads(file.read(_FILE_BYTES).decode()))
    except OSError as error:
        raise MixError(f"{path}: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        raise MixError(f"{path}: {'.'.join(map(str, first['loc'])) or 'the mix'}: {first['msg']}") from None
    except ValueError as error:  # no TOML, or no UTF-8
        raise MixError(f"{path}: {error}") from None


class Dice:
    """Draws from a mix; the same seed draws the same."""

    def __init__(self, mix: Mix, seed: int) -> None:
        self._mix = mix
        self._random = random.Random(seed)  # noqa: S311 - who calls whom is no secret
        self._words = list(mix.outcomes)
        self._weights = list(mix.outcomes.values())

    @property
    def longest_s(self) -> float:
        """How long a call may take from the dialling to its end."""
        return self._mix.ring_s[1] + self._mix.talk_s[1]

    def is_message(self) -> bool:
        """Whether the next thing is a message."""
        return self._random.random() < self._mix.messages

    def deed(self, binding: dict[str, Any]) -> dict[str, str]:
        """Draw who dials which number of ``binding``, as the emulator's admin port shows one."""
        x, y, extension = binding["x"], binding["y"], binding["extension"]
        from_a = self._random.random() < self._mix.by_a and (binding["mode"] == "axb" or y is not None)
        # Who may be called by anybody has one caller here: in AXYB each further one would take a Y.
        other = binding["b"] or f"+86198{x[-8:]}"
        caller = binding["a"] if from_a else other
        if binding["mode"] == "axb" and self._random.random() < self._mix.strangers:
            caller = f"+86199{self._random.randrange(10**8):08d}"
        dialled = y if from_a and y is not None else x
        return {"from": caller, "to": dialled} | ({"digits": extension} if extension is not None else {})

    def course(self) -> dict[str, Any]:
        """Draw how a call goes."""
        (word,) = self._random.choices(self._words, self._weights)
        return {
            "outcome": word,
            "ring_s": round(self._random.uniform(*self._mix.ring_s), 1),
            "talk_s": round(self._random.uniform(*self._mix.talk_s), 1),
            "released_by": self._random.choice(("caller", "callee")),
        }

    def one_of(self, bindings: list[dict[str, Any]]) -> dict[str, Any]:
        """Draw a binding."""
        return self._random.choice(bindings)

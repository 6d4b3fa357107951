"""How pushes go wrong when an operator wants them to (contract 6.2, 6.3, 6.5): shares of pushes, drawn for each one."""

from __future__ import annotations

import random
from typing import Annotated, Any, Final

from pydantic import Field

from broker.emulator.admin_http import Input

Share = Annotated[float, Field(ge=0, le=1)]

MOST_CDRS: Final = 50
#: What a record or an event may lack (contract 6.4, 6.5), as far as nobody could do without it.
_OPTIONAL: Final = (
    "subscriptionId", "callerNum", "calleeNum", "fwdDisplayNum", "fwdDstNum", "callInTime", "fwdStartTime",
    "fwdAlertingTime", "mptyId", "serviceType", "hostName", "voiceCheckType", "stateDesc", "areaCode", "icid",
)  # fmt: skip


class Trouble(Input):
    """What is in force. All of it off: pushes arrive once, at once, in order, signed and whole."""

    duplicates: Share = 0
    """Pushes that are repeated although a 200 was heard, ``at_most`` times."""
    at_most: Annotated[int, Field(ge=1, le=6)] = 6
    delay_s: Annotated[float, Field(ge=0, le=86_400)] = 0
    """Each push, and each repetition, waits for up to so long: so they come in disorder."""
    wrong_signature: Share = 0
    """Pushes whose digest is made with another secret."""
    cut: Share = 0
    """Connections that are cut before the answer is read."""
    missing_fields: Share = 0
    """Things that lack one of the fields that they may lack."""
    cdr_batch: Annotated[int, Field(ge=1, le=MOST_CDRS)] = 1
    """Records of an app that go into one push, if so many come within ``cdr_batch_s``."""
    cdr_batch_s: Annotated[float, Field(gt=0, le=3_600)] = 1.0


class Dice:
    """Draws by the shares in force."""

    def __init__(self, seed: int | None) -> None:
        self.trouble = Trouble()
        self._random = random.Random(seed)  # noqa: S311 - a share of pushes is no secret

    def hits(self, share: float) -> bool:
        """Draw once."""
        return share > 0 and self._random.random() < share

    def delay_s(self) -> float:
        """How long the next push waits."""
        return self._random.uniform(0, self.trouble.delay_s) if self.trouble.delay_s else 0.0

    def again(self) -> int:
        """How often a push that arrived is repeated all the same."""
        return self._random.randint(1, self.trouble.at_most) if self.hits(self.trouble.duplicates) else 0

    def lacking(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return what is told of a thing."""
        given = [name for name in _OPTIONAL if name in body] if self.hits(self.trouble.missing_fields) else []
        # Without any number of its own a record is known by its session.
        lost = self._random.choice(given) if given else None
        return {name: value for name, value in body.items() if name != lost}

"""Mode X: the routing must say of every X what the lines say. No more than that is true: the platform keeps nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from broker.domain.phone import mask

#: Nobody of the load has this number.
_STRANGER = "+8613700000000"


@dataclass(frozen=True, slots=True)
class Reachable:
    """An active line: ``b`` None where one party has the X."""

    x: str
    a: str
    b: str | None


@dataclass(frozen=True, slots=True)
class Routed:
    """Who calls X, whom that must reach (None = nobody), and whom the routing names, masked."""

    x: str
    caller: str
    wanted: str | None
    named: str | None


async def ask(api: str, key: str, lines: Sequence[Reachable], numbers: Sequence[str]) -> list[Routed]:
    """Ask of every line, for each of its parties and a stranger, and of every X without one."""
    answers = []
    headers = {"Authorization": f"Bearer {key}"}
    free = [(x, _STRANGER, None) for x in numbers if x not in {line.x for line in lines}]
    async with aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=30)) as http:
        for x, caller, wanted in [*_questions(lines), *free]:
            async with http.post(f"{api}/v1/reach:query", json={"x": x, "caller": caller}) as answer:
                told: dict[str, Any] = await answer.json()
            answers.append(Routed(x, caller, wanted, told.get("party", f"problem {told.get('code')}")))
    return answers


def _questions(lines: Iterable[Reachable]) -> Iterator[tuple[str, str, str | None]]:
    for line in lines:
        if line.b is None:
            yield line.x, _STRANGER, line.a
        else:
            yield line.x, line.a, line.b
            yield line.x, line.b, line.a
            yield line.x, _STRANGER, None


def misrouted(answers: Iterable[Routed]) -> list[str]:
    """Return where routing and lines differ."""
    return [
        f"misrouted: {mask(one.caller)} who dials X {mask(one.x)} is told {one.named or 'nobody'}, "
        f"and the lines say {mask(one.wanted) if one.wanted else 'nobody'}"
        for one in answers
        if one.named != (mask(one.wanted) if one.wanted else None)
    ]

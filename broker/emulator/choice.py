"""Which X the platform may pick for a city, and in which order it tries them (contract 2.6)."""

from __future__ import annotations

import random
from collections.abc import Iterator

from broker.emulator.areas import province
from broker.emulator.registry import App


def by_distance(app: App, area_code: str, rng: random.Random, *, relaxed: bool) -> Iterator[list[str]]:
    """Yield the X of the city; then, relaxed, of its province; then all others: each group from a random start."""
    groups = [[area_code]]
    if relaxed:
        home = province(area_code)
        groups.append([other for other in app.areas if home and other != area_code and province(other) == home])
        seen = {area_code, *groups[1]}
        groups.append([other for other in app.areas if other not in seen])
    for group in groups:
        numbers = [x for area in group for x in app.areas.get(area, ())]
        if numbers:
            start = rng.randrange(len(numbers))
            yield numbers[start:] + numbers[:start]


def candidates(app: App, area_code: str, rng: random.Random, *, relaxed: bool) -> Iterator[str]:
    """Yield the X of the city; then, relaxed, of its province; then any: each group from a random start."""
    for numbers in by_distance(app, area_code, rng, relaxed=relaxed):
        yield from numbers

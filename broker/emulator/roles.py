"""Which numbers of AXYB are X and which are Y: one with an A is an X, one with relations a Y (contract 5.2).

Any number of the app may become either, and is free again when it has neither. A Y is shared before another number
becomes one. No A has two relations on one Y, not even under two X: nobody could say which B it would reach.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping

from broker.emulator.binding import Binding
from broker.emulator.choice import by_distance, candidates
from broker.emulator.registry import App
from broker.emulator.settings import EmulatorSettings


class Roles:
    """Live AX by X, relations by X and Y, relations by Y and A."""

    def __init__(self, settings: EmulatorSettings) -> None:
        self.owned: dict[str, Binding] = {}
        self._of_x: dict[str, dict[str, Binding]] = {}
        self._of_y: dict[str, dict[str, Binding]] = {}
        self._owners: dict[tuple[str, str], set[str]] = {}  # app key and A to its X
        self._relations_per_y = settings.axyb_relations_per_y
        self._random = random.Random(settings.seed)  # noqa: S311 - which free number is no secret

    def attach(self, binding: Binding) -> None:
        """Index an AX or a relation."""
        if binding.y is None:
            self.owned[binding.x] = binding
            self._owners.setdefault((binding.app_key, binding.a), set()).add(binding.x)
        else:
            self._of_x.setdefault(binding.x, {})[binding.y] = binding
            self._of_y.setdefault(binding.y, {})[binding.a] = binding

    def detach(self, binding: Binding) -> None:
        """Free an X, or one place of a Y. Of an AX and relations that end together, either may come first."""
        if binding.y is None:
            del self.owned[binding.x]
            owner = binding.app_key, binding.a
            self._owners[owner].discard(binding.x)
            if not self._owners[owner]:
                del self._owners[owner]
        else:
            _drop(self._of_x, binding.x, binding.y)
            _drop(self._of_y, binding.y, binding.a)

    def x_count(self, app: App, a: str) -> int:
        """Return how many X of ``app`` ``a`` owns."""
        return len(self._owners.get((app.config.app_key, a), ()))

    def relations(self, ax: Binding) -> Mapping[str, Binding]:
        """Return the relations of an AX by their Y, oldest first."""
        return self._of_x.get(ax.x, {})

    def relation(self, ax: Binding, b: str) -> Binding | None:
        """Return the relation of one B."""
        return next((yb for yb in self.relations(ax).values() if yb.b == b), None)

    def on_y(self, y: str) -> Mapping[str, Binding]:
        """Return the relations that ``y`` serves by their A."""
        return self._of_y.get(y, {})

    def bindings_of(self, number: str) -> Iterable[Binding]:
        """Return an X's AX and relations, or a Y's relations, oldest first."""
        ax = self.owned.get(number)
        return [ax, *self.relations(ax).values()] if ax is not None else list(self.on_y(number).values())

    def free_x(self, app: App, area_code: str, *, relaxed: bool) -> str | None:
        """Return a number that has neither role."""
        numbers = candidates(app, area_code, self._random, relaxed=relaxed)
        return next((x for x in numbers if x not in self.owned and x not in self._of_y), None)

    def free_y(self, app: App, ax: Binding, area_code: str | None, *, relaxed: bool) -> str | None:
        """Return a Y for one more B of ``ax``; with no city wished for, one in X's city or else anywhere."""
        home = area_code or app.numbers.get(ax.x, "")
        for numbers in by_distance(app, home, self._random, relaxed=relaxed or area_code is None):
            shared = (number for number in numbers if self._has_place(number, ax.a))
            free = (number for number in numbers if number not in self.owned and number not in self._of_y)
            chosen = next(shared, None) or next(free, None)
            if chosen is not None:
                return chosen
        return None

    def _has_place(self, y: str, a: str) -> bool:
        relations = self._of_y.get(y)
        return relations is not None and len(relations) < self._relations_per_y and a not in relations


def _drop(index: dict[str, dict[str, Binding]], outer: str, inner: str) -> None:
    del index[outer][inner]
    if not index[outer]:
        del index[outer]

"""How many answers that hold everything a process sends at once."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from broker.errors import Unavailable
from broker.flows.exports import Exports


def test_none_of_an_app_and_none_of_a_process_beyond_its_bound() -> None:
    """An app has two, a process eight; each is free again when it has ended, however it did."""
    exports = Exports()
    with ExitStack() as running:
        for app_id in range(4):
            for _ in range(2):
                running.enter_context(exports.one_more(app_id))
            with pytest.raises(Unavailable):
                running.enter_context(exports.one_more(app_id))
        with pytest.raises(Unavailable):
            running.enter_context(exports.one_more(5))
    for _ in range(20):
        with pytest.raises(KeyError), exports.one_more(5):
            raise KeyError

"""Options of a line: which sets a modification can turn into which."""

from __future__ import annotations

import pytest

from broker.domain.options import DEFAULT, CallOptions, modifiable

ON, OFF = True, False


@pytest.mark.parametrize(
    ("was", "wanted", "possible"),
    [
        (DEFAULT, DEFAULT, True),
        (DEFAULT, CallOptions(max_call_minutes=5, sms=False, caller_tone="a.wav"), True),
        (DEFAULT, CallOptions(recording=ON), True),
        (DEFAULT, CallOptions(recording=ON, hint_tone="h.wav"), False),
        (DEFAULT, CallOptions(hint_tone="h.wav"), False),
        (CallOptions(recording=OFF, hint_tone="h.wav"), CallOptions(recording=ON, hint_tone="h.wav"), True),
        (CallOptions(recording=ON, hint_tone="h.wav"), CallOptions(recording=ON, hint_tone="h.wav", sms=True), True),
        (CallOptions(recording=ON, hint_tone="h.wav"), CallOptions(recording=ON, hint_tone="i.wav"), False),
        (CallOptions(recording=ON, hint_tone="h.wav"), CallOptions(recording=OFF, hint_tone="i.wav"), False),
        (CallOptions(recording=ON, hint_tone="h.wav"), CallOptions(recording=ON), False),
        (CallOptions(recording=ON, hint_tone="h.wav"), CallOptions(recording=OFF), True),
        (CallOptions(recording=ON, hint_tone="h.wav"), DEFAULT, True),
    ],
)
def test_modifiable(was: CallOptions, wanted: CallOptions, *, possible: bool) -> None:
    """Everything can change but the hint tone, which stays as it was bound or goes with the recording."""
    assert modifiable(was, wanted) is possible

"""Kinds of phones: who may be bound, who may dial."""

from __future__ import annotations

import pytest

from broker.domain.party import Kind, kind_of
from broker.domain.phone import PhoneNumber


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        ("+8613900000001", Kind.MOBILE),
        ("+8619999999999", Kind.MOBILE),
        ("+8612900000001", Kind.SPECIAL),
        ("+861390000000", Kind.SPECIAL),
        ("+8675528000001", Kind.LANDLINE),
        ("+861065550001", Kind.LANDLINE),
        ("+862065550001", Kind.LANDLINE),
        ("+868995550001", Kind.SPECIAL),  # 0899 is no city's
        ("+86755280000", Kind.SPECIAL),
        ("+86755280000012", Kind.SPECIAL),
        ("+864001234567", Kind.SERVICE),
        ("+86400123456", Kind.SPECIAL),
        ("+8695533", Kind.SERVICE),
        ("+8695013888", Kind.SERVICE),
        ("+869515551234", Kind.LANDLINE),  # Yinchuan, 0951, and no service
        ("+868008201234", Kind.SPECIAL),
        ("+8610086", Kind.SPECIAL),
        ("+85291234567", Kind.INTERNATIONAL),
        ("+85366123456", Kind.INTERNATIONAL),
        ("+886912345678", Kind.INTERNATIONAL),
        ("+14155550123", Kind.INTERNATIONAL),
    ],
)
def test_kind_of(number: str, kind: Kind) -> None:
    """By form and area code, each number is of one kind."""
    assert kind_of(PhoneNumber(number)) is kind

"""City codes and provinces."""

from __future__ import annotations

import pytest

from broker.domain.areas import areas_of, known, province
from tests import areas


def test_the_table_is_what_its_source_says() -> None:
    """The committed file is exactly what the script makes of the library: nothing in it is typed by hand."""
    assert areas.FILE.read_text(encoding="ascii") == areas.table(), "run scripts/areas"


@pytest.mark.parametrize(
    ("area_code", "name"),
    [
        ("010", "Beijing"),
        ("021", "Shanghai"),
        ("022", "Tianjin"),
        ("023", "Chongqing"),
        ("020", "Guangdong"),
        ("0755", "Guangdong"),
        ("0335", "Hebei"),
        ("0349", "Shanxi"),
        ("029", "Shaanxi"),
        ("0471", "Inner Mongolia"),
        ("0771", "Guangxi"),
        ("0891", "Tibet"),
        ("0951", "Ningxia"),
        ("0991", "Xinjiang"),
        ("0898", "Hainan"),
    ],
)
def test_a_city_is_in_its_province(area_code: str, name: str) -> None:
    """Municipalities are their own provinces; codes of one decade may belong to several."""
    assert known(area_code)
    assert province(area_code) == name
    assert area_code in areas_of(name)


@pytest.mark.parametrize("area_code", ["", "0", "755", "07", "075", "026", "0978", "0100", "0852", "+86755"])
def test_other_codes_are_no_city(area_code: str) -> None:
    """Nothing is guessed from a prefix: an unknown code has no province."""
    assert not known(area_code)
    assert province(area_code) is None


def test_provinces_share_out_all_codes() -> None:
    """Each of the mainland's 31 provinces has codes, in order; no code is in two."""
    provinces = {name for code in range(1000) if (name := province(f"0{code:02d}")) is not None}
    assert len(provinces) == 31
    assert areas_of("Beijing") == ("010",)
    assert areas_of("Hainan") == ("0898",)
    assert areas_of("Atlantis") == ()
    listed = [code for name in provinces for code in areas_of(name)]
    assert len(listed) == len(set(listed))
    assert areas_of("Guangdong") == tuple(sorted(areas_of("Guangdong")))

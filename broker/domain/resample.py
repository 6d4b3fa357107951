"""Fewer samples a second without folding what is too high back into the sound: a windowed-sinc low-pass.

Only the samples that are kept are computed, each as one product of a stretch of the source with the filter's row for
its position between two source samples. The work is the source's length times 2 x ``_REACH``.
"""

from __future__ import annotations

import math
from array import array
from functools import lru_cache
from operator import mul

#: Kept part of the spectrum, below half the target rate by the width of the filter's slope.
_PASS = 0.9
#: How far the filter looks to each side, in samples of the target.
_REACH = 16


def lower_rate(samples: array[int], source: int, target: int) -> array[int]:
    """Return 16-bit samples at ``target`` a second, which must not be above ``source``."""
    if source == target:
        return samples
    common = math.gcd(source, target)
    step, phases = source // common, target // common
    rows = _rows(step, phases)
    reach = len(rows[0]) // 2
    silence = array("h", bytes(2 * reach + 2))
    padded = silence[:reach] + samples + silence
    kept = array("h")
    for place in range(len(samples) * phases // step):
        whole, phase = divmod(place * step, phases)
        row = rows[phase]
        kept.append(_clipped(sum(map(mul, row, padded[whole : whole + len(row)]))))
    return kept


def _clipped(value: float) -> int:
    return max(-32_768, min(32_767, round(value)))


@lru_cache(maxsize=8)
def _rows(step: int, phases: int) -> list[list[float]]:
    """Return the filter for each position between two source samples; each row passes a constant unchanged."""
    ratio = step / phases
    reach = math.ceil(_REACH * ratio)
    rows = []
    for phase in range(phases):
        row = [_weight((at - reach - phase / phases) / ratio) for at in range(2 * reach + 1)]
        total = sum(row)
        rows.append([weight / total for weight in row])
    return rows


def _weight(distance: float) -> float:
    """Weight of a source sample ``distance`` target samples away."""
    if abs(distance) >= _REACH:
        return 0.0
    window = 0.5 + 0.5 * math.cos(math.pi * distance / _REACH)
    angle = math.pi * distance * _PASS
    return window * (math.sin(angle) / angle if angle else 1.0)

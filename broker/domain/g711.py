"""G.711: A-law and mu-law, each a table made once from the rule. Samples are 16-bit signed."""

from __future__ import annotations

from array import array
from collections.abc import Iterable

#: Even bits of every A-law byte are sent inverted, so that silence is not a run of zeros.
_EVEN = 0x55
_SIGN = 0x80
_MU_BIAS = 0x84


def alaw(samples: Iterable[int]) -> bytes:
    """Return the A-law bytes of 16-bit samples."""
    return bytes([_ALAW[sample >> 3] for sample in samples])


def from_alaw(encoded: bytes) -> array[int]:
    """Return the 16-bit samples of A-law bytes: the middle of the interval that each byte stands for."""
    return array("h", map(_FROM_ALAW.__getitem__, encoded))


def from_ulaw(encoded: bytes) -> array[int]:
    """Return the 16-bit samples of mu-law bytes."""
    return array("h", map(_FROM_ULAW.__getitem__, encoded))


def _encode(value: int) -> int:
    """Encode a signed value of 13 bits: sign, three bits of exponent, four of mantissa."""
    magnitude = value if value >= 0 else -value - 1
    exponent = max(magnitude.bit_length() - 5, 0)
    mantissa = magnitude >> max(exponent, 1) & 0x0F
    return (exponent << 4 | mantissa | (_SIGN if value >= 0 else 0)) ^ _EVEN


def _decode_alaw(code: int) -> int:
    code ^= _EVEN
    exponent, mantissa = code >> 4 & 0x07, code & 0x0F
    # Half a step is added: the middle of the interval. Exponents 0 and 1 have the same step.
    magnitude = (mantissa << 4) + 8 + (256 if exponent else 0) << max(exponent - 1, 0)
    return magnitude if code & _SIGN else -magnitude


def _decode_ulaw(code: int) -> int:
    code ^= 0xFF
    magnitude = ((code & 0x0F) << 3) + _MU_BIAS << (code >> 4 & 0x07)
    return _MU_BIAS - magnitude if code & _SIGN else magnitude - _MU_BIAS


#: Indexed by a sample without its lowest three bits; negative ones count from the end, as Python's indexes do.
_ALAW = bytes(_encode(value) for value in (*range(4096), *range(-4096, 0)))
_FROM_ALAW = tuple(map(_decode_alaw, range(256)))
_FROM_ULAW = tuple(map(_decode_ulaw, range(256)))

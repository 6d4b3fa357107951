"""What the platform demands of a voice file (contract 9.3), how another wav becomes one, and its way to approval.

::

    draft ──submit──► submitted ──approve──► approved
                          └───────reject───► rejected      other content: draft again, from every state
"""

from __future__ import annotations

import re
import sys
from array import array

from broker.domain import g711, wav
from broker.domain.resample import lower_rate
from broker.domain.wav import Wav

RATE = 8_000
#: "2 MB", read so that both readings of it take the file.
MOST_BYTES = 2_000_000
#: Of a file to be converted: bounds the work.
MOST_SOURCE_BYTES = 8 * 1024 * 1024
NAME_RULE = "must be up to 128 of A-Z, a-z, 0-9, -, _, . and @, ending in .wav, as wait_voice1.wav"

#: From which state a tone may come into another one.
FROM = {"submitted": "draft", "approved": "submitted", "rejected": "submitted"}

_NAME = re.compile(r"[0-9A-Za-z_.@-]{1,124}[.]wav")
#: Rates that wav files come in; each has few positions relative to 8,000, so that the filter stays small.
_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 88_200, 96_000, 176_400, 192_000)
_WORDS = {wav.PCM: "PCM", wav.ALAW: "A-law", wav.ULAW: "mu-law", 3: "floating point", 0x11: "ADPCM", 0x55: "MP3"}
_STEREO = 2


class CannotConvert(ValueError):
    """One sentence: why no tone can be made of a file."""


def is_name(name: str) -> bool:
    """Tell whether the platform takes a file of this name."""
    return _NAME.fullmatch(name) is not None


def unmet(sound: Wav, size: int) -> list[str]:
    """Return what a file of ``size`` bytes is instead of what the platform demands; nothing: it may be uploaded."""
    found = []
    if sound.tag != wav.ALAW or sound.bits != 8:  # noqa: PLR2004 - A-law has no other width
        found.append(f"{kind(sound)} instead of A-law")
    elif sound.extensible:
        found.append("A-law in the extensible format instead of plain A-law")
    if sound.rate != RATE:
        found.append(f"{sound.rate} Hz instead of {RATE}")
    if sound.channels != 1:
        found.append(f"{sound.channels} channels instead of one")
    if size > MOST_BYTES:
        found.append(f"{size:,} bytes instead of at most {MOST_BYTES:,}")
    return found


def convert(sound: Wav) -> bytes:
    """Return an A-law wav of 8 kHz and one channel.

    Raises:
        CannotConvert: the file's form is not known here, or what it becomes is too long.
    """
    if sound.channels > _STEREO:
        raise CannotConvert(f"The file has {sound.channels} channels; mono and stereo can be converted.")
    if sound.rate not in _RATES:
        raise CannotConvert(f"The file has {sound.rate} Hz; {', '.join(map(str, _RATES))} can be converted.")
    longest_ms = (MOST_BYTES - len(wav.write_alaw(b"", RATE))) * 1000 // RATE
    if sound.duration_ms >= longest_ms:
        raise CannotConvert(f"The file lasts {sound.duration_ms // 1000} s; a tone has at most {longest_ms // 1000}.")
    encoded = g711.alaw(lower_rate(_mono(sound), sound.rate, RATE))
    if not encoded:
        raise CannotConvert("The file is shorter than one sample of a tone.")
    return wav.write_alaw(encoded, RATE)


def kind(sound: Wav) -> str:
    """Return how the samples are stored, for people."""
    return f"{sound.bits}-bit {_WORDS.get(sound.tag, f'format {sound.tag}')}"


def _mono(sound: Wav) -> array[int]:
    samples = _samples(sound)
    if sound.channels == 1:
        return samples
    return array("h", [left + right >> 1 for left, right in zip(samples[::2], samples[1::2], strict=True)])


def _samples(sound: Wav) -> array[int]:
    match sound.tag, sound.bits:
        case wav.PCM, 16:
            samples = array("h", sound.data)
            if sys.byteorder == "big":
                samples.byteswap()
            return samples
        case wav.PCM, 8:
            return array("h", [byte - 128 << 8 for byte in sound.data])
        case wav.ALAW, 8:
            return g711.from_alaw(sound.data)
        case wav.ULAW, 8:
            return g711.from_ulaw(sound.data)
        case _:
            raise CannotConvert(f"The file is {kind(sound)}; PCM of 8 or 16 bits, A-law and mu-law can be converted.")
